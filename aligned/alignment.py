"""The idea: every feature's encoder and decoder directions have inner product 1 (arXiv 2605.18629).

The *alignment score* of feature i is the inner product, not the cosine, of its encoder and decoder directions,

    a_i = <e_i, d_i>.

Take an SAE that has only one feature, sees only one data point, and has no sparsity penalty. It would reach a_i = 1
exactly: encoding gives <e, x>, decoding gives <e, x> d, and for x = d this is equal to x only if <e, d> = 1. Aligned
training keeps the score at 1 by writing the encoder as a function of a free parameter v and of the decoder d. We do not
have the paper's own formula. Each formula below is *inferred* from the constraint, and all of them give <e, d> = 1 for
every v and d, whether or not they have norm 1:

    projected     e = v + (1 - <v, d>) d / |d|^2        the point of the hyperplane <e, d> = 1 nearest to v
    detached      the same value; no gradient reaches d through e
    householder   e = -H(d) [1; u] / |d|                H reflects the first axis to -d/|d|; u in R^(n-1)
    rescaled      e = v / <v, d>                        a pole where <v, d> = 0
    tied          e = d / |d|^2                         nothing free

With the following ones, <e, d> = 1 holds only in part or not at all, and they are included to show that:

    none          e = v                                 the standard SAE
    soft          e = v, with a penalty on (a - 1)^2 in the loss
    post_step     e = v, with v projected after each step of the optimizer

Everything works on rows: v, d and e are `[d_sae, d_in]`, one feature a row (`u` is `[d_sae, d_in - 1]`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aligned.checks import finite

Rows = Float[Tensor, "d_sae d_in"]
Constraint = Literal["none", "projected", "householder", "rescaled", "detached", "tied", "soft", "post_step"]


class HasWeights(Protocol):
    """Any SAE in the field's layout: `W_enc [d_in, d_sae]` and `W_dec [d_sae, d_in]`."""

    @property
    def W_enc(self) -> Tensor: ...
    @property
    def W_dec(self) -> Tensor: ...


def alignment_score(sae: HasWeights) -> Float[Tensor, " d_sae"]:
    """a_i = <e_i, d_i> of every feature, in float32 (arXiv 2605.18629). Scaling the activations leaves it unchanged.

    Raises:
        TypeError: something that has not these weights, such as a `Run`, whose SAE is `run.sae`.
        ValueError: weights of other shapes, or as `checked_rows`.
    """
    weights = [getattr(sae, name, None) for name in ("W_enc", "W_dec")]
    if not all(isinstance(w, Tensor) for w in weights):
        raise TypeError(
            "an SAE is needed, with torch tensors W_enc [d_in, d_sae] and W_dec [d_sae, d_in], and this is of type "
            f"{type(sae).__name__}; a run's SAE is run.sae, a spec's is aligned.run(spec).sae"
        )
    return dot(*checked_rows(*weights)).squeeze(1)


def checked_rows(W_enc: Float[Tensor, "d_in d_sae"], W_dec: Float[Tensor, "d_sae d_in"]) -> tuple[Rows, Rows]:
    """Encoder and decoder rows, in float32.

    Raises:
        ValueError: the shape of one is not that of the other's transpose; the weights are not finite; or they are
            square and W_enc is in the decoder's layout.
    """
    if W_dec.ndim != 2 or W_enc.shape != W_dec.T.shape:
        raise ValueError(
            f"W_enc is {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they are [d_in, d_sae] and [d_sae, d_in]"
        )
    e, d = W_enc.detach().float().T, W_dec.detach().float()
    finite({"W_enc": e, "W_dec": d}, "it is damaged, or its training failed: take another, or train it again")
    if len(e) == e.shape[1] >= 8:  # shapes tell nothing; an encoder row is like its decoder row
        as_given, turned = (F.cosine_similarity(rows, d).mean() for rows in (e, e.T))
        if turned > 0.5 > 2 * as_given:
            raise ValueError(
                "W_enc of this SAE is in the decoder's layout: its rows, not its columns, are like the rows of W_dec "
                f"(mean cosines {turned:.2f} and {as_given:.2f}); transpose it"
            )
    return e, d


def alignment_penalty(e: Rows, d: Rows) -> Float[Tensor, ""]:
    """mean_i (a_i - 1)^2: what `soft` adds to the loss, times a coefficient."""
    return (dot(e, d) - 1).square().mean()


def dot(a: Rows, b: Rows) -> Float[Tensor, "d_sae 1"]:
    """Inner product row by row."""
    return (a * b).sum(1, keepdim=True)


def none(v: Rows, d: Rows) -> Rows:
    return v


def projected(v: Rows, d: Rows) -> Rows:
    return v + (1 - dot(v, d)) * d / dot(d, d)


def detached(v: Rows, d: Rows) -> Rows:
    return projected(v, d.detach())


def rescaled(v: Rows, d: Rows) -> Rows:
    return v / dot(v, d)


def tied(v: Rows, d: Rows) -> Rows:
    return d / dot(d, d)


def householder(u: Float[Tensor, "d_sae d_in-1"], d: Rows) -> Rows:
    return -_reflect(torch.cat([torch.ones_like(u[:, :1]), u], dim=1), d) / d.norm(dim=1, keepdim=True)


def householder_free(e: Rows, d: Rows) -> Float[Tensor, "d_sae d_in-1"]:
    """The u whose `householder` is e, for an e with <e, d> = 1 (a reflection undoes itself)."""
    return (-_reflect(e * d.norm(dim=1, keepdim=True), d))[:, 1:]


def _reflect(x: Rows, d: Rows) -> Rows:
    """H(d) x = x - 2 <w, x> w / <w, w>, with w = d/|d| + (1, 0, ..., 0). The sign in w is fixed. If it depended on d, e
    would jump where d crosses the plane on which that sign changes. At d/|d| = -(1, 0, ..., 0), w is 0 and H is the
    identity."""
    w = d / d.norm(dim=1, keepdim=True)
    w = torch.cat([w[:, :1] + 1, w[:, 1:]], dim=1)
    return x - 2 * dot(w, x) * w / dot(w, w).clamp_min(torch.finfo(w.dtype).tiny)


CONSTRAINTS: dict[Constraint, Callable[[Tensor, Tensor], Tensor]] = {
    "none": none,
    "projected": projected,
    "householder": householder,
    "rescaled": rescaled,
    "detached": detached,
    "tied": tied,
    "soft": none,
    "post_step": none,
}
HARD: tuple[Constraint, ...] = ("projected", "householder", "rescaled", "detached", "tied")  # a_i = 1, always
