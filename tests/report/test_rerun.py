"""The strict front for papermill."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import nbformat
import pytest

from aligned.language import wheels
from aligned.report.rerun import (
    NOTEBOOKS,
    Words,
    checked,
    chosen,
    described,
    figure_with,
    page_with,
    parameters,
    preset,
    preset_of,
    rerun,
    typed,
    written,
)

FIGURE = NOTEBOOKS / "recovered_ce.ipynb"


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    nb = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nb.cells = [
        nbformat.v4.new_code_cell(
            "width = 3\nrate = 0.1\nseeds = [0, 1]\nname = 'a'", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("print(width * rate, seeds, name)\nassert width < 100"),
    ]
    nbformat.write(nb, tmp_path / "nb.ipynb")
    return tmp_path / "nb.ipynb"


def test_a_changed_parameter_reaches_the_notebook(notebook: Path, tmp_path: Path) -> None:
    out = rerun(notebook, tmp_path / "out.ipynb", {"width": 5, "rate": 1, "seeds": [7]})
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "5.0 [7] a\n"


def test_the_outputs_are_those_of_the_cells_and_say_nothing_of_the_machine(notebook: Path, tmp_path: Path) -> None:
    nb = nbformat.read(notebook, 4)
    nb.cells[-1].source = "import sys\nprint('a result')\nprint(sys.executable, file=sys.stderr)"
    nbformat.write(nb, notebook)
    out = rerun(notebook, tmp_path / "out.ipynb", {})
    assert [output.text for output in nbformat.read(out, 4).cells[-1].outputs] == ["a result\n"]
    assert sys.prefix not in out.read_text()


def test_who_watches_sees_the_cells_and_what_they_print(notebook: Path, tmp_path: Path) -> None:
    seen = io.StringIO()
    rerun(notebook, tmp_path / "out.ipynb", {"width": 5}, seen)
    assert "0.5 [0, 1] a\n" in seen.getvalue()
    assert "nb: 3 of 3 cells done" in seen.getvalue()  # papermill adds one, of the parameters that were given


def test_nothing_stands_beside_a_page_while_it_runs_so_a_killed_rerun_leaves_nothing(
    notebook: Path, tmp_path: Path
) -> None:
    nb = nbformat.read(notebook, 4)
    nb.cells[-1].source = f"import os\nprint(os.listdir({str(tmp_path)!r}))"
    nbformat.write(nb, notebook)
    out = rerun(notebook, tmp_path / "out.ipynb", {})
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == "['nb.ipynb']\n"


def test_a_log_gets_no_line_for_every_update_of_a_bar(notebook: Path, tmp_path: Path) -> None:
    nb = nbformat.read(notebook, 4)
    nb.cells[
        -1
    ].source = "import sys\nfor step in range(300):\n    print(f'step {step}', end='\\r', file=sys.stderr, flush=True)"
    nbformat.write(nb, notebook)
    log = io.StringIO()
    rerun(notebook, tmp_path / "out.ipynb", {}, log)
    assert "cells done" in log.getvalue()
    assert log.getvalue().count("step") < 3


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"with": 3}, ValueError, r"no parameter 'with' .is it width\?.; it has width, rate"),
        ({"width": "wide"}, TypeError, r"width is 'wide' \(str\); it must be of type int"),
        ({"width": 5.5}, TypeError, "width is 5.5"),
        ({"width": True}, TypeError, "width is True"),
        ({"rate": "1e-4"}, TypeError, "rate is '1e-4'"),
        ({"seeds": 3}, TypeError, r"seeds is 3 \(int\); it must be of type list of int"),
        ({"seeds": [1, "x"]}, TypeError, r"seeds\[1\] is 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    notebook: Path, tmp_path: Path, given: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        rerun(notebook, tmp_path / "out.ipynb", given)
    assert list(tmp_path.iterdir()) == [notebook]


@pytest.mark.parametrize(
    ("page", "given", "says"),
    [
        ("recovered_ce", {"constraint": "none"}, ["'none', the standard SAE, with which the page compares another"]),
        (
            "recovered_ce",
            {"constraint": "alligned", "layer": 9, "activations": ["relu", "tpok"], "ks": [0], "tokens": 5, "lr": 2.0},
            [
                "it is one of none, projected",
                "0 to 5",
                "tpok",
                "ks: sparsity is 0",
                "one batch, 2048",
                "from 0 to 1",
            ],
        ),
        ("recovered_ce", {"context": 100_000}, ["blocks of at most"]),
        ("recovered_ce", {"eval_tokens": 10}, ["eval_tokens is 10; it is at least one block, context = 256"]),
        ("recovered_ce", {"d_sae": 4}, ["from 1 to d_sae = 4"]),
        ("recovered_ce", {"seeds": [1, 1]}, ["1 or more different whole numbers"]),
        ("recovered_ce", {"settings": []}, ["no parameter 'settings'"]),
        ("recovered_ce", {"budgets": [{"tokns": 3}]}, ["tokns"]),
        ("measure_seeds", {"seeds": [0]}, ["seeds is [0]; it has 2 or more"]),
        ("measure_scr", {"windows": [4, 4]}, ["windows is [4, 4]; it has 3 whole numbers from 4"]),
        ("measure_scr", {"windows": [4, 0, -1]}, ["windows is [4, 0, -1]"]),
        ("scr", {"windows": 2, "probed": 0}, ["windows is 2; it is a whole number from 32", "probed is 0"]),
        ("measure_steering", {"steered": -1}, ["steered is -1; it is a whole number from 1"]),
        ("measure_error", {"activation": "topk", "sparsity": 4096}, ["from 1 to d_sae = 2048"]),
        (
            "measure_error",
            {"activation": "relu"},
            ["sparsity 16 is that of topk: give sparsity too (a penalty's coefficient"],
        ),
        ("measure_error", {"activation": "tpok"}, ["tpok"]),
        ("own_work", {"k": 0}, ["k: sparsity is 0"]),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_runs_all_at_once(
    page: str, given: dict[str, object], says: list[str]
) -> None:
    with pytest.raises(ValueError, match=re.escape(says[0])) as error:
        checked(NOTEBOOKS / f"{page}.ipynb", given)
    assert [word for word in says if word not in str(error.value)] == []
    assert all(line.startswith("  ") for line in str(error.value).splitlines()[1:])  # several, a line each


@pytest.fixture
def no_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real model is installed, or in the store."""
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)


