"""Sparse codes, their decoding and its gradients: work that grows with the active features, not with the dictionary.

`torch.nn.functional.embedding_bag` is all it takes: a weighted sum of rows. Decoding sums decoder rows over a token's
features; the gradient of a weight row sums tokens over a feature's occurrences, which is the same with the roles of
tokens and features exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The non-zero codes of a batch, token by token (CSR)."""

    values: Float[Tensor, " n"]
    features: Int[Tensor, " n"]
    starts: Int[Tensor, " batch"]  # of each token's part of the two above
    d_sae: int

    def decode(self, rows: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "batch d_in"]:
        """f @ rows."""
        return F.embedding_bag(self.features, rows, self.starts, mode="sum", per_sample_weights=self.values)

    def gradient(self, rows: Float[Tensor, "d_sae d_in"], upstream: Float[Tensor, "batch d_in"]) -> Float[Tensor, " n"]:
        """The gradient of `decode(rows)` by each value: <row of its feature, gradient at its token>."""
        with torch.enable_grad():
            values = self.values.detach().requires_grad_()
            Codes(values, self.features, self.starts, self.d_sae).decode(rows.detach()).backward(upstream)
        assert values.grad is not None
        return values.grad

    def by_feature(self) -> ByFeature:
        """The same entries, feature by feature."""
        counts = torch.bincount(self.features, minlength=self.d_sae)
        lengths = torch.diff(self.starts, append=self.starts.new_tensor([len(self.values)]))
        tokens = torch.repeat_interleave(lengths)
        order = self.features.argsort(stable=True)
        return ByFeature(tokens[order], order, counts.cumsum(0) - counts, counts)


@dataclass(frozen=True)
class ByFeature:
    """Where each feature occurs in a batch."""

    tokens: Int[Tensor, " n"]
    order: Int[Tensor, " n"]  # entry of the Codes that stands here
    starts: Int[Tensor, " d_sae"]
    counts: Int[Tensor, " d_sae"]

    def sum(self, values: Float[Tensor, " n"], x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "d_sae d_in"]:
        """f^T @ x, f having these values at the codes' entries."""
        weights = values[self.order]
        return F.embedding_bag(self.tokens, x, self.starts, mode="sum", per_sample_weights=weights)

    def total(self, values: Float[Tensor, " n"]) -> Float[Tensor, " d_sae"]:
        """Sum of the values of each feature."""
        feature = torch.repeat_interleave(self.counts)
        return torch.zeros_like(self.starts, dtype=values.dtype).index_add_(0, feature, values[self.order])


def topk(pre: Float[Tensor, "batch d_sae"], k: int) -> Codes:
    """Each token's k largest pre-activations, those that are positive being its codes."""
    values, features = pre.topk(k, dim=1, sorted=False)
    return Codes(
        values.float().relu().flatten(), features.flatten(), torch.arange(0, values.numel(), k, device=pre.device),
        pre.shape[1],
    )  # fmt: skip


def batch_topk(pre: Float[Tensor, "batch d_sae"], k: int) -> Codes:
    """The batch's k x batch largest pre-activations, those that are positive being its codes (arXiv 2412.06410)."""
    top = pre.flatten().topk(k * len(pre), sorted=False)
    places, order = top.indices.sort()  # token by token
    per_token = torch.bincount(places // pre.shape[1], minlength=len(pre))
    return Codes(
        top.values[order].float().relu(), places % pre.shape[1], per_token.cumsum(0) - per_token, pre.shape[1]
    )  # fmt: skip
