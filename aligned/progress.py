"""Progress bars; in a log, where a bar would be drawn again and again, a line every half minute.

A notebook's front end draws bars as a terminal does.
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any, TextIO, cast

import tqdm as bars

EVERY = 30.0  # seconds between a bar's lines in a log


def tqdm(*of: Any, **given: Any) -> bars.tqdm:
    """`tqdm.tqdm`, on stderr."""
    return bars.tqdm(*of, file=calm(sys.stderr), **given)


def calm(to: TextIO) -> TextIO:
    """What to write bars to so that they end up in `to`: itself where bars are drawn, else `Lines`."""
    drawn = to.isatty() or type(to).__module__.startswith("ipykernel")
    return to if drawn else cast(TextIO, Lines(to))


class Lines(io.TextIOBase):
    """Text on its way to a log. A line that is drawn over (it ends with a carriage return) gets there at most every
    `EVERY` seconds, as a line of its own; every other line, such as the last state of a bar, at once."""

    def __init__(self, to: TextIO) -> None:
        self.to, self.line, self.last = to, "", time.monotonic()

    def write(self, text: str) -> int:
        for part in text.splitlines(keepends=True):
            self.line += part
            if part.endswith("\n"):
                self._pass_on()
            elif part.endswith("\r"):
                if self.line.strip() and time.monotonic() - self.last >= EVERY:
                    self._pass_on()
                self.line = ""
        return len(text)

    def flush(self) -> None:
        self.to.flush()

    def _pass_on(self) -> None:
        self.to.write(f"{self.line.rstrip()}\n")
        self.line, self.last = "", time.monotonic()
