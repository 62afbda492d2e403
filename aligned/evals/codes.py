"""The codes of many activations at once. They are sparse, so memory goes with the active features alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aligned.evals.fits import check_activations, check_features
from aligned.sae import SAE
from aligned.training.sparse import positive, topk

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

_DENSE = 2**25  # pre-activations held at once
_CODES = 2**28  # codes held at once; 8 bytes each, and as much again to sort them


@torch.no_grad()
def codes(
    sae: SAE, x: Float[Tensor, "n d_in"], features: Int[Tensor, " some"] | Sequence[int] | None = None
) -> csr_array:
    """`sae.encode(x)` as a sparse array, `[n, d_sae]`; or `[n, some]`, of the features that are named.

    Raises:
        ValueError: activations that are not `[n, d_in]` or not finite; a feature that the SAE does not have.
    """
    from scipy.sparse import csr_array, vstack

    check_activations(sae, x)
    features = None if features is None else check_features(sae, features)
    keeps_k = sae.keeps_k
    parts = []
    for part in x.split(max(1, min(4096, _DENSE // sae.d_sae))):
        f = sae.pre_activations(part.float())
        if sae.has_threshold:
            f *= f > sae.threshold
        kept = topk(f, sae.k) if keeps_k else positive(f)
        whole = csr_array((kept.values.numpy(), kept.features.numpy(), kept.starts.numpy()), shape=f.shape)
        whole.eliminate_zeros()
        parts.append(whole if features is None else whole[:, features])
    return vstack(parts, format="csr")


def by_feature(
    sae: SAE, x: Float[Tensor, "n d_in"], features: Int[Tensor, " some"] | Sequence[int] | None = None
) -> Iterator[csc_array]:
    """The codes, feature by feature: of all features, or of those that are named. Sparse codes come in one piece;
    otherwise they come in several pieces, each with as many features as there is room for.

    Raises:
        ValueError: as `codes`.
    """
    check_activations(sae, x)
    wanted = torch.tensor(range(sae.d_sae) if features is None else check_features(sae, features))
    sample = x[:: max(1, len(x) // 4096)]
    expected = codes(sae, sample, wanted).nnz * len(x) / len(sample)
    for some in wanted.split(max(1, int(len(wanted) * min(1.0, _CODES / max(expected, 1))))):
        yield codes(sae, x, None if features is None and len(some) == sae.d_sae else some).tocsc()
