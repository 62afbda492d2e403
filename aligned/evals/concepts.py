"""What a feature detects: the concept that it tells best on one half of the text, scored on the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from numba import njit, prange
from torch import Tensor

from aligned.sae import SAE

if TYPE_CHECKING:
    import pandas as pd

_FEATURES = 128  # whose codes on all tokens are held at once
_TOKENS = 4096


def concepts(
    sae: SAE, x: Float[Tensor, "n d_in"], words: UInt64[np.ndarray, " n"], names: tuple[str, ...], seed: int = 0
) -> pd.DataFrame:
    """Each feature's concept, and how well it detects it.

    A feature with a threshold says of each token whether a concept holds there. On the first half of the tokens the
    concept and the threshold with the greatest F1 = 2 TP / (2 TP + FP + FN) are chosen; on the second half they are
    scored. `chance` is the same with the tokens' labels moved by half the text or so against the codes, which keeps how
    often, and in what runs, both occur. This takes the place of the paper's auto-interpretability score (arXiv
    2605.18629, Figure 12): the labels are true, and nobody is asked.

    Args:
        sae: for raw activations.
        x: raw activations of tokens in their order.
        words: the tokens' labels, bit i for concept i (`aligned.labels`).
        names: of the concepts.
        seed: of the shift.

    Returns:
        A row a feature: `concept`, `f1`, `precision`, `recall` (second half), `f1_chosen` (first half), `threshold`,
        `chance` (F1), and `density`, the share of the tokens it is active on. A feature that is never active in the
        first half has no concept and an F1 of 0.

    Raises:
        ValueError: activations of another width than the SAE's, labels of another number of tokens than x, or a concept
            that holds nowhere in one half.
    """
    import pandas as pd

    if x.shape[1] != sae.d_in:
        raise ValueError(f"these activations have width {x.shape[1]}, and the SAE reads {sae.d_in}")
    if len(words) != len(x):
        raise ValueError(f"there are labels for {len(words)} tokens, and activations of {len(x)}")
    half = len(x) // 2
    counts = [_count(part, len(names)) for part in (words[:half], words[half:])]
    if absent := [name for name, *n in zip(names, *counts) if not all(n)]:
        raise ValueError(
            f"no token of one half of the text is labelled {', '.join(absent)}: leave it out, or more text"
        )
    shift = half + np.random.default_rng(seed).integers(-half // 4, half // 4 + 1)
    columns: list[np.ndarray] = []
    for f in codes_by_feature(sae, x):
        real = _detect(f, words, half, len(names))
        by_chance = _detect(f, np.roll(words, shift), half, len(names))
        density = (f > 0).mean(0)
        columns.append(np.column_stack([real, by_chance[:, 2], density]))
    table = pd.DataFrame(
        np.concatenate(columns),
        columns=["concept", "threshold", "f1", "precision", "recall", "f1_chosen", "chance", "density"],
    )
    table["concept"] = [names[int(c)] if c >= 0 else None for c in table.concept]
    return table


@torch.no_grad()
def codes_by_feature(
    sae: SAE, x: Float[Tensor, "n d_in"], features: Int[Tensor, " k"] | None = None
) -> Iterator[Float[np.ndarray, "n f"]]:
    """The codes of all tokens for 128 features at a time (of all, or of those named), `[n, 128]`: memory does not grow
    with the dictionary."""
    least = _least_codes(sae, x)
    for here in (torch.arange(sae.d_sae) if features is None else features).split(_FEATURES):
        W_enc, b_enc = sae.W_enc[:, here].contiguous(), sae.b_enc[here]
        f = torch.cat([((part.float() - sae.b_dec) @ W_enc + b_enc).relu() for part in x.split(_TOKENS)])
        yield (f * (f >= (least[:, here] if least.shape[1] > 1 else least))).numpy()


def _least_codes(sae: SAE, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "rows columns"]:
    """The least codes that are kept: `[n, 1]`, each token's k-th largest; `[1, d_sae]`, what lies over a threshold; or
    `[1, 1]`, all. The k-th largest is taken a hair lower, since products of other shapes round otherwise."""
    if sae.has_threshold:
        return torch.nextafter(sae.threshold, torch.tensor(torch.inf)).expand(1, sae.d_sae)
    if sae.activation in ("relu", "p_anneal"):
        return torch.zeros(1, 1)
    parts = [sae.pre_activations(part.float()).topk(sae.k, dim=1).values[:, -1:] for part in x.split(_TOKENS)]
    return torch.cat(parts) * (1 - 1e-6)


def _count(words: UInt64[np.ndarray, " n"], concepts: int) -> list[int]:
    return [int((words & np.uint64(1 << i) > 0).sum()) for i in range(concepts)]


@njit(parallel=True, cache=True)
def _detect(f, words, half, concepts):  # type: ignore[no-untyped-def]
    """Of each column of f: concept (-1: none), threshold; F1, precision, recall on the second half; F1 on the first."""
    n, features = f.shape
    positives = np.zeros((2, concepts), np.int64)
    for t in range(n):
        for c in range(concepts):
            positives[int(t >= half), c] += (words[t] >> np.uint64(c)) & np.uint64(1)
    out = np.zeros((features, 6))
    for j in prange(features):
        active = np.nonzero(f[:half, j])[0]
        out[j, 0] = -1
        if len(active) == 0:
            continue
        values = f[active, j]
        order = np.argsort(-values)
        true = np.zeros(concepts, np.int64)
        best, concept, threshold = -1.0, -1, 0.0
        for i in range(len(order)):
            word = words[active[order[i]]]
            c = 0
            while word:
                if word & np.uint64(1):
                    true[c] += 1
                word >>= np.uint64(1)
                c += 1
            value = values[order[i]]
            following = values[order[i + 1]] if i + 1 < len(order) else 0.0
            if following == value:
                continue  # a threshold cannot part equal values
            for c in range(concepts):
                f1 = 2 * true[c] / (i + 1 + positives[0, c])
                if f1 > best:
                    best, concept, threshold = f1, c, (value + following) / 2
        said, right = 0, 0
        for t in range(half, n):
            if f[t, j] > threshold:
                said += 1
                right += (words[t] >> np.uint64(concept)) & np.uint64(1)
        out[j, 0], out[j, 1], out[j, 5] = concept, threshold, best
        out[j, 2] = 2 * right / (said + positives[1, concept])
        out[j, 3] = right / max(said, 1)
        out[j, 4] = right / positives[1, concept]
    return out
