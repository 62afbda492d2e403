"""Every figure's notebook on a language model of every family, in smoke mode: a dozen pairs in `make test`, which hold
every notebook and every family between them; all of them in `make test-all`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligned.rerun import NOTEBOOKS, parameters, preset
from tests.drawn import drawn
from tests.folders import FAMILIES, make

FIGURES = sorted(page.stem for page in NOTEBOOKS.glob("*.ipynb") if "model" in parameters(page))
PAIRS = [
    pytest.param(figure, family, marks=[] if (i + j) % 4 == 0 else [pytest.mark.all])
    for i, figure in enumerate(FIGURES)
    for j, family in enumerate(FAMILIES)
]


def test_the_pairs_of_make_test_hold_everything() -> None:
    few = [pair.values for pair in PAIRS if not pair.marks]
    assert len(few) >= 10
    assert {figure for figure, _ in few} == set(FIGURES)
    assert {family for _, family in few} == set(FAMILIES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the models and of a store: what pages of one model have in common is trained once."""
    return tmp_path_factory.mktemp("pairs")


@pytest.mark.parametrize(("figure", "family"), PAIRS)
def test_a_notebook_runs_on_another_model(
    figure: str, family: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(place / "store"))
    folder = place / family if (place / family).exists() else make(family, place / family)
    page = NOTEBOOKS / f"{figure}.ipynb"
    _, shown = drawn(page, preset("smoke", page) | {"model": str(folder), "layer": 1}, monkeypatch)
    said = [capsys.readouterr().out, *(getattr(output, "data", "") for output in shown)]
    assert any(str(folder) in str(part) for part in said)
