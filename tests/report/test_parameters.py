"""What stands in a notebook's `parameters` cell, and in presets."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from aligned.report.parameters import NOTEBOOKS, parameters, preset, preset_of
from aligned.report.rerun import checked, chosen, described


def with_parameters(source: str, folder: Path, tags: tuple[str, ...] = ("parameters",)) -> Path:
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})]
    nbformat.write(nb, folder / "mine.ipynb")
    return folder / "mine.ipynb"


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ('s = "a#b"\nn = 3', {"s": "a#b", "n": 3}),
        ('s = "a=b"\nd = {"x": 1}', {"s": "a=b", "d": {"x": 1}}),
        ("n = 2**10\nx = -1e-3 / 2\nns = [2**4, -(2**5)]", {"n": 1024, "x": -0.0005, "ns": [16, -32]}),
        ("n: int = 3\nm: int\na = b = 1", {"n": 3, "a": 1, "b": 1}),
        ("%matplotlib inline\nimport os\nn = 3", {"n": 3}),
        ("ns = [\n  1,  # one\n  2,\n]\ns = (\n  'two'\n  ' words'\n)", {"ns": [1, 2], "s": "two words"}),
        ("n = 1\nn = 2", {"n": 2}),
        ("layer = None", {"layer": None}),
    ],
)
def test_a_parameters_cell_is_read_as_python(source: str, values: dict[str, object], tmp_path: Path) -> None:
    assert parameters(with_parameters(source, tmp_path)) == values


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('import os\np = os.environ["A"]\nn = 3', "p = os.environ['A'], which is no value by itself"),
        ("n = 1 / 0", "n = 1 / 0, which is no value"),
        ("n = 3\nm = = 4", "is no Python (line 2"),
    ],
)
def test_a_value_that_does_not_stand_there_is_named(source: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parameters(with_parameters(source, tmp_path))


def test_a_parameter_without_a_value_takes_any(tmp_path: Path) -> None:
    place = with_parameters("layer = None", tmp_path)
    for value in (3, 0.5, "a", [1], None):
        assert checked(place, {"layer": value}) == {"layer": value}
    assert "  layer = 3 (by itself None)  [any type]" in described(place, {"layer": 3})


def test_what_is_said_of_a_parameter_stands_behind_or_above_it(tmp_path: Path) -> None:
    source = '# the words\ns = "a#b"\nn: int = 3  # how = many\nns = [\n  1,  # no\n]  # these\nm = 4'
    lines = described(with_parameters(source, tmp_path), {})
    assert [line.partition("]: ")[2] for line in lines[:4]] == ["the words", "how = many", "these", ""]


def test_a_notebook_without_parameters_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine: there is no parameter 'n': it takes none"):
        checked(with_parameters("n = 3", tmp_path, ()), {"n": 5})


def test_a_preset_is_read_by_the_same_rules(tmp_path: Path) -> None:
    place = with_parameters("rate = 0.1\nname = 'a'", tmp_path)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "few.yml").write_text("mine: {rate: 1e-3, name: no}  # a comment\n")
    assert checked(place, preset("few", place)) == {"rate": 0.001, "name": "no"}


# What a preset holds, and what is said of it.
PRESETS = {
    "a list": ("- mine", r"p\.yml holds \['mine'\]; it has a line for each notebook"),
    "text": ("mine", r"p\.yml holds 'mine'"),
    "no YAML": (
        "# mine\nmine: [",
        r"p\.yml is no YAML that can be read \(while parsing a flow node expected the node content",
    ),
    "no text": ("\0", r"p\.yml is no YAML that can be read \(unacceptable character"),
    "a notebook's part is a list": (
        "mine: [width]",
        r"p\.yml: mine is \['width'\]; a line for each parameter is needed",
    ),
    "another notebook": ("mien: {width: 4}", r"p\.yml has values for mien \(meant is perhaps mine\); there is no such"),
    "a parameter twice": ("mine:\n  width: 4\n  width: 5", r"p\.yml is no YAML .*line 2: width is given twice"),
    "a notebook twice": ("mine: {width: 4}\nmine: {width: 4}", "mine is given twice"),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_preset_that_is_none_is_named(case: str, tmp_path: Path) -> None:
    holds, says = PRESETS[case]
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "p.yml").write_text(holds)
    with pytest.raises(ValueError, match=says) as error:
        chosen(str(with_parameters("width = 3", tmp_path)), {}, "p")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("holds", ["[]", "{half", "{}", ""])
def test_what_is_no_notebook_is_named(holds: str, tmp_path: Path) -> None:
    (tmp_path / "mine.ipynb").write_text(holds)
    with pytest.raises(ValueError, match=r"mine\.ipynb is no notebook that can be read"):
        parameters(tmp_path / "mine.ipynb")


def test_an_unknown_notebook_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(FileNotFoundError) as error:
        parameters(NOTEBOOKS / "recovered_xe.ipynb")
    assert all(notebook.stem in str(error.value) for notebook in NOTEBOOKS.glob("*.ipynb"))


def test_a_model_brings_its_preset() -> None:
    page = NOTEBOOKS / "bimodality.ipynb"
    assert preset_of("gemma-3-270m", page) == "gemma-3-270m"
    assert preset_of("EleutherAI/pythia-160m", page) == "pythia-160m"
    assert preset_of("embedded", page) == preset_of("a/folder", page) == ""
