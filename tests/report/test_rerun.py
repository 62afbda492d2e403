"""The strict front for papermill."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import nbformat
import pytest

from aligned.language import wheels
from aligned.report.parameters import NOTEBOOKS, parameters, preset
from aligned.report.rerun import checked, described, figure_with, page_with, rerun
from aligned.report.written import Words

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
        ("measure_seeds", {"seeds": [0]}, ["seeds is [0]; it must have 2 or more"]),
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


def test_a_list_in_itself_is_refused_in_a_line() -> None:
    with pytest.raises(TypeError, match=r"seeds\[0\] is .* \(list of list\); it must be of type int"):
        checked(FIGURE, {"seeds": Words("[&a [*a]]")})


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


@pytest.mark.parametrize("name", [p.stem for p in (NOTEBOOKS / "presets").glob("*.yml")])
def test_every_preset_fits_every_notebook(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "check_there", lambda _: None)  # whether they are installed or not
    for nb in NOTEBOOKS.glob("*.ipynb"):
        checked(nb, preset(name, nb))


def test_the_figures_parameters_are_those_of_the_page() -> None:
    assert parameters(FIGURE)["constraint"] == "projected"
    assert len(parameters(FIGURE)["penalties"]) >= 4
    assert len(parameters(FIGURE)["seeds"]) >= 3
