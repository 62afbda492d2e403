"""A training run: step after step, with a log and a checkpoint, from wherever it was stopped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aligned import files
from aligned.alignment import alignment_score
from aligned.language.activations import Activations
from aligned.progress import tqdm
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training import autograd, fused
from aligned.training.memory import freed_memory_kept
from aligned.training.state import Training

LOG_ROWS = 50
COLUMNS = ("step", "tokens", "loss", "l0", "fvu", "dead", "alignment_mean", "alignment_p05", "alignment_p95", "scores")
SCORES = (41, -0.525, 1.525)  # the column `scores`: counts of alignment scores in that many bins from there to there


@freed_memory_kept()
def train(
    spec: RunSpec,
    activations: Activations,
    folder: Path,
    save_every: float = 60.0,
    progress: Callable[[int], object] | None = None,
) -> tuple[SAE, float]:
    """Train an SAE to the end, from the checkpoint in `folder` if there is one.

    The batch of a step is a function of the seed and the step alone, so a run that is stopped, or killed, and started
    again ends with the same bits. A checkpoint that is damaged, belongs to another spec, or comes from training on
    other activations is set aside, a warning names it, and training starts over. A checkpoint in another precision
    raises an error and is kept, because its work would be lost otherwise.

    Args:
        spec: what to train.
        activations: where its batches come from.
        folder: for `checkpoint.safetensors` and `log.csv`; one process at a time.
        save_every: seconds between checkpoints.
        progress: called with the number of tokens after each step; a bar of its own by default.

    Returns:
        The SAE, for scaled activations, and the seconds that training took, those before an interruption included.

    Raises:
        FloatingPointError: the loss is no longer finite; names the step; the last checkpoint is kept.
        OSError: no room for a checkpoint; the last one is kept.
        ValueError: the checkpoint was made in another precision; names both.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = spec.start(activations.d_in).to(device)
    trainer: Training = (fused if sae.method.by_hand else autograd).Trainer(sae, spec)
    place, log = folder / "checkpoint.safetensors", folder / "log.csv"
    identity = {
        "spec": spec.hash,
        "model": activations.model_fingerprint,
        "text": activations.text_fingerprint,
        "scale": activations.scale,  # differs between a pool and a stream of the same text
    }
    rows, before = _resume(trainer, place, identity)
    started = saved = time.perf_counter()
    bar = None
    if progress is None:
        bar = tqdm(total=spec.tokens, initial=trainer.step * spec.batch, unit="tok", unit_scale=True, desc=spec.name)
        progress = bar.update
    every = max(1, spec.steps // LOG_ROWS)
    while trainer.step < spec.steps:
        stats = trainer.update(activations.batch(spec.seed, trainer.step, spec.batch).to(device))
        progress(spec.batch)
        last = trainer.step == spec.steps
        save = last or time.perf_counter() - saved > save_every
        if (save or trainer.step % every == 0) and (failed := int(trainer.failed)) >= 0:
            why = "" if spec.constraint != "soft" else f", or than soft {spec.soft:g},"
            kept = f". The last checkpoint before it is kept in {folder}" if place.exists() else ""
            raise FloatingPointError(
                f"the loss is not finite at step {failed} of {spec.name}; a smaller lr than {spec.lr:g}{why} may "
                f"help{kept}"
            )
        if trainer.step % every == 0 or last:
            rows.append(_log_row(trainer, stats))
            if bar is not None:
                bar.set_postfix_str(f"loss {stats['loss']:.4f}, L0 {stats['l0']:.1f}, FVU {stats['fvu']:.4f}")
        if save:
            saved = time.perf_counter()
            facts = {
                **identity,
                "precision": trainer.precision,
                "step": trainer.step,
                "log": rows,
                "seconds": before + saved - started,
            }
            files.save(place, trainer.tensors(), facts)
    files.write_text(log, "\n".join([",".join(COLUMNS), *rows]) + "\n")
    if bar is not None:
        bar.close()
    return sae, before + time.perf_counter() - started


def _resume(trainer: Training, place: Path, identity: dict[str, Any]) -> tuple[list[str], float]:
    """Put the trainer where the checkpoint was taken. Returns the log up to there and the seconds it took."""
    files.remove_halves(place)
    if not place.exists():
        return [], 0.0
    try:
        tensors, facts = files.load(place, trainer.sae.b_dec.device)
        _check(trainer, place, identity, tensors, facts)
    except ValueError as error:
        aside = files.set_aside(place, place.parent)
        warnings.warn(f"{error}. It is set aside as {aside.name}; training starts over", stacklevel=3)
        return [], 0.0
    files.check_precision(place, facts, trainer.precision)
    trainer.restore(tensors, facts["step"])
    return facts["log"], facts["seconds"]


def _check(trainer: Training, place: Path, identity: dict[str, Any], tensors: dict[str, Tensor], facts: Any) -> None:
    """Raise a `ValueError` for a checkpoint that this training can't go on from."""
    if not isinstance(facts, dict) or not {"step", "log", "seconds", *identity} <= set(facts):
        raise ValueError(f"{place} is no checkpoint of this version")
    differ = [name for name, value in identity.items() if facts[name] != value]
    if differ:
        other = ", ".join(f"of another {name} ({facts[name]}), not {identity[name]}" for name in differ)
        raise ValueError(f"{place} is a checkpoint {other}")
    if not isinstance(facts["step"], int) or not 0 < facts["step"] <= trainer.spec.steps:
        raise ValueError(f"{place} is a checkpoint of step {facts['step']}, and there are {trainer.spec.steps}")
    own = trainer.tensors()
    for i, parameter in enumerate(trainer.sae.parameters()):  # Adam has no moments yet, and never any of some
        own |= {name: parameter for moment in ("", "_sq") if (name := f"adam.{i}.exp_avg{moment}") in tensors}
    if lacks := [name for name, value in own.items() if name not in tensors or tensors[name].shape != value.shape]:
        raise ValueError(f"{place} holds no {lacks[0]} of this SAE's shape, as a checkpoint of this version does")


def _log_row(trainer: Training, stats: dict[str, Tensor]) -> str:
    a = alignment_score(trainer.sae)
    low, high = torch.quantile(a, torch.tensor([0.05, 0.95], device=a.device)).tolist()
    values = [stats["loss"].item(), stats["l0"].item(), stats["fvu"].item(), trainer.dead(), a.mean().item(), low, high]
    bins, first, last = SCORES
    scores = torch.histc(a.clamp(first, last), bins, first, last).int().tolist()  # those beyond count at the ends
    numbers = [str(trainer.step), str(trainer.step * trainer.spec.batch), *(f"{v:.6g}" for v in values)]
    return ",".join([*numbers, " ".join(map(str, scores))])
