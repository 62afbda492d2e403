"""How much of a dictionary is found again by another seed: maximum cosines, one-to-one matching, shared features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned.alignment import Rows
from aligned.evals.fits import check_sae
from aligned.sae import SAE

EXACT = (
    16384  # features up to which the matching is exact; it takes half a minute there, and grows with the third power
)
CANDIDATES = 64  # most similar features that a feature may be matched with, beyond that
AGREE = 0.7  # cosine from which on a match counts as the same feature (arXiv 2501.16615)
_CHUNK = 4096  # features whose cosines are held at once


@dataclass(frozen=True)
class Match:
    """A one-to-one matching of the rows of a with rows of b.

    Attributes:
        of: for each row of a its row of b, -1 where b has too few.
        cosine: of each row with its match; 0 where there is none.
        bound: the best matching's mean cosine is at most this much above this one's. 0 where it is exact.
    """

    of: Int[Tensor, " n"]
    cosine: Float[Tensor, " n"]
    bound: float = 0.0

    @property
    def mean(self) -> float:
        """Over the pairs."""
        return self.cosine[self.of >= 0].mean().item()


def max_cosine(a: Rows, b: Rows) -> Float[Tensor, " n"]:
    """MCS: the cosine of each row of a, `[n, d_in]`, with the most similar row of b, `[m, d_in]`.

    Raises:
        ValueError: no such rows, rows of two widths, or rows that are not finite.
    """
    _check_rows(a, b)
    a, b = _unit(a), _unit(b)
    return torch.cat([(part @ b.T).amax(1) for part in a.split(_CHUNK)])


def match(a: Rows, b: Rows, exact: int = EXACT, candidates: int = CANDIDATES) -> Match:
    """The one-to-one matching of rows with the greatest sum of cosines (the Hungarian problem).

    Up to `exact` rows it is solved exactly. For more rows, each row of a may be matched with one of its `candidates`
    most similar rows of b, or with no row, which counts as the cosine t of its least similar candidate. The best of
    these matchings gives the bound: no matching of all rows can have a greater sum, since a pair that is not among the
    candidates has a cosine of at most t. The rows left without a partner are then matched with the remaining rows of b,
    by the same method.

    Args:
        a, b: `[n, d_in]` and `[m, d_in]`; each row of the smaller side gets a partner.

    Raises:
        ValueError: as `max_cosine`.
    """
    _check_rows(a, b)
    a, b = _unit(a), _unit(b)
    if len(a) > len(b):
        other = match(b, a, exact, candidates)
        of = torch.full((len(a),), -1)
        cosine = torch.zeros(len(a))
        of[other.of], cosine[other.of] = torch.arange(len(b)), other.cosine
        return Match(of, cosine, other.bound)
    if len(a) <= exact:
        return _exact(a, b)
    of, most = _by_candidates(a, b, min(candidates, len(b)))
    alone = of < 0
    free = torch.ones(len(b), dtype=torch.bool)
    free[of[~alone]] = False
    if alone.any():
        left = free.nonzero().squeeze(1)
        of[alone] = left[match(a[alone], b[left], exact, candidates).of]
    cosine = (a * b[of]).sum(1)
    return Match(of, cosine, most / len(a) - cosine.mean().item())


def centred(rows: Rows) -> Rows:
    """Rows scaled to norm 1, minus the mean of these scaled rows, `[n, d_in]`.

    Two dictionaries whose rows all lean in one direction have large cosines, whatever else their features are. The
    cosines of centred rows do not count that direction. (Rows are scaled to norm 1 first, so that centred cosines
    depend on the lengths of the rows as little as raw ones do.)
    """
    rows = _unit(rows)
    return rows - rows.mean(0)


def stability(
    a: SAE,
    b: SAE,
    alive: tuple[Bool[Tensor, " d_sae"], Bool[Tensor, " d_sae"]] | None = None,
    centre: bool = False,
) -> dict[str, float]:
    """How much two dictionaries have in common.

    Args:
        a, b: two SAEs on the same activations.
        alive: which features of each to look at; all by default.
        centre: whether to use the cosines of `centred` rows: the mean row is subtracted, separately for decoder and
            encoder rows and for each SAE, and is taken over the features looked at.

    Returns:
        mmcs: the mean over features of MCS, over both directions.
        pw_mcc: the mean cosine of matched decoder rows (arXiv 2505.20254).
        shared: the share of features whose decoder and encoder matches agree, both with a cosine over 0.7
            (arXiv 2501.16615). Where the SAEs have different numbers of features, it is a share of the mean of the two
            numbers.
        bound: how much greater, at most, `pw_mcc` would be with the best possible decoder matching.
        features: the mean number of features looked at.

    Raises:
        TypeError: what is no SAE.
        ValueError: SAEs of different width, with weights that are not finite, or with no feature to look at; masks that
            do not fit them.
    """
    for sae in (a, b):
        check_sae(sae)
    if a.d_in != b.d_in:
        raise ValueError(f"these SAEs read activations of widths {a.d_in} and {b.d_in}; their features have no cosine")
    if alive is not None and len(alive) != 2:
        raise ValueError(f"alive has {len(alive)} masks, and there are 2 SAEs")
    rows = []
    for sae, look in zip((a, b), (None, None) if alive is None else alive):
        keep = torch.ones(sae.d_sae, dtype=torch.bool) if look is None else torch.as_tensor(look)
        if keep.dtype != torch.bool or keep.shape != (sae.d_sae,):
            raise ValueError(f"alive is {keep.dtype} {tuple(keep.shape)}; a mask, bool [{sae.d_sae}], is needed")
        if not keep.any():
            raise ValueError("one of these SAEs has no alive feature")
        both = sae.W_dec.detach()[keep], sae.W_enc.detach().T[keep]
        rows.append(tuple(map(centred, both)) if centre else both)
    (dec_a, enc_a), (dec_b, enc_b) = rows
    decoder, encoder = match(dec_a, dec_b), match(enc_a, enc_b)
    same = (decoder.of == encoder.of) & (decoder.of >= 0) & (decoder.cosine > AGREE) & (encoder.cosine > AGREE)
    features = (len(dec_a) + len(dec_b)) / 2
    return {
        "mmcs": (max_cosine(dec_a, dec_b).mean().item() + max_cosine(dec_b, dec_a).mean().item()) / 2,
        "pw_mcc": decoder.mean,
        "shared": same.sum().item() / features,
        "bound": decoder.bound,
        "features": features,
    }


def over_seeds(saes: Sequence[SAE], alive: Sequence[Bool[Tensor, " d_sae"]] | None = None) -> list[dict[str, float]]:
    """`stability` of every pair.

    Raises:
        TypeError: no list of SAEs.
        ValueError: fewer than two SAEs; as `stability`.
    """
    if not isinstance(saes, Sequence):
        raise TypeError(f"stability over seeds needs a list of SAEs, and this is of type {type(saes).__name__}")
    if len(saes) < 2:
        raise ValueError(f"stability over seeds needs at least 2 SAEs, and there is {len(saes)}")
    if alive is not None and len(alive) != len(saes):
        raise ValueError(f"alive has {len(alive)} masks, and there are {len(saes)} SAEs")
    return [
        stability(saes[i], saes[j], None if alive is None else (alive[i], alive[j]))
        for i, j in combinations(range(len(saes)), 2)
    ]


def convergence(a: Sequence[Rows], b: Sequence[Rows]) -> dict[str, list[float]]:
    """Whether two trainings approach one another, or were as alike when they started. (Stability says that two trained
    dictionaries agree; that training made them agree is another claim, and needs the similarity along the way.)

    Args:
        a, b: decoders, `[d_sae, d_in]`, at the same moments of two trainings; the first is the start.

    Returns:
        Lists, a value a moment: `pw_mcc`, the mean cosine of matched rows (arXiv 2505.20254), over all features;
        `pw_mcc_centred`, the same of `centred` rows; `own_start` and `other_own_start`, the mean |cosine| of a's and
        b's rows with themselves at the start.

    Raises:
        ValueError: not as many moments of the one as of the other, or none.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(
            f"there are {len(a)} moments of the one training and {len(b)} of the other; as many are needed, and one "
            "at least"
        )
    return {
        "pw_mcc": [match(x, y).mean for x, y in zip(a, b)],
        "pw_mcc_centred": [match(centred(x), centred(y)).mean for x, y in zip(a, b)],
        "own_start": [_to_start(x, a[0]) for x in a],
        "other_own_start": [_to_start(y, b[0]) for y in b],
    }


