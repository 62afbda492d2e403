"""The checks of the exercises: a right answer passes, and each likely mistake is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aligned import exercises
from aligned.report.rerun import NOTEBOOKS
from tests.drawn import prose


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T


def pw_mcc(a: Tensor, b: Tensor) -> float:
    c = cosines(a, b).numpy()
    return float(np.mean(c[linear_sum_assignment(-c)]))


def top(pre: Tensor, k: int) -> Tensor:
    least = pre.topk(k, dim=1).values[:, -1:]
    return torch.where(pre >= least, pre, 0.0).relu()


RIGHT: dict[str, Callable[..., Any]] = {
    "alignment_score": lambda W_enc, W_dec: torch.einsum("is,si->s", W_enc, W_dec),
    "projected": lambda v, d: v + ((1 - (v * d).sum(1)) / (d * d).sum(1))[:, None] * d,
    "topk": top,
    "ce_recovered": lambda clean, sae, zero: 1 - (sae - clean) / (zero - clean),
    "pw_mcc": pw_mcc,
}
WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("alignment_score", lambda e, d: cosines(e.T, d).diagonal(), "these are cosines"),
    ("alignment_score", lambda e, d: e.T @ d.T, "every encoder with every decoder"),
    ("alignment_score", lambda e, d: (e.T * d).sum(0), r"has the shape \[4\], not \[3\]"),
    ("alignment_score", lambda e, d: None, "the answer is a NoneType"),
    ("alignment_score", lambda e, d: -(e.T * d).sum(1), "is off by up to"),
    ("projected", lambda v, d: v + (1 - (v * d).sum(1, keepdim=True)) * d, "divided by |d|"),
    ("projected", lambda v, d: v / (v * d).sum(1, keepdim=True), "not the nearest point"),
    ("projected", lambda v, d: d / d.square().sum(1, keepdim=True), "v plays no part"),
    ("projected", lambda v, d: RIGHT["projected"](v, d) - d / d.square().sum(1, keepdim=True), "the scores are 0"),
    (
        "topk",
        lambda pre, k: torch.zeros_like(pre).scatter(1, pre.topk(k).indices, pre.topk(k).values),
        "never negative",
    ),
    ("topk", lambda pre, k: top(pre.flatten()[None], k * len(pre)).view_as(pre), "which is BatchTopK"),
    ("ce_recovered", lambda clean, sae, zero: (sae - clean) / (zero - clean), "the share that is lost"),
    ("ce_recovered", lambda clean, sae, zero: clean / sae, "a ratio of losses"),
    ("pw_mcc", lambda a, b: cosines(a, b).amax(1).mean(), "a partner is taken once"),
    ("pw_mcc", lambda a, b: cosines(a, b).diagonal().mean(), "in their order"),
    ("pw_mcc", lambda a, b: (a @ b.T).amax(1).mean(), "inner products"),
]


@pytest.mark.parametrize("name", list(RIGHT))
def test_a_right_answer_is_right(name: str) -> None:
    assert getattr(exercises, f"check_{name}")(RIGHT[name]) == "right"


@pytest.mark.parametrize(("name", "answer", "says"), WRONG)
def test_a_mistake_is_named(name: str, answer: Callable[..., Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says.replace("|", r"\|")):
        getattr(exercises, f"check_{name}")(answer)


def test_a_greedy_matching_is_named() -> None:
    def greedy(a: Tensor, b: Tensor) -> Tensor:
        left, total = cosines(a, b), torch.tensor(0.0)
        for _ in range(len(a)):
            i, j = divmod(int(left.argmax()), left.shape[1])
            total += left[i, j]
            left[i], left[:, j] = -torch.inf, -torch.inf
        return total / len(a)

    with pytest.raises(AssertionError, match="taken first"):
        exercises.check_pw_mcc(greedy)


MARK = re.compile(r"\*(Easy|Medium|Hard), \d+ minutes\.\* \S")


def asked(page: Path) -> list[str]:
    """The exercises of a page, as it asks them: the items at its end, and its numbered sections that have a check."""
    _, end, rest = prose(page).partition("## Exercises")
    items = rest if end else prose(page).partition("Now change it.")[2]
    cells = nbformat.read(page, 4).cells
    checked = [
        before.source.split("\n\n", 1)[1]
        for before, after in zip(cells, cells[2:])
        if "exercises.check_" in after.source
    ]
    return [*checked, *re.findall(r"^\d+\. (.*)", items, re.MULTILINE)]


@pytest.mark.parametrize("page", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda page: page.stem)
def test_every_exercise_says_how_hard_it_is_and_how_long_it_takes(page: Path) -> None:
    exercises_of = asked(page)
    assert len(exercises_of) >= 2 or page.stem in ("features", "measures")
    assert [exercise for exercise in exercises_of if not MARK.match(exercise)] == []
    assert len(MARK.findall(prose(page))) == len(exercises_of)


def test_the_words_for_how_hard_an_exercise_is_are_explained() -> None:
    (explained,) = re.findall(
        r"^exercise\n  (.*)", (NOTEBOOKS.parent / "book" / "glossary.md").read_text(), re.MULTILINE
    )
    assert all(f"*{word}*:" in explained for word in ("Easy", "Medium", "Hard"))
