"""Bars are drawn for who watches; a log gets a line now and then."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from aligned import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that this module sees."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def training(to: io.StringIO, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a bar of 1,000 updates, in 100 seconds, writes; in lines as they were drawn."""
    monkeypatch.setattr(sys, "stderr", to)
    with progress.tqdm(total=1000, desc="training", disable=False, mininterval=0, miniters=1) as bar:
        for _ in range(1000):
            clock[0] += 0.1
            bar.update()
    return to.getvalue().replace("\r", "\n").splitlines()


def test_a_log_gets_a_line_every_half_minute_and_the_end(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    lines = training(log, clock, monkeypatch)
    assert [line.partition("|")[0].split() for line in lines] == [
        ["training:", done] for done in ("30%", "60%", "90%", "100%")
    ]
    assert "\r" not in log.getvalue()


def test_a_terminal_sees_the_bar_move(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(training(Terminal(), clock, monkeypatch)) > 1000


def test_what_is_no_bar_gets_to_a_log_at_once_and_whole() -> None:
    log = io.StringIO()
    to = progress.calm(log)
    for said in ("one\n", "\n", "half a ", "line\r\n", "  indented\n", "drawn over\rlast\n"):
        to.write(said)
    assert log.getvalue() == "one\n\nhalf a line\n  indented\nlast\n"


def test_every_bar_is_made_there() -> None:
    sources = Path(progress.__file__).parent.rglob("*.py")
    assert [f.name for f in sources if re.search(r"^\s*(from|import) tqdm", f.read_text(), re.M)] == ["progress.py"]
