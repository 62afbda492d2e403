"""Every figure's notebook on a language model of every family, in smoke mode: a dozen pairs in `make test`, which hold
every notebook and every family between them; all of them in `make test-all`."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from aligned.rerun import NOTEBOOKS, parameters, preset, rerun
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


@pytest.mark.parametrize(("figure", "family"), PAIRS)
def test_a_notebook_runs_on_another_model(
    figure: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    folder = make(family, tmp_path / family)
    page = NOTEBOOKS / f"{figure}.ipynb"
    out = rerun(page, tmp_path / "out.ipynb", preset("smoke", page) | {"model": str(folder), "layer": 1})
    assert any(str(folder) in str(cell.get("outputs")) for cell in nbformat.read(out, 4).cells)
