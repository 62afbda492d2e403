"""The checks of the exercises: a right answer passes, and each likely mistake is named."""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import Callable
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aligned import exercises
from aligned.report.parameters import NOTEBOOKS
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


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def paired(values: Tensor) -> tuple[Any, Any]:
    return linear_sum_assignment(values, maximize=True)


def along(v: Tensor, d: Tensor, by: Tensor) -> Tensor:
    """v with the step 1 - <v, d> along d, divided by something."""
    return v + ((1 - (v * d).sum(1)) / by)[:, None] * d


def in_place(v: Tensor, d: Tensor) -> Tensor:
    v += ((1 - (v * d).sum(1)) / (d * d).sum(1))[:, None] * d
    return v


def normalised_in_place(v: Tensor, d: Tensor) -> Tensor:
    d /= d.norm(dim=1, keepdim=True)
    return along(v, d, (d * d).sum(1))


def stepped(v: Tensor, d: Tensor, by: Callable[[Tensor], Tensor]) -> Tensor:
    """v with a step along d that is some function of the score."""
    return v + by((v * d).sum(1, keepdim=True)) * d / (d * d).sum(1, keepdim=True)


def on_a_copy(v: Tensor, d: Tensor) -> Tensor:
    e = v.clone()
    e += (1 - (e * d).sum(1, keepdim=True)) * d / (d * d).sum(1, keepdim=True)
    return e


def pairs_by_exchange(a: Tensor, b: Tensor) -> Tensor:
    """Two partners are exchanged, as long as that helps."""
    c = cosines(a, b)
    partners = list(range(len(c)))
    better = True
    while better:
        better = False
        for i, j in combinations(range(len(c)), 2):
            p, q = partners[i], partners[j]
            if c[i, q] + c[j, p] > c[i, p] + c[j, q] + 1e-6:
                partners[i], partners[j], better = q, p, True
    return c[range(len(c)), partners].mean()


def scaled_in_place(a: Tensor, b: Tensor) -> float:
    a /= a.norm(dim=1, keepdim=True)
    return pw_mcc(a, b)


def pairs_by_inner_products(a: Tensor, b: Tensor) -> Tensor:
    return cosines(a, b)[paired(a @ b.T)].mean()


