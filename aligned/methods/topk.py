"""TopK: each token's k largest codes (arXiv 2406.04093, equation 2).

f = topk(relu((x - b_dec) W_enc + b_enc))

This file follows the equation. Training uses `aligned.training.sparse`, which makes the same choice faster; a test
checks that both agree.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.methods.base import Autoencoder, Method


def keep_topk(f: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Each token's k largest codes; all others 0."""
    top = f.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(f).scatter(-1, top.indices, top.values)


class TopK(Method):
    """Each token's k largest codes."""

    name: ClassVar[str] = "topk"
    keeps: ClassVar[Literal["all", "token", "batch"]] = "token"
    architecture: ClassVar[str] = "topk"
    by_hand: ClassVar[bool] = True
    auxk: ClassVar[bool] = True
    costs_like: ClassVar[str] = "topk"

    def codes(self, sae: Autoencoder, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return keep_topk(sae.pre_activations(x), sae.k)