def _to_start(rows: Rows, start: Rows) -> float:
    return (_unit(rows) * _unit(start)).sum(1).abs().mean().item()


def _check_rows(a: Tensor, b: Tensor) -> None:
    """Raise a `ValueError` unless a and b are rows, `[n, d_in]`, of one width and finite."""
    if (
        not all(isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) for rows in (a, b))
        or a.shape[1] != b.shape[1]
    ):
        shapes = " and ".join(str(tuple(getattr(rows, "shape", (type(rows).__name__,)))) for rows in (a, b))
        raise ValueError(f"torch tensors of rows of one width are compared, [n, d_in] and [m, d_in], and not {shapes}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("some of these rows are not finite, and have no cosine")


def _exact(a: Rows, b: Rows) -> Match:
    from scipy.optimize import linear_sum_assignment

    cosines = a @ b.T
    _, of = linear_sum_assignment(cosines.numpy(), maximize=True)
    of = torch.from_numpy(of)
    return Match(of, cosines[torch.arange(len(a)), of])


def _by_candidates(a: Rows, b: Rows, candidates: int) -> tuple[Int[Tensor, " n"], float]:
    """The best matching with candidates or with nobody (-1), and its worth."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, m = len(a), len(b)
    parts = [(part @ b.T).topk(candidates, dim=1) for part in a.split(_CHUNK)]
    values, columns = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    nobody = m + torch.arange(n)  # a column of each row's own
    values = torch.cat([values, values[:, -1:]], dim=1).double()
    columns = torch.cat([columns, nobody[:, None]], dim=1)
    starts = np.arange(n + 1) * (candidates + 1)
    cost = csr_array((2 - values.flatten().numpy(), columns.flatten().numpy(), starts), shape=(n, m + n))
    _, of = min_weight_full_bipartite_matching(cost)
    of = torch.from_numpy(of).long()
    worth = torch.where(columns == of[:, None], values, 0).sum().item()
    return torch.where(of < m, of, -1), worth


def _unit(rows: Rows) -> Rows:
    rows = rows.detach().float().cpu()
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
