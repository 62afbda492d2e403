"""Training watched: a finished run is trained again, and its decoder kept at some moments on the way.

A batch is a pure function of the seed and the step, so on the same machine the second training takes the same steps as
the first one, and ends with the same bits. Nothing of it is written to the store.
"""

from __future__ import annotations

import warnings

import torch

from aligned.alignment import Rows
from aligned.provenance import provenance
from aligned.store import runs
from aligned.store.runs import Run
from aligned.training.fused import Trainer
from aligned.training.memory import freed_memory_kept

MOMENTS = 8
MAKERS = ("commit", "device", "threads", "versions")  # of provenance: with others than these the bits may differ


def moments(steps: int) -> list[int]:
    """Steps to look at: 0, then a 64th of all, a 32nd, and so on to the last; fewer where there are few steps."""
    return sorted({0, *(max(1, round(steps / 2**i)) for i in range(MOMENTS - 1))})


@freed_memory_kept()
def retrace(run: Run) -> tuple[list[Rows], float]:
    """Train a run again.

    Returns:
        The decoder, `[d_sae, d_in]` on the CPU, after each number of steps in `moments(run.spec.steps)`, and the mean
        cosine of the last one's rows with those in the store: 1 where it ended with the same SAE.

    Raises:
        RuntimeError: the training did not end with the SAE in the store, although code, machine, threads, versions and
            activations are the same as then. If any of these changed, the two may differ; a warning says by how much.
    """
    spec = run.spec
    pool = runs.seen(spec, runs.activations(*runs.pool_of(spec)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = run.provenance
    was_bf16 = made.get("precision", "bf16") == "bf16"  # records without it were made in bf16
    trainer = Trainer(spec.start(pool.d_in).to(device), spec, was_bf16)
    found: list[Rows] = []
    for stop in moments(spec.steps):
        while trainer.step < stop:
            trainer.update(pool.batch(spec.seed, trainer.step, spec.batch).to(device))
        found.append(trainer.sae.W_dec.detach().cpu().clone())
    with torch.no_grad():
        again = trainer.sae.cpu().for_raw_activations(pool.scale, pool.mean if spec.center else 0.0)
    stored = run.sae
    same = torch.cosine_similarity(again.W_dec, stored.W_dec, dim=1).mean().item()
    if not (torch.equal(again.W_dec, stored.W_dec) and torch.equal(again.W_enc, stored.W_enc)):
        said = f"{spec.name}, trained again, is not the SAE in the store (mean cosine of their features {same:.4f})"
        now = {**provenance(), "activation_scale": pool.scale, "text_fingerprint": pool.text_fingerprint}
        other = [name for name in (*MAKERS, "activation_scale", "text_fingerprint") if made[name] != now[name]]
        if not other:
            raise RuntimeError(f"{said}, though all that made it is the same; `aligned runs remove {spec.name}`")
        warnings.warn(f"{said}; other than then: {', '.join(other)}", stacklevel=2)
    return found, same
