"""What may be given: whole numbers, numbers, names and tensors. Each is checked here, and refused in the same words."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from numbers import Real
from reprlib import Repr
from typing import Any

import numpy as np
from torch import Tensor

from aligned.errors import NotInstalled

WHOLE = 2**63 - 1  # the largest that torch takes
PATH, PART = 4096, 150  # bytes of a name, and of what stands between its slashes: a run's folder has that in its name
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def said(value: object) -> str:
    """A value as Python writes it, in one line, cut where it is long."""
    return " ".join(_SHORT.repr(value).split())


def listed(names: Iterable[object]) -> str:
    """a, b and c."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last


def installed(module: str, extra: str) -> None:
    """Raise `NotInstalled` for a module that is not there; it says which extra of this project brings it."""
    if find_spec(module) is None:
        raise NotInstalled(f"{module} is not installed: `make setup`, or `pip install '.[{extra}]'` in the checkout")


def whole(name: str, value: Any, least: int = 0, most: int = WHOLE) -> int:
    """The value as a Python int; whole numbers of NumPy and torch are accepted too.

    Raises:
        TypeError, ValueError: something else, or a number that is not from `least` to `most`; names it.
    """
    allowed = f"it is a whole number from {least:,} to {'2^63 - 1' if most == WHOLE else f'{most:,}'}"
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or _truth(value):
        raise TypeError(f"{name} is {said(value)}; {allowed}")
    if not least <= found <= most:
        raise ValueError(f"{name} is {said(found)}; {allowed}")
    return found


def number(name: str, value: Any, least: float = -np.inf, most: float = np.inf) -> float:
    """A finite number as a Python float. A NumPy float32 becomes the number that it prints, and -0.0 becomes 0.0, so
    that specs with equal numbers have the same name.

    Raises:
        TypeError, ValueError: something else, or a number that is not finite or not from `least` to `most`; names it.
    """
    bounds = f" from {least:g} to {most:g}" if np.isfinite([least, most]).all() else ""
    if not isinstance(value, Real) or _truth(value):
        raise TypeError(f"{name} is {said(value)}; it is a number{bounds}")
    try:
        found = float(str(value) if isinstance(value, np.floating) else value) + 0.0
    except OverflowError:
        found = np.inf
    if not (np.isfinite(found) and least <= found <= most):
        raise ValueError(f"{name} is {said(value)}; it is a finite number{bounds}")
    return found


def _truth(value: object) -> bool:
    """Whether it is True or False, which Python counts among the whole numbers."""
    return isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")) == "torch.bool"


def name(field: str, value: Any) -> str:
    """A name or a path that a file system takes.

    Raises:
        TypeError, ValueError: something else; says which field it is of.
    """
    if not isinstance(value, str):
        raise TypeError(f"{field} is {said(value)}; it is a name, a string")
    encoded = value.encode(errors="replace")
    if not value.strip() or re.search("[\0-\x1f\ud800-\udfff]", value):
        raise ValueError(f"{field} is {said(value)}; it is a name of letters, not empty and without control characters")
    if len(encoded) > PATH or max(map(len, encoded.split(b"/"))) > PART:
        raise ValueError(
            f"{field} is {said(value)}, of {len(encoded):,} bytes; a name has {PATH:,} at most, and {PART} between its "
            "slashes"
        )
    return value


def unknown(given: Iterable[str], allowed: Iterable[str]) -> str:
    """The given names that are not allowed, each with the most similar allowed name, if one is close; an empty string
    if all are allowed."""
    allowed = list(allowed)
    near = {of: get_close_matches(of, allowed, 1) for of in given if of not in allowed}
    return ", ".join(f"{of}{f' (meant is perhaps {close[0]})' if close else ''}" for of, close in near.items())


def tensors(**given: Any) -> None:
    """Raise a `TypeError` that names what is no torch tensor."""
    if wrong := [f"{name} is of type {type(of).__name__}" for name, of in given.items() if not isinstance(of, Tensor)]:
        raise TypeError(f"{', '.join(wrong)}; a torch tensor is needed")


def finite(tensors: Mapping[str, Tensor], do: str) -> None:
    """Raise a `ValueError` that names the tensors of an SAE that are not finite, and says what to do."""
    if broken := sorted(name for name, value in tensors.items() if not value.isfinite().all()):
        raise ValueError(f"{', '.join(broken)} of this SAE is not finite; {do}")
