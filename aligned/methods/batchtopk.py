"""BatchTopK: the k x batch largest codes of a batch; after training, those over a learned threshold (arXiv 2412.06410).

in training   f = the k x batch largest entries of relu((x - b_dec) W_enc + b_enc), over all tokens of the batch
after it      f where f > threshold, the threshold being a running mean of the least code that a batch keeps
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.methods.base import Autoencoder, Method
from aligned.methods.topk import keep_topk

# The threshold is learned from step 1000 on, of the 24,414 of `dictionary_learning`'s demo.
THRESHOLD_START, THRESHOLD_MEMORY = 1000 / 24414, 0.999


class BatchTopK(Method):
    """The k x batch largest codes of a batch; after training, those over a learned threshold."""

    name: ClassVar[str] = "batchtopk"
    keeps: ClassVar[Literal["all", "token", "batch"]] = "batch"
    architecture: ClassVar[str] = "jumprelu"
    by_hand: ClassVar[bool] = True
    auxk: ClassVar[bool] = True
    costs_like: ClassVar[str] = "batchtopk"

    def codes(self, sae: Autoencoder, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        f = sae.pre_activations(x)
        return keep_topk(f.flatten(), sae.k * len(f)).view_as(f)

    @torch.no_grad()
    def observe(self, sae: Autoencoder, f: Float[Tensor, " *n"], share: float) -> None:
        if share <= THRESHOLD_START:
            return
        least = torch.where(f > 0, f, torch.inf).min()  # without waiting for a GPU
        least = torch.where(least.isfinite(), least, 0.0)
        memory = torch.where(sae.threshold < 0, 0.0, THRESHOLD_MEMORY)
        sae.threshold.copy_(memory * sae.threshold + (1 - memory) * least)
