"""A training step in plain terms: any activation, any constraint, by autograd. Read this first.

Runs are trained by `aligned.training.fused`, which does the same by hand.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.alignment import alignment_penalty, projected
from aligned.sae import SAE, keep_topk
from aligned.spec import RunSpec
from aligned.training.penalty import Penalty
from aligned.training.schedule import (
    CLIP,
    THRESHOLD_MEMORY,
    THRESHOLD_START,
    geometric_median,
    learning_rate_scale,
    remove_parallel_gradient,
)


class Trainer:
    """One SAE in training.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it. Its `auxk` is not done here.
    """

    def __init__(self, sae: SAE, spec: RunSpec) -> None:
        self.sae, self.spec, self.step = sae, spec, 0
        self.is_relu = sae.activation in ("relu", "p_anneal")
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=spec.lr)
        strength = spec.sparsity if self.is_relu else 0.0
        self.penalty = Penalty(strength, spec.steps, sae.activation == "p_anneal", sae.b_dec.device)

    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step."""
        sae, spec = self.sae, self.spec
        if self.step == 0 and not self.is_relu:
            sae.b_dec.data = geometric_median(x)

        f = self.codes(x)
        error = (x - sae.decode(f)).square().sum(1).mean()
        loss = error + self.penalty(f, self.step, len(x))[0]
        if sae.constraint == "soft":
            loss = loss + spec.soft * alignment_penalty(sae.encoder_rows, sae.W_dec)

        self.optimizer.zero_grad()
        loss.backward()
        remove_parallel_gradient(sae.W_dec)
        if not self.is_relu:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), CLIP)
        self.optimizer.param_groups[0]["lr"] = spec.lr * learning_rate_scale(self.step, spec.steps)
        self.optimizer.step()
        with torch.no_grad():
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
            if sae.constraint == "post_step":
                sae.free.copy_(projected(sae.free, sae.W_dec))

        self.step += 1
        variance = (x - x.mean(0)).square().sum(1).mean()
        return {"loss": loss.detach(), "l0": (f > 0).sum() / len(x), "fvu": error.detach() / variance}

    def codes(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """What is kept of the pre-activations: all (ReLU), each token's k largest, or the k x batch largest."""
        f = self.sae.pre_activations(x)
        if self.is_relu:
            return f
        if self.sae.activation == "topk":
            return keep_topk(f, self.sae.k)
        f = keep_topk(f.flatten(), self.sae.k * len(x)).view_as(f)
        if self.step > THRESHOLD_START * self.spec.steps:
            self._follow_threshold(f.detach())
        return f

    def _follow_threshold(self, f: Float[Tensor, "batch d_sae"]) -> None:
        """BatchTopK's threshold after training: a running mean of the least code that each batch keeps."""
        least = f[f > 0].min()
        before = self.sae.threshold
        self.sae.threshold = least if before < 0 else THRESHOLD_MEMORY * before + (1 - THRESHOLD_MEMORY) * least