def wrong_way_round(a: Tensor, b: Tensor) -> Tensor:
    rows, partners = paired(cosines(a, b))
    return cosines(a, b)[partners, rows].mean()


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("alignment_score", lambda e, d: cosines(e.T, d).diagonal(), "these are cosines"),
    ("alignment_score", lambda e, d: (unit(e.T) * d).sum(1), "one of the two"),
    ("alignment_score", lambda e, d: (e.T * unit(d)).sum(1), "one of the two"),
    ("alignment_score", lambda e, d: e.T @ d.T, "every encoder with every decoder"),
    ("alignment_score", lambda e, d: d @ e, "every encoder with every decoder"),
    ("alignment_score", lambda e, d: (e.T * d).sum(0), "the sum is over the features"),
    ("alignment_score", lambda e, d: (e.T * d).sum(1, keepdim=True), "leave `keepdim` out"),
    ("alignment_score", lambda e, d: (e.T * d).mean(1), "a mean over d_in"),
    ("alignment_score", lambda e, d: (e.T * d).sum(1).numpy(), "of type ndarray; return a torch tensor"),
    ("alignment_score", lambda e, d: (e.T * d).sum(1).int(), "whole numbers"),
    ("alignment_score", lambda e, d: -(e.T * d).sum(1), "the sign"),
    ("alignment_score", lambda e, d: (e.T * d).sum(1) + 1, r"the answer is [4, 2.5, -1]; yours is [5, 3.5, 0]"),
    ("projected", lambda v, d: along(v, d, torch.ones(len(d))), "divided by |d|^2"),
    ("projected", lambda v, d: along(v, d, d.norm(dim=1)), "is divided by |d|, and should be by |d|^2"),
    ("projected", lambda v, d: along(v, unit(d), torch.ones(len(d))), "that with d itself should be"),
    ("projected", lambda v, d: 2 * v - RIGHT["projected"](v, d), "the sign"),
    ("projected", lambda v, d: v + ((1 - (v * d).sum(1)) / (d * d).sum(1))[:, None] * v, "along v"),
    ("projected", lambda v, d: v / (v * d).sum(1, keepdim=True), "not the nearest point"),
    ("projected", lambda v, d: d / d.square().sum(1, keepdim=True), "v plays no part"),
    ("projected", lambda v, d: RIGHT["projected"](v, d) - d / d.square().sum(1, keepdim=True), "the scores are 0"),
    ("projected", lambda v, d: v, "v itself"),
    ("projected", lambda v, d: stepped(v, d, lambda a: (1 - a).relu()), "only the rows with a score below 1 moved"),
    ("projected", lambda v, d: stepped(v, d, lambda a: (1 - a).clamp(max=0)), "only the rows with a score above 1"),
    ("projected", lambda v, d: stepped(v, d, lambda a: (1 - a).abs()), "with its sign"),
    ("projected", lambda v, d: stepped(v, d, lambda a: -(1 - a).abs()), "with its sign"),
    ("projected", lambda v, d: stepped(v, d, lambda a: 1 - a.abs()), "a score may be below 0"),
    ("projected", lambda v, d: stepped(v, d, lambda a: 1 - a.relu()), "a score may be below 0"),
    ("projected", lambda v, d: along(v, d, (d * d).sum(1).clamp(min=1)), "shorter than 1"),
    ("projected", lambda v, d: along(v, d, (d * d).sum(1).clamp(max=4)), "the answer is"),
    ("projected", lambda v, d: stepped(v, d, lambda a: (1 - a).clamp(-1, 2)), "the answer is"),
    ("projected", on_a_copy, "was changed in place, as by `+=`"),
    ("projected", in_place, "changed its argument v"),
    ("projected", normalised_in_place, "changed its argument d"),
    ("projected", lambda v, d: RIGHT["projected"](v.detach(), d), "no gradient reaches v"),
    ("projected", lambda v, d: RIGHT["projected"](v, d.detach()), "no gradient reaches d"),
    ("projected", lambda v, d: RIGHT["projected"](v.detach(), d.detach()), "no gradient passes"),
    (
        "projected",
        lambda v, d: v + ((1 - (v * d.detach()).sum(1)) / (d * d).sum(1))[:, None] * d,
        "some of the gradient misses d",
    ),
    (
        "topk",
        lambda pre, k: torch.zeros_like(pre).scatter(1, pre.topk(k).indices, pre.topk(k).values),
        "never negative",
    ),
    ("topk", lambda pre, k: top(pre.flatten()[None], k * len(pre)).view_as(pre), "as BatchTopK does"),
    ("topk", lambda pre, k: top(pre.flatten()[None], k).view_as(pre), "2 largest of the whole batch"),
    ("topk", lambda pre, k: top(pre.T, k).T, "2 largest of each feature"),
    ("topk", lambda pre, k: top(pre, k - 1), "one code too few"),
    ("topk", lambda pre, k: top(pre, k + 1), "one code too many"),
    ("topk", lambda pre, k: pre.relu() * (top(pre.abs(), k) > 0), "ReLU first"),
    ("topk", lambda pre, k: top(pre, k) > 0, "return the codes themselves"),
    ("topk", lambda pre, k: pre.relu(), "all that the ReLU keeps"),
    ("topk", lambda pre, k: pre.relu() * (pre.argsort(dim=1, descending=True) < k), "not each code's rank"),
    ("topk", lambda pre, k: pre.relu() * (pre.relu().argsort(dim=1, descending=True) < k), "not each code's rank"),
    ("topk", lambda pre, k: pre.relu() * (pre.argsort(dim=1) >= pre.shape[1] - k), "not each code's rank"),
    ("topk", lambda pre, k: top(pre, 2), "for k = 1 and pre"),
    ("topk", lambda pre, k: top(pre.detach(), k), "no gradient passes"),
    ("topk", lambda pre, k: top(torch.from_numpy(pre.numpy()), k), "no gradient passes through numpy"),
    ("ce_recovered", lambda clean, sae, zero: (sae - clean) / (zero - clean), "the share that is lost"),
    ("ce_recovered", lambda clean, sae, zero: (sae - zero) / (zero - clean), "the sign"),
    ("ce_recovered", lambda clean, sae, zero: 100 * (zero - sae) / (zero - clean), "in percent"),
    ("ce_recovered", lambda clean, sae, zero: zero - sae / zero - clean, "brackets"),
    ("ce_recovered", lambda clean, sae, zero: clean / sae, "a ratio of losses"),
    ("ce_recovered", lambda clean, sae, zero: sae / clean, "a ratio of losses"),
    ("ce_recovered", lambda clean, sae, zero: 0.9, "for losses of 2 (clean), 7 (SAE), 6 (zero) the answer is -0.25"),
    ("ce_recovered", lambda clean, sae, zero: max(0.0, (zero - sae) / (zero - clean)), "below 0"),
    ("ce_recovered", lambda clean, sae, zero: min(1.0, (zero - sae) / (zero - clean)), "above 1"),
    ("ce_recovered", lambda clean, sae, zero: round((zero - sae) / (zero - clean), 2), "rounded"),
    ("ce_recovered", lambda clean, sae, zero: "0.9", "of type str; return a number"),
    ("pw_mcc", lambda a, b: cosines(a, b).amax(1).mean(), "each row of a took its best partner"),
    ("pw_mcc", lambda a, b: cosines(a, b).amax(0).mean(), "each row of b took its best partner"),
    ("pw_mcc", lambda a, b: cosines(a, b).diagonal().mean(), "in their order"),
    ("pw_mcc", lambda a, b: (a @ b.T).amax(1).mean(), "inner products"),
    ("pw_mcc", pairs_by_inner_products, "chosen by inner products"),
    ("pw_mcc", lambda a, b: cosines(a, b)[paired(-torch.cdist(a, b))].mean(), "or distances of rows of any length"),
    (
        "pw_mcc",
        lambda a, b: cosines(a, b)[paired(-(torch.cdist(a, b) ** 2))].mean(),
        "or distances of rows of any length",
    ),
    ("pw_mcc", lambda a, b: cosines(a, b)[paired(-torch.cdist(unit(a), unit(b)))].mean(), "the sum of the distances"),
    ("pw_mcc", lambda a, b: cosines(a, b)[paired(cosines(a, b).abs())].mean(), "without its sign"),
    ("pw_mcc", lambda a, b: (a @ b.T)[paired(cosines(a, b))].mean(), "these are inner products"),
    ("pw_mcc", wrong_way_round, "the wrong way round"),
    ("pw_mcc", pairs_by_exchange, "exchanging partners two by two is not enough"),
    ("pw_mcc", scaled_in_place, "changed its argument a"),
    ("pw_mcc", lambda a, b: cosines(a.T, b.T)[paired(cosines(a.T, b.T))].mean(), "the columns were compared"),
    ("pw_mcc", lambda a, b: (unit(a).T @ unit(b))[paired(unit(a).T @ unit(b))].mean(), "the columns were compared"),
    ("pw_mcc", lambda a, b: cosines(a, b).abs()[paired(cosines(a, b).abs())].mean(), "below 0"),
    ("pw_mcc", lambda a, b: cosines(a, b)[paired(-cosines(a, b))].mean(), "maximize=True"),
    ("pw_mcc", lambda a, b: (unit(a) @ b.T)[paired(unit(a) @ b.T)].mean(), "no norm of 1"),
    ("pw_mcc", lambda a, b: pw_mcc(a, b) * len(a), "return their mean"),
    ("pw_mcc", lambda a, b: cosines(a, b)[paired(cosines(a, b))], "return one number"),
]


