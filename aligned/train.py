"""Training: the settings of the paper's stack (`dictionary_learning`'s demo), scaled to the token budget.

Adam with a linear warm-up and a linear decay over the last fifth; squared error summed over d_in and averaged over the
batch; for ReLU plus lambda |f|_1 with a warm-up of its own; decoder rows of norm 1 (the gradient along a row is
removed, the row is rescaled after the step); products in bf16, weights in float32. Nothing here depends on the
constraint but the three lines that say so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from aligned import checkpoint
from aligned.activations import Activations
from aligned.alignment import alignment_penalty, alignment_score, dot, projected
from aligned.sae import SAE, keep_batch_topk
from aligned.spec import RunSpec

# Of the demo's 24,414 steps (50M tokens): 1000 steps of warm-up, 5000 of sparsity warm-up, decay over the last 20 %,
# the threshold from step 1000 on; a feature is dead that has not fired for 10M tokens.
WARMUP, SPARSITY_WARMUP, DECAY, THRESHOLD_START, DEAD = 1000 / 24414, 5000 / 24414, 0.2, 1000 / 24414, 0.2
THRESHOLD_MEMORY = 0.999
CLIP = 1.0  # of the gradient's norm, TopK and BatchTopK only, as in the paper's stack
LOG_ROWS = 50
COLUMNS = ("step", "tokens", "loss", "l0", "fvu", "dead", "alignment_mean", "alignment_p05", "alignment_p95")


class Trainer:
    """One SAE in training: what changes from step to step, and how.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it.
        bf16: products in bf16 under autocast; float32 otherwise.
    """

    def __init__(self, sae: SAE, spec: RunSpec, bf16: bool = True) -> None:
        self.sae, self.spec, self.bf16 = sae, spec, bf16
        self.step = 0
        self.optimizer = torch.optim.Adam([p for p in sae.parameters()], lr=spec.lr, fused=True)
        self.unfired = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.b_dec.device)  # tokens since a feature fired

    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step."""
        sae, spec = self.sae, self.spec
        if self.step == 0 and sae.activation != "relu":
            sae.b_dec.data = geometric_median(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            f = self._codes(x)
            error = (x - sae.decode(f).float()).square().sum(1)
        loss = error.mean()
        if sae.activation == "relu":
            loss = loss + spec.sparsity * self._sparsity_scale() * f.sum(1).mean()
        if sae.constraint == "soft":
            loss = loss + spec.soft * alignment_penalty(sae.encoder_rows, sae.W_dec)
        loss.backward()

        self.optimizer.param_groups[0]["lr"] = spec.lr * learning_rate_scale(self.step, spec.steps)
        remove_parallel_gradient(sae.W_dec)
        if sae.activation != "relu":
            torch.nn.utils.clip_grad_norm_(sae.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
            if sae.constraint == "post_step":
                sae.free.copy_(projected(sae.free, sae.W_dec))
            fired = (f > 0).any(0)
            self.unfired += len(x)
            self.unfired[fired] = 0
            variance = (x - x.mean(0)).square().sum(1).mean()
            stats = {"loss": loss.detach(), "l0": (f > 0).sum() / len(x), "fvu": error.detach().mean() / variance}
        self.step += 1
        return stats

    def _codes(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The codes of a training batch; batchtopk takes the batch's largest, and its threshold follows their least."""
        sae = self.sae
        if sae.activation != "batchtopk":
            return sae.encode(x)
        f = keep_batch_topk(sae.pre_activations(x), sae.k)
        if self.step > THRESHOLD_START * self.spec.steps:
            with torch.no_grad():
                least = torch.where(f > 0, f, torch.inf).min()
                least = torch.where(least.isfinite(), least, 0.0).float()
                memory = torch.where(sae.threshold < 0, 0.0, THRESHOLD_MEMORY)
                sae.threshold.copy_(memory * sae.threshold + (1 - memory) * least)
        return f

    def _sparsity_scale(self) -> float:
        return min(1.0, self.step / max(1, round(SPARSITY_WARMUP * self.spec.steps)))

    @torch.no_grad()
    def dead(self) -> float:
        """Share of features that have not fired for a fifth of the token budget (10M of the demo's 50M)."""
        return (self.unfired >= DEAD * self.spec.tokens).float().mean().item()

    def tensors(self) -> dict[str, Tensor]:
        """All that a later step depends on."""
        state = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        return state | checkpoint.optimizer_tensors(self.optimizer, "adam") | {"unfired": self.unfired}

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on where `tensors` were taken."""
        self.sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        checkpoint.restore_optimizer(self.optimizer, "adam", tensors)
        self.unfired.copy_(tensors["unfired"])
        self.step = step


def train(
    spec: RunSpec,
    activations: Activations,
    folder: Path,
    save_every: float = 60.0,
    progress: Callable[[int], object] | None = None,
) -> tuple[SAE, float]:
    """Train an SAE to the end, from the checkpoint in `folder` if there is one.

    Args:
        spec: what to train.
        activations: where its batches come from.
        folder: for `checkpoint.safetensors` and `log.csv`.
        save_every: seconds between checkpoints.
        progress: called with the number of tokens after each step; a bar of its own by default.

    Returns:
        The SAE, for scaled activations, and the seconds that training took, those before an interruption included.

    Raises:
        FloatingPointError: the loss is no longer finite; names the step; the last checkpoint is kept.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = SAE(
        activations.d_in, spec.d_sae, spec.activation, spec.sparsity, spec.constraint, spec.init, spec.seed
    ).to(device)  # fmt: skip
    trainer = Trainer(sae, spec)
    place, log = folder / "checkpoint.safetensors", folder / "log.csv"
    rows: list[str] = []
    before = 0.0
    if place.exists():
        tensors, meta = checkpoint.load(place, device)
        trainer.restore(tensors, meta["step"])
        rows, before = meta["log"], meta["seconds"]
    started = saved = time.perf_counter()
    bar = None
    if progress is None:
        bar = tqdm(total=spec.tokens, initial=trainer.step * spec.batch, unit="tok", unit_scale=True, desc=spec.name)
        progress = bar.update
    every = max(1, spec.steps // LOG_ROWS)
    while trainer.step < spec.steps:
        stats = trainer.update(activations.batch(spec.seed, trainer.step, spec.batch).to(device))
        progress(spec.batch)
        if not math.isfinite(stats["loss"].item()):
            raise FloatingPointError(
                f"the loss is {stats['loss'].item()} at step {trainer.step - 1} of {spec.name}; a smaller lr than "
                f"{spec.lr:g} may help. The last checkpoint is kept in {folder}"
            )
        last = trainer.step == spec.steps
        if trainer.step % every == 0 or last:
            rows.append(_log_row(trainer, stats))
            if bar is not None:
                bar.set_postfix_str(f"loss {stats['loss']:.4f}, L0 {stats['l0']:.1f}, FVU {stats['fvu']:.4f}")
        if last or time.perf_counter() - saved > save_every:
            saved = time.perf_counter()
            meta = {"step": trainer.step, "log": rows, "seconds": before + saved - started}
            checkpoint.save(place, trainer.tensors(), meta)
    checkpoint.write_text(log, "\n".join([",".join(COLUMNS), *rows]) + "\n")
    if bar is not None:
        bar.close()
    return sae, before + time.perf_counter() - started


def _log_row(trainer: Trainer, stats: dict[str, Tensor]) -> str:
    a = alignment_score(trainer.sae)
    low, high = torch.quantile(a, torch.tensor([0.05, 0.95], device=a.device)).tolist()
    values = [stats["loss"].item(), stats["l0"].item(), stats["fvu"].item(), trainer.dead(), a.mean().item(), low, high]
    return ",".join([str(trainer.step), str(trainer.step * trainer.spec.batch), *(f"{v:.6g}" for v in values)])


def learning_rate_scale(step: int, steps: int) -> float:
    """Up from 0 over the warm-up, level, down to 0 over the last fifth."""
    warmup, decay_start = round(WARMUP * steps), round((1 - DECAY) * steps)
    if step < warmup:
        return step / warmup
    return 1.0 if step < decay_start else (steps - step) / (steps - decay_start)


@torch.no_grad()
def remove_parallel_gradient(rows: Tensor) -> None:
    """Take from a gradient what would only change the length of a row."""
    assert rows.grad is not None
    unit = rows / rows.norm(dim=1, keepdim=True)
    rows.grad -= dot(rows.grad, unit) * unit


@torch.no_grad()
def geometric_median(x: Float[Tensor, "n d_in"], steps: int = 100, tolerance: float = 1e-5) -> Float[Tensor, " d_in"]:
    """The point with the least sum of distances to the rows of x, by Weiszfeld's iteration."""
    guess = x.mean(0)
    for _ in range(steps):
        weight = 1 / (x - guess).norm(dim=1, keepdim=True).clamp_min(1e-12)
        last, guess = guess, (weight * x).sum(0) / weight.sum()
        if (guess - last).norm() < tolerance:
            break
    return guess
