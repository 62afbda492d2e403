"""Every figure's notebook on a language model of every family, on Python and on English text, in smoke mode: ten pairs
in `make test`, all of them in `make test-all`. What the solutions of its exercises say to write in a further cell is
run too."""

from __future__ import annotations

from itertools import cycle, product
from pathlib import Path

import pytest

from aligned.language.text import ENGLISH, INSTALLED
from aligned.report.parameters import NOTEBOOKS, parameters, preset
from tests.drawn import drawn, solutions
from tests.folders import FAMILIES, make

FIGURES = sorted(page.stem for page in NOTEBOOKS.glob("*.ipynb") if "model" in parameters(page))
# Ten pages, those first whose solutions hold code, and the families in turn.
FEW = sorted(FIGURES, key=lambda figure: not solutions(NOTEBOOKS / f"{figure}.ipynb"))[:10]
IN_TURN = dict(zip(FEW, cycle(FAMILIES)))
# Each page reads English with every second family, and each family with every second page.
PAIRS = [
    pytest.param(
        figure,
        family,
        (INSTALLED, ENGLISH)[(i + j) % 2],
        marks=[] if IN_TURN.get(figure) == family else [pytest.mark.all],
    )
    for (i, figure), (j, family) in product(enumerate(FIGURES), enumerate(FAMILIES))
]
# What these show rests on labels of the tokens.
LABELLED = {"feature_quality", "features", "measure_concepts", "measure_scr", "measure_steering", "scr"}


def test_the_pairs_of_make_test_hold_every_family_and_every_solution() -> None:
    few = [pair.values for pair in PAIRS if not pair.marks]
    assert len(few) == 10
    assert {family for _, family, _ in few} == set(FAMILIES)
    assert {figure for figure, _, _ in few} >= {f for f in FIGURES if solutions(NOTEBOOKS / f"{f}.ipynb")}
    assert {figure for figure, _, text in few if text == ENGLISH} & LABELLED


def test_every_page_and_every_family_reads_english() -> None:
    english = [pair.values for pair in PAIRS if pair.values[2] == ENGLISH]
    assert {figure for figure, _, _ in english} == set(FIGURES) >= LABELLED
    assert {family for _, family, _ in english} == set(FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of every family."""
    place = tmp_path_factory.mktemp("models")
    return {family: make(family, place / family) for family in FAMILIES}


@pytest.mark.parametrize(("figure", "family", "text"), PAIRS)
def test_a_notebook_runs_on_another_model(
    figure: str,
    family: str,
    text: str,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    page, model = NOTEBOOKS / f"{figure}.ipynb", str(folders[family])
    names, shown = drawn(page, preset("smoke", page) | {"model": model, "layer": 1, "text": text}, monkeypatch)
    said = "\n".join([capsys.readouterr().out, *(str(getattr(output, "data", "")) for output in shown)])
    assert model in said
    assert figure not in LABELLED or ("labels that any text has" in said) == (text == ENGLISH)
    for code in solutions(page):
        exec(code, names)
