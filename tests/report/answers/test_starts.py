"""Which arm the start moves, on records whose answer is known."""

from __future__ import annotations

import pytest

from aligned.evals.intervals import Interval
from aligned.report import claims, results
from aligned.report.answers import starts


def test_whether_the_start_matters_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gains(table, metric, arms):  # type: ignore[no-untyped-def]
        mean = small if (table.init == "small").all() else 0.02
        return Interval(mean, mean - 0.005, mean + 0.005, 3)

    monkeypatch.setattr(claims, "difference", gains)
    small = -0.02
    assert "**depends on their start** (on embedded)" in starts.of_the_start(["embedded"])
    small = 0.018
    assert "is not shown to depend on their start (on embedded)" in starts.of_the_start(["embedded"])
    monkeypatch.setattr(results, "published", dict)
    assert "Of embedded no SAEs with another start are published yet" in starts.of_the_start(["embedded"])


def test_the_arm_that_the_start_moves_and_the_better_starts_are_those_of_the_records() -> None:
    found = starts.starts("embedded")
    assert isinstance(found, starts.Starts)
    standard, aligned = found.moved
    assert standard.high < 0 < aligned.low  # so the better starts are the small one and that of norm 1
    # over the same range of L0 the moves and the differences would add up; here the ranges differ a little
    assert aligned.mean - standard.mean == pytest.approx(
        found.unit["CE recovered"].mean - found.small["CE recovered"].mean, abs=0.003
    )
    assert found.small["CE recovered"].mean < found.best.mean < found.unit["CE recovered"].mean
    told = starts.of_the_start(["embedded"])
    assert "On embedded the start moves aligned SAEs more" in told
    assert f"| embedded | {standard} | {aligned} | {found.best} |" in told


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (Interval(0.001, -0.001, 0.003, 3), "recover as much as standard ones (the same within 0.005)"),
        (Interval(0.02, 0.01, 0.03, 3), "recover more than standard ones"),
        (Interval(-0.02, -0.03, -0.01, 3), "recover less than standard ones"),
        (Interval(0.0, -0.03, 0.03, 3), "recover more or less than standard ones: open"),
    ],
)
def test_what_is_left_with_the_better_starts_is_told(
    monkeypatch: pytest.MonkeyPatch, best: Interval, said: str
) -> None:
    some = {"CE recovered": best}
    small, large = Interval(0.001, 0.0, 0.002, 3), Interval(-0.1, -0.2, -0.05, 3)
    of = {name: starts.Starts(name, some, some, (large, small), best, 1.0, "holds", "holds") for name in ("a", "b")}
    monkeypatch.setattr(starts, "starts", of.get)
    told = starts.of_the_start(of)
    assert "On a and b the start moves standard SAEs more, and with each arm from the start that suits it" in told
    assert f"better aligned SAEs {said}." in told


@pytest.mark.parametrize(
    ("effect", "says"),
    [
        (Interval(0.003, 0.001, 0.006, 3), "recover more, but the mean difference, +0.0030, is smaller than 0.005"),
        (Interval(-0.003, -0.006, -0.001, 3), "recover less, but the mean difference, -0.0030"),
        (Interval(0.02, 0.01, 0.03, 3), ""),
        (Interval(0.001, -0.002, 0.004, 3), ""),
        (Interval(0.003, -0.01, 0.02, 3), ""),
    ],
)
def test_a_gain_that_is_shown_and_small_is_called_so(effect: Interval, says: str) -> None:
    both = starts.Starts("m", {}, {"CE recovered": effect}, (effect, effect), effect, 1.0, "undecided", "holds")
    told = starts.small_gains([both, "Of another model nothing is published."])
    assert says in told
    assert bool(told) is bool(says)


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (
            Interval(0.001, -0.001, 0.003, 3),
            "as much as standard ones (the same within 0.005), +0.0010 [-0.0010, +0.0030]",
        ),
        (Interval(0.001, -0.001, 0.003, 3), "-0.0100]: without this step the loss is gone."),
        (Interval(0.02, 0.01, 0.03, 3), "-0.0100]: without this step the loss is gone."),
        (Interval(-0.007, -0.008, -0.006, 3), "-0.0100]: without this step 65% [60%, 70%] of the loss is gone."),
        (Interval(-0.02, -0.03, -0.01, 3), "-0.0100]: the loss is left."),
        (Interval(0.0, -0.03, 0.03, 3), "-0.0100]: whether a part of the loss is left is open."),
    ],
)
def test_what_the_first_step_brings_is_told(after: Interval, says: str) -> None:
    loss = Interval(-0.02, -0.03, -0.01, 3)
    both = {"CE recovered": loss}, {}, (loss, loss), loss, 1.0, "", "", {"CE recovered": after}
    of = starts.Starts("m", *both, "65% [60%, 70%]")
    other = starts.Starts("n", {"CE recovered": loss}, {}, (loss, loss), loss, 1.0, "", "")
    told = starts.of_the_first_step([of, other, "Of another model nothing is published."])
    assert says in told
    assert "On n " not in told
    assert starts.of_the_first_step([other]) == ""


def test_without_a_loss_the_first_step_brings_none() -> None:
    gain = Interval(0.02, 0.01, 0.03, 3)
    of = starts.Starts("m", {"CE recovered": gain}, {}, (gain, gain), gain, 1.0, "", "", {"CE recovered": gain})
    assert starts.of_the_first_step([of]).count("in place of +0.0200 [+0.0100, +0.0300]. ") == 1


def test_a_page_of_the_small_start_tells_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Interval(-0.02, -0.03, -0.01, 3)
    of = {"m": starts.Starts("m", {"CE recovered": some}, {"CE recovered": some}, (some, some), some, 1.0, "", "")}
    monkeypatch.setattr(starts, "starts", lambda model: of.get(model, "nothing is published"))
    assert f"standard ones is {some} on m (each arm from the better of the two starts: {some})" in starts.beside("mn")
    assert starts.beside("n") == ""
    assert starts.alike("mn") == ""
    of["m"].unit_decoder[starts.ALIKE] = some
    assert f"the difference between aligned (`projected`) and standard ones is {some} on m (" in starts.alike("mn")
