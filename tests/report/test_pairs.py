"""Every figure's notebook on a language model of every family, in smoke mode: ten pairs in `make test`, all of them in
`make test-all`. What the solutions of its exercises say to write in a further cell is run too."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from aligned.report.rerun import NOTEBOOKS, parameters, preset
from tests.drawn import drawn, solutions
from tests.folders import FAMILIES, make

FIGURES = sorted(page.stem for page in NOTEBOOKS.glob("*.ipynb") if "model" in parameters(page))
# Ten pages, those first whose solutions hold code, and the families in turn.
FEW = sorted(FIGURES, key=lambda figure: not solutions(NOTEBOOKS / f"{figure}.ipynb"))[:10]
IN_TURN = dict(zip(FEW, cycle(FAMILIES)))
PAIRS = [
    pytest.param(figure, family, marks=[] if IN_TURN.get(figure) == family else [pytest.mark.all])
    for figure in FIGURES
    for family in FAMILIES
]


def test_the_pairs_of_make_test_hold_every_family_and_every_solution() -> None:
    few = [pair.values for pair in PAIRS if not pair.marks]
    assert len(few) == 10
    assert {family for _, family in few} == set(FAMILIES)
    assert {figure for figure, _ in few} >= {f for f in FIGURES if solutions(NOTEBOOKS / f"{f}.ipynb")}


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
    for code in solutions(page):
        exec(code, names)
