"""What a page's SAEs are, and what they cost, as the page on cost has it."""

from pathlib import Path

import pytest

from aligned.report import cost
from aligned.report.parameters import NOTEBOOKS, parameters
from aligned.report.results import published
from aligned.report.wanted import asked
from aligned.spec import RunSpec


def test_what_was_taken_counts_every_published_sae_once() -> None:
    table = cost.taken()
    assert table.SAEs.sum() == len(published())
    assert ((table.least <= table["median"]) & (table["median"] <= table.most)).all()


def test_a_record_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="this record has no arm, seconds, shape, so it is not one of training steps"):
        cost.speed_ups(cost.record("held-out"))


@pytest.mark.parametrize(("holds", "says"), [("{half", "it is not JSON"), ("[]", r"it holds \[\], and an object")])
def test_a_file_that_is_no_record_is_named(holds: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(holds)
    with pytest.raises(ValueError, match=rf"mine\.json is no record: {says}"):
        cost.record(str(tmp_path / "mine.json"))


def test_cost_of_presets_is_that_of_their_steps() -> None:
    rows = [
        {"arm": "aligned", "activation": a, "d_in": 128, "d_sae": d, "seconds": d / 2048 * 0.01, "peak_gb": d / 2048}
        for a in ("relu", "topk", "batchtopk")
        for d in (2048, 8192)
    ]
    record = {"batch": 2048, "rows": rows}
    whole, pages = cost.presets(record, ["smoke", "scratch"])
    specs = asked("stability", parameters(NOTEBOOKS / "stability.ipynb"))
    assert len(specs) == len(set(specs)) == 2 * 3 * 2 * 4
    assert pages.scratch["stability"] == pytest.approx(sum(s.steps for s in specs) * 0.01 / 3600)
    assert whole["memory GB"]["scratch"] == 4  # the widest
    wide = cost.training(record, [RunSpec(d_sae=32768)], 128)
    assert wide["memory GB"] == pytest.approx(16)  # beyond what was measured


def test_time_is_told_by_the_record_and_by_what_published_saes_took(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [RunSpec(seed=seed) for seed in range(4)]
    minutes = round(60 * cost.training(cost.record("cost-cpu"), specs, cost.D_IN["embedded"])["hours"])
    took = {spec: {"provenance": {"seconds": 3600}} for spec in specs}  # an hour each, on one core of two
    monkeypatch.setattr(cost, "published", lambda: took)
    assert cost.in_about(specs).startswith(f", in about {minutes / 60:.0f} to 2 hours on two cores")
    monkeypatch.setattr(cost, "published", dict)
    assert cost.in_about(specs).startswith(
        f", in about {f'{minutes} minutes' if minutes > 1 else 'a minute'} on two cores"
    )


def test_the_time_of_measuring_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"model": "embedded", "tokens": 1000, "recovery_seconds_first": 70, "recovery_seconds_each": 10}
    monkeypatch.setattr(cost, "record", lambda name: {"residuals": {"rows": [row]}}[name])
    three = [(RunSpec(seed=seed), 4000) for seed in range(3)]  # 60 s for the model alone and 10 for each, four times
    assert cost.measuring("embedded", three, others=False) == "; CE recovered of 3 takes about 6 minutes more"
    assert cost.measuring("embedded", [], others=True) == "; other measures come on top (page 'Cost')"
    assert cost.measuring("mine", three, others=True).startswith("; how long CE recovered takes then is not known of m")
    assert cost.measuring("embedded", [], others=False) == ""
