"""What a page's SAEs are, and what they cost, as the page on cost has it."""

import json
from pathlib import Path

import pytest

from aligned.report import cost
from aligned.report.published import PLANS
from aligned.report.rerun import NOTEBOOKS, parameters, preset, rerun
from aligned.report.results import published
from aligned.spec import RunSpec


def test_a_page_trains_the_saes_that_its_cost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    page = NOTEBOOKS / "dead_features.ipynb"
    given = preset("smoke", page)
    rerun(page, tmp_path / "out.ipynb", given)
    trained = {RunSpec(**json.loads(place.read_text())) for place in (tmp_path / "store").glob("*/spec.json")}
    assert trained == set(cost.asked(parameters(page) | given))


@pytest.mark.parametrize("model", PLANS)
def test_the_pages_ask_for_what_is_published(model: str) -> None:
    pages = [page for page in NOTEBOOKS.glob("*.ipynb") if "use_published" in parameters(page)]
    assert len(pages) == 9
    given = {page: parameters(page) | (preset(model, page) if model != "embedded" else {}) for page in pages}
    asked = {spec for p in given.values() for spec in cost.asked(p)}
    assert asked == set(PLANS[model].specs)


def test_a_page_says_what_is_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    page = parameters(NOTEBOOKS / "weight_tying.ipynb")
    count = len(cost.asked(page))
    there = sum(spec in published() for spec in cost.asked(page))
    assert cost.ahead(page).startswith(f"{count} SAEs: {there} published, 0 in the store")
    assert cost.ahead(page).endswith("; 0 to train")
    scratch = cost.ahead(page | {"use_published": False})
    assert scratch.startswith(f"{count} SAEs: 0 published, 0 in the store; {count} to train, in about ")
    assert cost.ahead(page | {"eval_tokens": 4096}) == scratch  # no record of that size
    (tmp_path / "store" / cost.asked(page)[0].name).mkdir(parents=True)
    (tmp_path / "store" / cost.asked(page)[0].name / "spec.json").write_text("{}")
    assert f"1 in the store; {count - 1} to train" in cost.ahead(page | {"use_published": False})
    assert cost.ahead(parameters(NOTEBOOKS / "geometry.ipynb")) == ""


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
    specs = cost.asked(parameters(NOTEBOOKS / "stability.ipynb"))
    assert len(specs) == len(set(specs)) == 2 * 3 * 2 * 4
    assert pages.scratch["stability"] == pytest.approx(sum(s.steps for s in specs) * 0.01 / 3600)
    assert whole["memory GB"]["scratch"] == 4  # the widest
    wide = cost.training(record, [RunSpec(d_sae=32768)], 128)
    assert wide["memory GB"] == pytest.approx(16)  # beyond what was measured
