"""A training step in plain terms: any method, any constraint, by autograd. Read this first.

The methods of the paper are trained by `aligned.training.fused`, which does the same by hand; all others by this, in
float32.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.alignment import alignment_penalty, projected
from aligned.methods.base import warmed
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training.schedule import CLIP, geometric_median, learning_rate_scale, remove_parallel_gradient
from aligned.training.state import Training


class Trainer(Training):
    """One SAE in training.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it. Its `auxk` is not done here.
    """

    def __init__(self, sae: SAE, spec: RunSpec) -> None:
        super().__init__(sae, spec, fused=False)

    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step."""
        sae, spec, method, step = self.sae, self.spec, self.method, self.step
        if step == 0 and method.counts:
            sae.b_dec.data = geometric_median(x)

        f = method.codes(sae, x)
        method.observe(sae, f.detach(), step / spec.steps)
        error = (x - sae.decode(f)).square().sum(1).mean()
        loss = error + self.penalty(f, step, len(x))[0]
        loss = loss + method.loss(sae, x, f, warmed(spec.sparsity, step, spec.steps))
        if sae.constraint == "soft":
            loss = loss + spec.soft * alignment_penalty(sae.encoder_rows, sae.W_dec)

        self.optimizer.zero_grad()
        loss.backward()
        remove_parallel_gradient(sae.W_dec)
        if method.counts:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), CLIP)
        self.optimizer.param_groups[0]["lr"] = spec.lr * learning_rate_scale(step, spec.steps)
        self.optimizer.step()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
            if sae.constraint == "post_step":
                sae.free.copy_(projected(sae.free, sae.W_dec))
            method.project(sae)

        self._note(loss.detach(), (f > 0).any(0), len(x))
        variance = (x - x.mean(0)).square().sum(1).mean()
        return {"loss": loss.detach(), "l0": (f > 0).sum() / len(x), "fvu": error.detach() / variance}