def test_a_model_and_a_text_that_are_not_there_are_said_with_all_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").touch()
    given = {"model": str(tmp_path / "none"), "text": "nowhere.jsonl", "tokens": 5}
    with pytest.raises(
        ValueError, match=r"one batch, 2048\n  no model at '.*none': give .*\n  no text at 'nowhere\.jsonl'"
    ):
        checked(FIGURE, given)
    for text, says in ((tmp_path, "holds no .txt"), (tmp_path / "notes.pdf", "not text that can be read here")):
        with pytest.raises(ValueError, match=says):
            checked(FIGURE, {"text": str(text)})
    with pytest.raises(ValueError, match="no model at 'gemma': give 'embedded', 'gemma-3-270m'"):
        checked(FIGURE, {"model": "gemma"})
    checked(FIGURE, {"model": "somebody/something@main", "text": "somebody/texts"})  # the hub may have them


def test_a_real_model_is_asked_for_by_pages_that_read_it_and_by_no_other(no_wheels: None) -> None:
    given = preset("gemma-3-270m", FIGURE)
    assert checked(FIGURE, given)["model"] == "gemma-3-270m"  # its records are published
    measure = NOTEBOOKS / "measure_error.ipynb"
    for page, values in ((FIGURE, {**given, "use_published": False}), (measure, preset("gemma-3-270m", measure))):
        with pytest.raises(ValueError, match="the model 'gemma-3-270m' is not installed: `make real`"):
            checked(page, values)


def test_a_value_of_the_wrong_type_hides_no_other() -> None:
    with pytest.raises(ValueError, match=r"constraint is 'none'.*\n  tokens is 1.5 .float."):
        checked(FIGURE, {"constraint": "none", "tokens": 1.5})


def test_a_penalty_goes_with_an_activation_that_takes_one() -> None:
    given = {"activation": "relu", "sparsity": 0.1}
    assert checked(NOTEBOOKS / "measure_error.ipynb", given) == given


