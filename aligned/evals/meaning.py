"""What a feature detects: the concept that it tells best on one half of the text, scored on the other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt64
from numba import njit, prange
from torch import Tensor

from aligned.checks import said, whole
from aligned.evals.codes import by_feature
from aligned.evals.fits import check_activations
from aligned.sae import SAE

if TYPE_CHECKING:
    import pandas as pd


def concepts(
    sae: SAE, x: Float[Tensor, "n d_in"], labels: UInt64[np.ndarray, " n"], names: tuple[str, ...], seed: int = 0
) -> pd.DataFrame:
    """Each feature's concept, and how well it detects it.

    With a threshold, a feature predicts for each token whether a concept holds there. On the first half of the tokens
    the concept and the threshold with the greatest F1 = 2 TP / (2 TP + FP + FN) are chosen; on the second half they are
    scored. `chance` is the F1 of the same procedure after the labels have been shifted against the codes by about half
    the text. The shift keeps how often labels and codes occur, and in what runs. This takes the place of the paper's
    auto-interpretability score (arXiv 2605.18629, Figure 12): the labels are true, and nobody is asked.

    Args:
        sae: for raw activations.
        x: raw activations of tokens in their order.
        labels: the tokens' labels, bit i for concept i (`aligned.language.labels`).
        names: of the concepts.
        seed: of the shift.

    Returns:
        One row for each feature: `concept`, `f1`, `precision`, `recall` (second half), `f1_chosen` (first half),
        `threshold`, `chance` (F1), and `density`, the share of the tokens it is active on. A feature that is never
        active in the first half has no concept and an F1 of 0.

    Raises:
        ValueError: activations that are not `[n, d_in]` or not finite, labels of another number of tokens than x or
            with bits that no name stands for, or no concept that holds in both halves.
        TypeError: labels that are not uint64, names that are no list, a seed that is no whole number.
    """
    import pandas as pd

    check_activations(sae, x)
    seed = whole("seed", seed)
    _check_labels(labels, names)
    if len(labels) != len(x):
        raise ValueError(f"there are labels for {len(labels)} tokens, and activations of {len(x)}")
    half = len(x) // 2
    counts = _counts(labels, half, names)
    if (absent := counts.min(0) == 0).any():
        listed = ", ".join(name for name, gone in zip(names, absent) if gone)
        if absent.all():
            raise ValueError(f"no token of one half of the text is labelled {listed}: take more text")
        warnings.warn(
            f"left out, since no token of one half of the text is labelled so: {listed} (131,072 tokens of Python "
            "hold all of its concepts, where the tokenizer has tokens for them)",
            stacklevel=2,
        )
        labels = labels & ~np.bitwise_or.reduce(np.uint64(1) << np.flatnonzero(absent).astype(np.uint64))
        counts = _counts(labels, half, names)
    shift = half + np.random.default_rng(seed).integers(-half // 4, half // 4 + 1)
    moved = np.roll(labels, shift)
    moved_counts = _counts(moved, half, names)
    rows: list[np.ndarray] = []
    for f in by_feature(sae, x):
        real, by_chance = (
            _detect(f.indptr, f.indices, f.data, w, half, c) for w, c in ((labels, counts), (moved, moved_counts))
        )
        density = np.diff(f.indptr) / len(x)
        rows.append(np.column_stack([real, by_chance[:, 2], density]))
    table = pd.DataFrame(
        np.concatenate(rows),
        columns=["concept", "threshold", "f1", "precision", "recall", "f1_chosen", "chance", "density"],
    )
    table["concept"] = [names[int(c)] if c >= 0 else None for c in table.concept]
    return table


def _check_labels(labels: UInt64[np.ndarray, " n"], names: tuple[str, ...]) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint64 or labels.ndim != 1:
        raise TypeError("labels are a NumPy array of uint64, bit i for concept i, as `HeldOut.labels` are")
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"names is {said(names)}; give a list of names, such as ('comment',)")
    if not 1 <= len(names) <= 64:
        raise ValueError(f"there are {len(names)} concepts; a label has room for 1 to 64")
    if highest := int(np.bitwise_or.reduce(labels)) >> len(names):
        raise ValueError(
            f"the labels know {len(names) + highest.bit_length()} concepts, and {len(names)} are named: to leave one "
            "out, give a labelling without it to `held_out`"
        )


def _counts(labels: UInt64[np.ndarray, " n"], half: int, names: tuple[str, ...]) -> Int[np.ndarray, "2 concepts"]:
    """On how many tokens of each half each concept holds."""
    bits = [np.uint64(1 << i) for i in range(len(names))]
    return np.array([[(part & bit > 0).sum() for bit in bits] for part in (labels[:half], labels[half:])])


@njit(parallel=True, cache=True)
def _detect(starts, tokens, values, labels, half, counts):  # type: ignore[no-untyped-def]
    """Of each feature: concept (-1: none), threshold; F1, precision, recall on the second half; F1 on the first.

    A feature's codes stand at starts[j] to starts[j + 1], in the order of their tokens; counts are the concepts'
    positives in both halves.
    """
    features = len(starts) - 1
    out = np.zeros((features, 6))
    for j in prange(features):
        here, until = starts[j], starts[j + 1]
        middle = here + np.searchsorted(tokens[here:until], half)
        out[j, 0] = -1
        if middle == here:
            continue
        order = here + np.argsort(-values[here:middle])
        true = np.zeros(counts.shape[1], np.int64)
        best, concept, threshold = -1.0, -1, 0.0
        seen = np.uint64(0)
        for i in range(len(order)):
            seen |= labels[tokens[order[i]]]
            _add_bits(labels[tokens[order[i]]], true)
            value = values[order[i]]
            following = values[order[i + 1]] if i + 1 < len(order) else values.dtype.type(0)
            if following == value:
                continue  # a threshold cannot part equal values
            c = 0
            while seen:  # the F1 of a concept that none of these tokens has has fallen
                if seen & np.uint64(1):
                    f1 = 2 * true[c] / (i + 1 + counts[0, c])
                    if f1 > best:
                        best, concept, threshold = f1, c, (value + following) / 2
                seen >>= np.uint64(1)
                c += 1
        out[j, 0], out[j, 1], out[j, 5] = concept, threshold, max(best, 0.0)
        if concept < 0:
            continue
        said, right = 0, 0
        for i in range(middle, until):
            if values[i] > threshold:
                said += 1
                right += (labels[tokens[i]] >> np.uint64(concept)) & np.uint64(1)
        out[j, 2] = 2 * right / max(said + counts[1, concept], 1)
        out[j, 3] = right / max(said, 1)
        out[j, 4] = right / max(counts[1, concept], 1)
    return out


@njit(inline="always")
def _add_bits(word, counts):  # type: ignore[no-untyped-def]
    c = 0
    while word:
        if word & np.uint64(1):
            counts[c] += 1
        word >>= np.uint64(1)
        c += 1