@pytest.mark.parametrize("name", list(RIGHT))
def test_a_right_answer_is_right(name: str) -> None:
    assert getattr(exercises, f"check_{name}")(RIGHT[name]) == "right"


@pytest.mark.parametrize(("name", "answer", "says"), WRONG)
def test_a_mistake_is_named(name: str, answer: Callable[..., Any], says: str) -> None:
    told = getattr(exercises, f"check_{name}")(answer)
    assert says in told
    assert "\n" not in told


@pytest.mark.parametrize("name", list(RIGHT))
def test_no_two_mistakes_give_the_same_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a check says is wrong is what is wrong."""
    compare = exercises._compare

    def apart(found: Tensor, right: Tensor, example: str, mistakes: exercises.Mistakes) -> None:
        compare(found, right, example, mistakes)
        for (one, says), (other, says_other) in combinations([(right, "right"), *mistakes], 2):
            assert says == says_other or one.shape != other.shape or not torch.allclose(one, other, atol=1e-4)

    monkeypatch.setattr(exercises, "_compare", apart)
    assert getattr(exercises, f"check_{name}")(RIGHT[name]) == "right"


def test_a_greedy_matching_is_named() -> None:
    def greedy(a: Tensor, b: Tensor) -> Tensor:
        left, total = cosines(a, b), torch.tensor(0.0)
        for _ in range(len(a)):
            i, j = divmod(int(left.argmax()), left.shape[1])
            total += left[i, j]
            left[i], left[:, j] = -torch.inf, -torch.inf
        return total / len(a)

    assert "taken first" in exercises.check_pw_mcc(greedy)


@pytest.mark.parametrize("name", list(RIGHT))
def test_a_function_that_is_not_written_yet_is_no_error(name: str) -> None:
    """So a page on which nobody has worked yet runs to its end."""
    assert "returns nothing" in getattr(exercises, f"check_{name}")(lambda *given: None)


def test_a_trial_of_all_pairings_is_right_but_stopped() -> None:
    def of_all(a: Tensor, b: Tensor) -> float:
        c = cosines(a, b).numpy()
        return max(float(c[range(len(c)), order].mean()) for order in permutations(range(len(c))))

    before = signal.getsignal(signal.SIGVTALRM)
    assert "right for 4 rows, but 20 rows take over 2 seconds" in exercises.check_pw_mcc(of_all)
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_the_readers_own_function_is_taken_if_it_is_right() -> None:
    mine, the_books = RIGHT["ce_recovered"], lambda clean, sae, zero: (zero - sae) / (zero - clean)
    for wrong in (lambda *given: None, lambda *given: 1 / 0, lambda clean, sae, zero: sae / clean):
        used, told = exercises.yours_or_the_books(ce_recovered=(wrong, the_books), topk=(RIGHT["topk"], top))
        assert used.ce_recovered is the_books
        assert told == "yours: topk; the book's: ce_recovered"
    used, told = exercises.yours_or_the_books(ce_recovered=(mine, the_books))
    assert used.ce_recovered is mine
    assert told == "yours: ce_recovered; the book's: none"


PAGE = NOTEBOOKS / "write_it_yourself.ipynb"


def test_the_page_never_takes_a_name_from_the_reader() -> None:
    """So the checks, run again, still speak of what the reader wrote."""
    cells = [cell.source for cell in nbformat.read(PAGE, 4).cells if cell.cell_type == "code"]
    binding = [
        (name, number)
        for number, source in enumerate(cells)
        for node in ast.walk(ast.parse(source))
        for name in (*RIGHT, "rescaled")
        if (isinstance(node, ast.FunctionDef) and node.name == name)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
    ]
    assert sorted(name for name, _ in binding) == sorted(RIGHT)
    assert all("# yours" in cells[number] for _, number in binding)


MARK = re.compile(r"\*(Easy|Medium|Hard), \d+ minutes\.\* \S")


def asked(page: Path) -> list[str]:
    """The exercises of a page, as it asks them: the items at its end, and its numbered sections that have a check."""
    _, end, rest = prose(page).partition("## Exercises")
    items = rest if end else prose(page).partition("Now change it.")[2]
    cells = nbformat.read(page, 4).cells
    checked = [
        before.source.split("\n\n", 1)[1]
        for before, after in zip(cells, cells[2:])
        if before.cell_type == "markdown" and "exercises.check_" in after.source
    ]
    return [*checked, *re.findall(r"^\d+\. (.*)", items, re.MULTILINE)]


@pytest.mark.parametrize("page", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda page: page.stem)
def test_every_exercise_says_how_hard_it_is_and_how_long_it_takes(page: Path) -> None:
    exercises_of = asked(page)
    assert len(exercises_of) >= 2 or page.stem in ("features", "measures")
    assert [exercise for exercise in exercises_of if not MARK.match(exercise)] == []
    assert len(MARK.findall(prose(page))) == len(exercises_of)


def minutes_of(exercise: str, page: str) -> int:
    """How long one takes, by its number; the last of "Write it yourself" is all that comes after its checks."""
    minutes = [int(re.findall(r", (\d+) minutes", asks)[0]) for asks in asked(NOTEBOOKS / f"{page}.ipynb")]
    if page == PAGE.stem:
        minutes = [*minutes[: len(RIGHT)], sum(minutes[len(RIGHT) :])]
    return minutes[int(exercise) - 1]


def test_the_seminars_times_are_those_of_its_pages_and_exercises() -> None:
    _, *sessions = re.split(r"^\*\*\d\. ", (NOTEBOOKS.parent / "book" / "index.md").read_text(), flags=re.MULTILINE)
    assert len(sessions) == 4
    for session in sessions:
        ((home, in_class),) = re.findall(r"(\d+) minutes at home.*?; (\d+) in class", session)
        reads, _, exercises_of = session.partition("\nExercises: ")
        pages = re.findall(r"{doc}`/?([\w/]+)`", reads.partition("\nRead ")[2].partition("browse")[0])
        takes = [
            int(re.findall(r"\*\*It takes\*\* (\d+) minutes", text)[0])
            for page in pages
            for text in [
                prose(NOTEBOOKS / f"{Path(page).stem}.ipynb")
                if page.startswith("notebooks/")
                else (NOTEBOOKS.parent / "book" / f"{page}.md").read_text()
            ]
        ]
        tasks = [
            minutes_of(number, page)
            for numbers, page in re.findall(r"([\d and]+) of {doc}`/notebooks/(\w+)`", exercises_of.partition("\n")[0])
            for number in re.findall(r"\d", numbers)
        ]
        assert abs(sum(takes) - int(home)) < 5
        assert abs(sum(tasks) + 20 - int(in_class)) < 5
        assert int(in_class) <= 90


def test_the_words_for_how_hard_an_exercise_is_are_explained() -> None:
    (explained,) = re.findall(
        r"^exercise\n  (.*)", (NOTEBOOKS.parent / "book" / "glossary.md").read_text(), re.MULTILINE
    )
    assert all(f"*{word}*:" in explained for word in ("Easy", "Medium", "Hard"))