def test_every_parameter_is_explained_and_its_words_are_listed() -> None:
    """On the page, and by `aligned rerun NAME`."""
    for page in NOTEBOOKS.glob("*.ipynb"):
        for line in described(page, {})[: len(parameters(page))]:
            assert re.search(r"\]: \w", line), f"{page.stem}: {line}"
    said = "\n".join(described(FIGURE, {"constraint": "tied"}))
    assert "constraint = 'tied' (by itself 'projected')  [str]: the aligned arm" in said
    assert "may be projected, householder, rescaled, detached, tied, soft, post_step" in said
    assert re.search("activations = .*matryoshka", said)


def test_a_folders_own_configuration_says_which_layers_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_layer": 2, "n_positions": 64}')
    with pytest.raises(
        ValueError, match=r"(?s)layer is 3; .* has 2 layers, 0 to 1\n  context is 256; .* at most 64 tokens"
    ):
        checked(FIGURE, {"model": str(tmp_path)})


@pytest.mark.parametrize(
    ("page", "given", "says"),
    [
        ("bimodality", {"model": "smollm2-135m", "layer": 30}, "layer is 30; smollm2-135m has 30 layers, 0 to 29"),
        ("bimodality", {"model": "gemma-3-270m", "layer": 18}, "layer is 18; gemma-3-270m has 18 layers, 0 to 17"),
        ("toy_to_gemma", {"models": ["gemma"]}, "models is ['gemma']; it names one or more of embedded, gemma-3-270m"),
        ("toy_to_gemma", {"models": []}, "models is []; it names"),
        ("toy_to_gemma", {"activations": ["jumprelu"]}, "activations is ['jumprelu']; it names one or more of "),
    ],
)
def test_what_no_real_model_has_is_told_before_anything_runs(page: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        checked(NOTEBOOKS / f"{page}.ipynb", given)


def test_a_failed_run_keeps_what_it_got_to_and_spoils_nothing(notebook: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    rerun(notebook, out, {})
    before = out.read_text()
    with pytest.raises(RuntimeError, match="AssertionError"):
        rerun(notebook, out, {"width": 1000})
    assert out.read_text() == before
    assert (tmp_path / "failed" / "out.ipynb").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("[1e-3, 2_000]", [0.001, 2000]),
        ("true", True),
        ("[relu, topk]", ["relu", "topk"]),
        ("gpt2-small", "gpt2-small"),
        ("[{lr: 1e-4}]", [{"lr": 1e-4}]),
        ("@%", "@%"),
        ("010", 10),
        ("[010, 011]", [10, 11]),
        ("1:30", "1:30"),
        ("[1:30, relu, 1e-3]", ["1:30", "relu", 0.001]),
        ("no", "no"),
        ("2024-05-01", "2024-05-01"),
        ("=", "="),
        ("&a [*b]", "&a [*b]"),
        ("[" * 400, "[" * 400),
        ("~", None),
        ("-.inf", float("-inf")),
        ("my data #2", "my data #2"),
        ("[a #2, b]", "[a #2, b]"),
    ],
)
def test_values_on_the_command_line(text: str, value: object) -> None:
    assert written(text) == value
    assert type(written(text)) is type(value)


WORDS = ["my data #2.jsonl", "2024", "2024-05-01", "no", "a: b", "[1]", "'quoted'", "010", "1e-3", "a, b", "", "None"]


@pytest.mark.parametrize("words", WORDS)
def test_words_for_a_string_are_taken_whole(words: str) -> None:
    assert typed("text", Words(words), "a.jsonl") == words
    assert type(typed("text", Words(words), "a.jsonl")) is str


@pytest.mark.parametrize(
    ("words", "like", "value"),
    [
        ("-1e-4", 0.1, -0.0001),
        ("010", 3, 10),
        ("1e3", 3, 1000),
        ("3", None, 3),
        ("3,4", [0], [3, 4]),
        ("relu, top #1", ["a"], ["relu", "top #1"]),
        ("[1e-3, 2]", [0.1], [0.001, 2.0]),
        ("a #1", None, "a #1"),
        ("None", None, None),
        ("relu", ["topk"], ["relu"]),
    ],
)
def test_words_are_read_as_the_parameters_type_asks(words: str, like: object, value: object) -> None:
    found = typed("it", Words(words), like)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("words", "like"), [("1:30", 3), ("no", True), ("[a #1, b]", ["a"]), ("2024-05-01", 3)])
