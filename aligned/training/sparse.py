"""Sparse codes, their decoding and its gradients: work that grows with the active features, not with the dictionary.

Decoding sums decoder rows over a token's features; the gradient of a weight row sums tokens over a feature's
occurrences, which is the same with the roles of tokens and features exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor


def kernels(x: Tensor) -> ModuleType:
    """The compiled inner loops for the device that x is on."""
    if x.is_cuda:
        from aligned.training import kernels_cuda

        return kernels_cuda
    from aligned.training import kernels_cpu

    return kernels_cpu


@dataclass(frozen=True)
class Codes:
    """The codes of a batch, token by token (CSR). A value may be 0: then its feature says nothing."""

    values: Float[Tensor, " n"]
    features: Int[Tensor, " n"]
    starts: Int[Tensor, " batch+1"]  # of each token's part of the two above, and their end
    d_sae: int

    def reconstruct(
        self, W_dec: Float[Tensor, "d_sae d_in"], b_dec: Float[Tensor, " d_in"], x: Float[Tensor, "batch d_in"]
    ) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, " n"]]:
        """`f @ W_dec + b_dec - x`, and for each code its inner product with the row of its feature: the gradient of
        half the squared error by the code."""
        return kernels(x).reconstruct(self.values, self.features, self.starts, W_dec, b_dec, x)

    def by_feature(self) -> ByFeature:
        """The same codes, feature by feature."""
        n = len(self.values)
        tokens = torch.repeat_interleave(self.starts.diff(), output_size=n)
        features, order = self.features.sort(stable=True)
        edges = torch.arange(self.d_sae + 1, device=features.device, dtype=features.dtype)
        return ByFeature(tokens[order].int(), order, torch.searchsorted(features, edges, out_int32=True))


@dataclass(frozen=True)
class ByFeature:
    """Where each feature occurs in a batch."""

    tokens: Int[Tensor, " n"]
    order: Int[Tensor, " n"]  # entry of the Codes that stands here
    starts: Int[Tensor, " d_sae+1"]

    def sum(self, values: Float[Tensor, " n"], x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "d_sae d_in"]:
        """f^T @ x, f having these values at the codes' entries."""
        return kernels(x).weighted_sums(self.starts, self.tokens, values[self.order], x)

    def total(self, values: Float[Tensor, " n"]) -> Float[Tensor, " d_sae"]:
        """Sum of the values of each feature."""
        return torch.segment_reduce(values[self.order], "sum", offsets=self.starts.long(), unsafe=True, initial=0)


def positive(pre: Float[Tensor, "batch d_sae"]) -> Codes:
    """Every pre-activation over 0 (on a CPU; elsewhere their number would have to be waited for)."""
    values, features, starts = kernels(pre).above(pre)
    return Codes(values, features, starts, pre.shape[1])


def topk(pre: Float[Tensor, "batch d_sae"], k: int) -> Codes:
    """Each token's k largest pre-activations, those that are positive being its codes."""
    values, features = kernels(pre).topk(pre, k)
    starts = torch.arange(0, values.numel() + 1, k, device=pre.device, dtype=torch.int32)
    return Codes(values.float().relu().flatten(), features.int().flatten(), starts, pre.shape[1])


def batch_topk(pre: Float[Tensor, "batch d_sae"], k: int) -> Codes:
    """The batch's k x batch largest pre-activations, those that are positive being its codes (arXiv 2412.06410)."""
    values, features, starts = kernels(pre).above(pre, k * len(pre))
    return Codes(values, features, starts, pre.shape[1])
