"""Pairs of attributes for SCR: windows of held-out text in which two things may be, and may come together.

An attribute is read off the labels that every token has (`aligned.language.labels`), so nobody is asked. Windows of one
document fall on one side: training, validation or test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from jaxtyping import Bool, Int

from aligned.checks import whole
from aligned.evals.spurious import Probes, Texts, train_probes
from aligned.language.any_text import NAMES
from aligned.language.labels import Windows
from aligned.language.model import LanguageModel

SHARES = {"test": 0.18, "validation": 0.12, "train": 0.7}  # of the windows; documents stay whole
_WINDOWS = 32  # read by the language model at once


@dataclass(frozen=True)
class Attribute:
    """What a window is or is not.

    Attributes:
        name: for a reader.
        of: from windows to two masks, where it holds and where it does not. A window in neither is left out.
    """

    name: str
    of: Callable[[Windows], tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]]


def often(concept: str, least: float) -> Attribute:
    """Holds where a concept is on at least the share `least` of the tokens, and does not hold where it is on none."""
    return Attribute(concept, lambda w: (w.share(concept) >= least, w.share(concept) == 0))


def never(concept: str, least: float) -> Attribute:
    """Holds where a concept is on no token, and does not hold where it is on at least the share `least` of them."""
    return Attribute(f"no {concept}", lambda w: (w.share(concept) == 0, w.share(concept) >= least))


def more(concept: str) -> Attribute:
    """Holds in the third of the windows in which a concept is on the most tokens, and does not hold in the third in
    which it is on the fewest. Windows that are equal fall on one side."""

    def of(windows: Windows) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        share = windows.share(concept)
        low, high = np.quantile(share, [1 / 3, 2 / 3])
        return (share >= high) & (share > low), share <= low

    return Attribute(concept, of)


def of_packages(*packages: str) -> Attribute:
    """Holds where the document is from one of these packages, and does not hold where it is from another one."""

    def of(windows: Windows) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        inside = np.array([name.split("/")[0] in packages for name in windows.documents])
        return inside, ~inside

    return Attribute(" or ".join(packages), of)


_OTHERS = of_packages("IPython", "seaborn")  # against matplotlib
PAIRS = (
    (_OTHERS, never("docstring", 0.25)),
    (_OTHERS, often("class body", 1.0)),
    (often("comment", 0.06), often("condition", 0.04)),
    (often("class body", 1.0), often("called name", 0.03)),
    (often("self", 0.01), often("private name", 0.02)),
)
_OF_ANY_TEXT = (
    "number", "capitalised word", "comma", "long word", "in brackets", "end of line", "inside a word",
    "in quotation marks", "full stop", "short word",
)  # fmt: skip
_WORDS = 6  # of the commonest, which are candidates too: a language may have no capitals, and none of those signs


@dataclass(frozen=True)
class Pair:
    """Two attributes, the windows in which they do and do not come together, and the probes trained on them."""

    name: str
    train: Texts
    test: Texts
    probes: Probes


def pairs(
    model: LanguageModel,
    layer: int,
    windows: Windows,
    attributes: Sequence[tuple[Attribute, Attribute]] | None = None,
    train: int = 4000,
    validation: int = 500,
    test: int = 1000,
    seed: int = 0,
    epoch_on_test: bool = False,
) -> Iterator[Pair]:
    """The pairs of attributes, one after the other, as activations with trained probes.

    They are the same for every SAE on this layer, so they are made once: one pair at a time where memory is short.

    Args:
        model: the language model.
        layer: whose residual stream.
        windows: of held-out text (`aligned.language.labels.labelled_windows`).
        attributes: pairs (a, b); by default `PAIRS`, which are of Python, or where the labels are those of
            `aligned.language.any_text` the pairs that `of_any_text` finds.
        train, validation, test: number of windows in each balanced set; each of the four combinations is a quarter of
            it. Where there are too few, each combination gets as many windows as the rarest one has.
        seed: of which windows are taken, which documents are on which side, and of the probes.
        epoch_on_test: choose the probes' epoch on the test windows, as SAEBench does; for comparison.

    Raises:
        TypeError, ValueError: a number of windows under 4, or a seed that is none; a combination of two attributes that
            no window of one side has, which names the pair.
    """
    train, validation, test = whole("train", train, 4), whole("validation", validation, 4), whole("test", test, 4)
    seed, layer = whole("seed", seed), whole("layer", layer)
    if not isinstance(windows, Windows):
        raise TypeError(f"windows is of type {type(windows).__name__}; `labelled_windows` makes them of a text")
    side, sizes = _sides(windows.documents, seed), {"train": train, "validation": validation, "test": test}
    if attributes is None:
        attributes = of_any_text(windows, side, sizes) if windows.names[: len(NAMES)] == NAMES else PAIRS
    for a, b in attributes:
        name = f"{a.name} / {b.name}"
        parts = []
        for part, size in sizes.items():
            rows, holds = _quadrants(windows, (a, b), side == part, size, seed, f"{name}, {part}")
            parts.append(_read(model, layer, windows, rows, holds))
        yield Pair(name, parts[0], parts[2], train_probes(parts[0], parts[2 if epoch_on_test else 1], seed))


def of_any_text(windows: Windows, side: np.ndarray, sizes: Mapping[str, int]) -> list[tuple[Attribute, Attribute]]:
    """Pairs of attributes that this text, in whatever language, has windows of: as many as `PAIRS` has at most. No
    attribute is in two of them, and those come first of which the text has enough windows of all four combinations on
    every side.

    Args:
        windows: with the labels of `aligned.language.any_text`.
        side: which side each window is on.
        sizes: number of windows that are asked for on each side.

    Raises:
        ValueError: no two attributes have a window of each combination on every side.
    """
    masks = {c: more(c).of(windows) for c in (*_OF_ANY_TEXT, *windows.names[len(NAMES) :][:_WORDS])}

    def enough(pair: tuple[str, str]) -> float:
        a, b = (masks[concept] for concept in pair)
        counts = [(x & y & (side == part)).sum() / (size / 4) for part, size in sizes.items() for x, y in product(a, b)]
        return min(1.0, *counts)

    found: dict[tuple[str, str], float] = {pair: enough(pair) for pair in combinations(masks, 2)}
    used: list[str] = []
    for pair in sorted(found, key=lambda pair: -found[pair]):
        if found[pair] and not set(pair) & set(used) and len(used) < 2 * len(PAIRS):
            used += pair
    if not used:
        raise ValueError(
            f"SCR needs windows of all four combinations of two attributes, for training, validation and test, and the "
            f"{len(windows.documents)} windows of {len(set(windows.documents))} documents have no such two: take more "
            "text"
        )
    return [(more(a), more(b)) for a, b in zip(used[::2], used[1::2])]


def _sides(documents: tuple[str, ...], seed: int) -> np.ndarray:
    """Which side each window is on; documents are dealt out whole, in a random order, until a side has its share."""
    names, of = np.unique(documents, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    until = np.bincount(of, minlength=len(names))[order].cumsum() / len(of)
    bounds = np.cumsum(list(SHARES.values()))
    side = np.empty(len(names), dtype=object)
    side[order] = np.array(list(SHARES))[np.searchsorted(bounds[:-1], until)]
    return side[of]


def _quadrants(
    windows: Windows, pair: tuple[Attribute, Attribute], inside: Bool[np.ndarray, " n"], size: int, seed: int, what: str
) -> tuple[Int[np.ndarray, " m"], Bool[np.ndarray, "m 2"]]:
    """Random windows of the four combinations: a quarter of `size` of each, and of those that coincide two quarters."""
    masks = [attribute.of(windows) for attribute in pair]
    generator = np.random.default_rng(seed)
    found = {}
    for a in (True, False):
        for b in (True, False):
            here = np.flatnonzero(masks[0][0 if a else 1] & masks[1][0 if b else 1] & inside)
            found[a, b] = generator.permutation(here)
    quarter = min(size // 4, *map(len, found.values()))
    if quarter == 0:
        counts = ", ".join(f"{len(rows)} with {_said(pair, *key)}" for key, rows in found.items())
        raise ValueError(f"{what}: SCR needs windows of all four combinations, and there are {counts}: take more text")
    rows, holds = [], []
    for key, of in found.items():
        rows.append(of[: quarter * (2 if key[0] == key[1] else 1)])
        holds.append(np.tile(key, (len(rows[-1]), 1)))
    return np.concatenate(rows), np.concatenate(holds)


def _said(pair: tuple[Attribute, Attribute], a: bool, b: bool) -> str:
    return " and ".join(("" if holds else "not ") + attribute.name for attribute, holds in zip(pair, (a, b)))


def _read(
    model: LanguageModel, layer: int, windows: Windows, rows: Int[np.ndarray, " m"], holds: Bool[np.ndarray, "m 2"]
) -> Texts:
    tokens = windows.tokens[torch.from_numpy(rows)]
    x = torch.cat([model.residual(part, layer).cpu() for part in tokens.split(_WINDOWS)])
    a, b = torch.from_numpy(holds).T
    return Texts(x, ~model.is_special(tokens), a, b)
