"""What the README, the book and the pages say to type is understood."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from aligned.cli import aligned, main
from tests.drawn import COMMAND, prose
from tests.folders import make

ROOT = Path(__file__).parents[1]
PROSE = [*ROOT.glob("*.md"), *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")]
TYPED = sorted(
    {
        (place.name, " ".join(shlex.split(command.replace("\\\n", " "), comments=True)))
        for place in PROSE
        for command in COMMAND.findall(prose(place))
    }
)
RERUN = [
    pytest.param(line, id=f"{name}: {line}") for name, line in TYPED if line.startswith("rerun ") and "NAME" not in line
]


def test_the_prose_has_commands() -> None:
    assert len(TYPED) > 20
    assert len(RERUN) > 8


@pytest.mark.parametrize("line", RERUN)
def test_a_rerun_that_is_suggested_has_pages_parameters_and_values(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `-o` it would run; without, every value is checked and what it would train is listed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if "~/models/mine" in line:
        make("gpt2", tmp_path / "models" / "mine")
    arguments = shlex.split(line)
    if "-o" in arguments:
        at = arguments.index("-o")
        del arguments[at : at + 2]
    assert main(arguments) == 0, capsys.readouterr().err
    assert "Nothing was run" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "line"), TYPED)
def test_a_command_that_is_named_is_there(name: str, line: str) -> None:
    group: click.Command = aligned
    for word in line.split():
        if not isinstance(group, click.Group):
            break
        if word == "--help":
            return
        assert word in group.commands, f"{name}: aligned {line}"
        group = group.commands[word]