def test_words_that_are_of_another_type_are_refused(words: str, like: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"it is {words!r} (str); it must be of type")):
        typed("it", Words(words), like)


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
    with pytest.raises(ValueError, match="mine: there is no parameter 'n', for no cell of it has the tag `parameters`"):
        checked(with_parameters("n = 3", tmp_path, ()), {"n": 5})


def test_a_preset_is_read_by_the_same_rules(tmp_path: Path) -> None:
    place = with_parameters("rate = 0.1\nname = 'a'", tmp_path)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "few.yml").write_text("mine: {rate: 1e-3, name: no}  # a comment\n")
    assert checked(place, preset("few", place)) == {"rate": 0.001, "name": "no"}


def test_a_list_in_itself_is_refused_in_a_line() -> None:
    with pytest.raises(TypeError, match=r"seeds\[0\] is .* \(list of list\); it must be of type int"):
        checked(FIGURE, {"seeds": Words("[&a [*a]]")})


# What a preset holds, and what is said of it.
PRESETS = {
    "a list": ("- nb", r"p\.yml holds \['nb'\]; it has a line for each notebook"),
    "text": ("nb", r"p\.yml holds 'nb'"),
    "no YAML": (
        "# mine\nnb: [",
        r"p\.yml is no YAML that can be read \(while parsing a flow node expected the node content",
    ),
    "no text": ("\0", r"p\.yml is no YAML that can be read \(unacceptable character"),
    "a notebook's part is a list": ("nb: [width]", r"p\.yml: nb is \['width'\]; a line for each parameter is needed"),
    "another notebook": ("nbb: {width: 4}", r"p\.yml has values for nbb \(meant is perhaps nb\); there is no such"),
    "a parameter twice": ("nb:\n  width: 4\n  width: 5", r"p\.yml is no YAML .*line 2: width is given twice"),
    "a notebook twice": ("nb: {width: 4}\nnb: {width: 4}", "nb is given twice"),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_preset_that_is_none_is_named(case: str, notebook: Path, tmp_path: Path) -> None:
    holds, says = PRESETS[case]
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "p.yml").write_text(holds)
    with pytest.raises(ValueError, match=says) as error:
        chosen(str(notebook), {}, "p")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("holds", ["[]", "{half", "{}", ""])
def test_what_is_no_notebook_is_named(holds: str, tmp_path: Path) -> None:
    (tmp_path / "mine.ipynb").write_text(holds)
    with pytest.raises(ValueError, match=r"mine\.ipynb is no notebook that can be read"):
        parameters(tmp_path / "mine.ipynb")


def test_a_place_that_cannot_be_written_is_named_before_anything_runs(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "afile").touch()
    for out, says in (("folder.ipynb", "folder; name a file to write"), ("afile/nb.ipynb", "can't be written")):
        with pytest.raises(OSError, match=says):
            rerun(notebook, tmp_path / out, {})
        with pytest.raises(OSError, match=says):
            page_with(FIGURE, {}, tmp_path / out)
        with pytest.raises(OSError, match=says):
            figure_with(FIGURE, {"seeds": [0]}, "fig-recovered-ce", tmp_path / out)
    with pytest.raises(OSError, match=r"x\.ipynb can't be written"):
        rerun(notebook, Path("/proc/x.ipynb"), {})


def test_an_unknown_notebook_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(FileNotFoundError) as error:
        parameters(NOTEBOOKS / "recovered_xe.ipynb")
    assert all(notebook.stem in str(error.value) for notebook in NOTEBOOKS.glob("*.ipynb"))


def test_a_model_brings_its_preset() -> None:
    page = NOTEBOOKS / "bimodality.ipynb"
    assert preset_of("gemma-3-270m", page) == "gemma-3-270m"
    assert preset_of("EleutherAI/pythia-160m", page) == "pythia-160m"
    assert preset_of("embedded", page) == preset_of("a/folder", page) == ""


@pytest.mark.parametrize("name", [p.stem for p in (NOTEBOOKS / "presets").glob("*.yml")])
def test_every_preset_fits_every_notebook(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "check_there", lambda _: None)  # whether they are installed or not
    for nb in NOTEBOOKS.glob("*.ipynb"):
        checked(nb, preset(name, nb))


def test_the_figures_parameters_are_those_of_the_page() -> None:
    assert parameters(FIGURE)["constraint"] == "projected"
    assert len(parameters(FIGURE)["penalties"]) >= 4
    assert len(parameters(FIGURE)["seeds"]) >= 3
