"""Errors for the person who reads them: a notebook shows their one line, and no stack trace."""

from __future__ import annotations


class _OneLine:
    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a stack trace."""
        return [f"{type(self).__name__}: {self}"]


class NotFound(_OneLine, FileNotFoundError):
    """What was asked for is not where it was said to be."""


class NoAccess(_OneLine, PermissionError):
    """It is there, for those who have logged in."""


class NotInstalled(_OneLine, ModuleNotFoundError):
    """It needs a package that only some uses of this project need."""


class Unreachable(_OneLine, ConnectionError):
    """It may be there, behind a network that does not answer."""


def one_line(error: Exception) -> str:
    """What another library says, in one line, cut where it is long."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}..."
