"""What a page is known to ask for before it runs. (That its cells ask for the same, `tests.drawn.drawn` checks.)"""

import json
from pathlib import Path
from typing import Any

import pytest

from aligned.report import results
from aligned.report.parameters import NOTEBOOKS, parameters, preset
from aligned.report.published import PLANS
from aligned.report.rerun import in_all, rerun
from aligned.report.results import published
from aligned.report.values import problems
from aligned.report.wanted import PAGES, ahead, asked, check_published
from aligned.spec import RunSpec


def of(page: str, **given: Any) -> dict[str, Any]:
    return parameters(NOTEBOOKS / f"{page}.ipynb") | given


def test_a_page_trains_the_saes_that_it_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    page = NOTEBOOKS / "dead_features.ipynb"
    given = preset("smoke", page)
    rerun(page, tmp_path / "out.ipynb", given)
    trained = {RunSpec(**json.loads(place.read_text())) for place in (tmp_path / "store").glob("*/spec.json")}
    assert trained == set(asked("dead_features", of("dead_features", **given)))


@pytest.mark.parametrize("model", PLANS)
def test_the_pages_ask_for_what_is_planned(model: str) -> None:
    assert {page.stem for page in NOTEBOOKS.glob("*.ipynb") if "use_published" in parameters(page)} == set(PAGES)
    given = {page: preset(model, NOTEBOOKS / f"{page}.ipynb") if model != "embedded" else {} for page in PAGES}
    specs = {spec for page in PAGES for spec in asked(page, of(page, **given[page]))}
    assert specs == set(PLANS[model].specs)


def test_a_page_says_what_is_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    name, page = "weight_tying", of("weight_tying")
    specs = asked(name, page)
    there = sum(spec in published() for spec in specs)
    assert ahead(name, page).startswith(f"{len(specs)} SAEs: {there} published, 0 in the store")
    assert ahead(name, page).endswith("; 0 to train")
    scratch = ahead(name, page | {"use_published": False})
    assert scratch.startswith(f"{len(specs)} SAEs: 0 published, 0 in the store; {len(specs)} to train, in about ")
    training, measuring = scratch.split("; CE recovered of ")
    other_size = ahead(name, page | {"eval_tokens": 4096})  # of which there is no record
    assert other_size.split("; CE recovered of ") == [training, f"{len(specs)} takes about a minute more"] != measuring
    (tmp_path / "store" / specs[0].name).mkdir(parents=True)
    (tmp_path / "store" / specs[0].name / "spec.json").write_text("{}")
    assert f"1 in the store; {len(specs) - 1} to train" in ahead(name, page | {"use_published": False})
    assert ahead("geometry", of("geometry")) == ""
    assert "that SAELens trains" in ahead("own_work", of("own_work"))
    assert "not known of mine" in ahead(name, page | {"model": "mine"})


@pytest.mark.parametrize(
    ("name", "given", "trained"),
    [
        ("stability", {"read_tokens": 65_536}, 48),  # of which other SAEs have records
        ("stability", {"watched_ks": [12]}, 6),  # SAEs that no other measure of the page asks for
        ("is_it_the_constraint", {"read_tokens": 65_536}, 12),
        ("feature_quality", {"read_tokens": 65_536}, 12),
    ],
)
def test_a_measure_that_is_not_published_is_counted(
    name: str, given: dict[str, Any], trained: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    assert f"; {trained} to train, in about" in ahead(name, of(name, **given))


def test_a_page_of_a_measure_says_what_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    assert ahead("measure_error", of("measure_error")).startswith("6 SAEs: 0 published, 0 in the store; 6 to train, in")
    assert ahead("measure_steering", of("measure_steering")).startswith("2 SAEs: 0 published")


def test_what_several_pages_train_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    measures: dict[Path, dict[str, Any]] = {
        NOTEBOOKS / f"{page}.ipynb": {} for page in ("measure_error", "measure_seeds", "geometry")
    }
    assert in_all(measures).startswith("3 pages; 6 SAEs to train, in about ")
    of_gemma = {page: given | {"model": "gemma-3-270m"} for page, given in list(measures.items())[:1]}
    assert in_all(of_gemma).startswith("1 page; 6 SAEs to train, in about ")
    assert in_all({NOTEBOOKS / "geometry.ipynb": {}}) == "1 page; 0 SAEs to train"


@pytest.mark.parametrize(
    ("page", "given", "says"),
    [
        ("stability", {"activations": []}, "activations is []; it names one or more of batchtopk, "),
        ("recovered_ce", {"penalties": []}, "penalties is [], and activations has relu, p_anneal: give penalties, or"),
        ("bimodality", {"sae_id": "block"}, "sae_id is 'block', of a release: give published_sae too"),
        ("own_work", {"published_sae": "./nosuch"}, "published_sae is ./nosuch, and there is no such folder"),
        ("geometry", {"length_v": -1.0}, "length_v is -1; a length is above 0"),
        ("geometry", {"angle_v": float("inf")}, "angle_v is inf; it is a finite number"),
        ("cost", {"record": "nosuch"}, "record: no record nosuch here or in "),
    ],
)
def test_what_would_fail_in_the_notebook_is_told_before(page: str, given: dict[str, Any], says: str) -> None:
    (found,) = problems(page, of(page), given)
    assert found.startswith(says)


def test_a_page_of_which_nothing_is_published_is_refused_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    with pytest.raises(
        results.NothingPublished, match=r"scr: nothing of its 24 SAEs is published yet \(recovery\): -p"
    ):
        rerun(NOTEBOOKS / "scr.ipynb", tmp_path / "out.ipynb", {})
    check_published("scr", of("scr", use_published=False))
    check_published("features", of("features"))  # it says so itself, and has other models
