"""Every figure's notebook on a language model of every family, in smoke mode: in `make test` a family for each
notebook, every family among them; all pairs in `make test-all`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligned.report.rerun import NOTEBOOKS, parameters, preset
from tests.drawn import drawn, solutions
from tests.folders import FAMILIES, make

FIGURES = sorted(page.stem for page in NOTEBOOKS.glob("*.ipynb") if "model" in parameters(page))
PAIRS = [
    pytest.param(figure, family, marks=[] if (i + j) % 5 == 0 else [pytest.mark.all])
    for i, figure in enumerate(FIGURES)
    for j, family in enumerate(FAMILIES)
]


def test_the_pairs_of_make_test_hold_everything() -> None:
    few = [pair.values for pair in PAIRS if not pair.marks]
    assert len(few) >= 10
    assert {figure for figure, _ in few} == set(FIGURES)
    assert {family for _, family in few} == set(FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of every family."""
    place = tmp_path_factory.mktemp("models")
    return {family: make(family, place / family) for family in FAMILIES}


@pytest.mark.parametrize(("figure", "family"), PAIRS)
def test_a_notebook_runs_on_another_model(
    figure: str,
    family: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    page, model = NOTEBOOKS / f"{figure}.ipynb", str(folders[family])
    names, shown = drawn(page, preset("smoke", page) | {"model": model, "layer": 1}, monkeypatch)
    said = [capsys.readouterr().out, *(getattr(output, "data", "") for output in shown)]
    assert any(model in str(part) for part in said)
    for code in solutions(page):  # what the exercises' solutions say to write in a further cell
        exec(code, names)
