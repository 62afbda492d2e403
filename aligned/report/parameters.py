"""The parameters of a notebook: what stands in its `parameters` cell, and in the presets."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from difflib import get_close_matches
from operator import add, floordiv, mul, sub, truediv
from pathlib import Path
from typing import Any

import yaml

from aligned.checks import said, unknown
from aligned.report.written import Yaml

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
Parameters = dict[str, Any]


def parameters(notebook: Path) -> Parameters:
    """The names in a notebook's `parameters` cell, with the values that stand there.

    Raises:
        FileNotFoundError: no such notebook; the message names those that there are.
        ValueError: no notebook; the cell is no Python, or a value must be computed; names the parameter.
    """
    return {name: value for name, (value, _) in _cell(notebook).items()}


def comments(notebook: Path) -> dict[str, str]:
    """What stands about each parameter: behind it, or in the line above."""
    lines = _source(notebook).splitlines()
    found = {}
    for name, (_, statement) in _cell(notebook).items():
        behind = lines[(statement.end_lineno or 0) - 1].encode()[statement.end_col_offset or 0 :].decode()
        above = lines[statement.lineno - 2] if statement.lineno > 1 else ""
        words = behind if "#" in behind else above if above.startswith("# ") else ""
        found[name] = words.strip("# ")
    return found


def _cell(notebook: Path) -> dict[str, tuple[Any, ast.stmt]]:
    """Each parameter's value, and the statement that gives it."""
    code = re.sub("(?m)^[%!].*", "", _source(notebook))  # without what is for IPython
    try:
        statements = ast.parse(code).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: the parameters cell is no Python (line {error.lineno}: {error.msg})") from error
    found: dict[str, tuple[Any, ast.stmt]] = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = _value(statement.value), statement
                except (ValueError, TypeError, ArithmeticError) as error:
                    raise ValueError(
                        f"{notebook}: the parameters cell has {target.id} = {ast.unparse(statement.value)}, which is "
                        "no value by itself: write a value there, and compute from it in a cell below"
                    ) from error
    return found


def _source(notebook: Path) -> str:
    """The code of a notebook's `parameters` cell; papermill takes the first."""
    import nbformat

    if not notebook.exists():
        there = sorted(p.stem for p in notebook.parent.glob("*.ipynb"))
        near = f" (is it {near[0]}?)" if (near := get_close_matches(notebook.stem, there, 1)) else ""
        listed = ", ".join(there) or "none"
        raise FileNotFoundError(f"no notebook {notebook}{near}; in {notebook.parent} there are: {listed}")
    try:
        cells = nbformat.read(notebook, 4).cells
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"{notebook} is no notebook that can be read ({type(error).__name__}: {error})") from error
    return next((cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), "")


def _value(of: ast.expr) -> Any:
    """What an expression is that needs no names: a literal, arithmetic such as 2**10, or a list of these."""
    if isinstance(of, ast.BinOp) and type(of.op) in _ARITHMETIC:
        return _ARITHMETIC[type(of.op)](_value(of.left), _value(of.right))
    if isinstance(of, ast.UnaryOp) and isinstance(of.op, ast.USub):
        return -_value(of.operand)
    if isinstance(of, ast.List):
        return [_value(item) for item in of.elts]
    return ast.literal_eval(of)


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv, ast.FloorDiv: floordiv, ast.Pow: pow,
}  # fmt: skip


def preset(name: str, notebook: Path) -> Parameters:
    """A notebook's part of `presets/<name>.yml`.

    Raises:
        FileNotFoundError: no such preset; the message names those that there are.
        ValueError: a file that is none, or that names a notebook that is not there; says where and what.
    """
    folder = notebook.parent / "presets"
    place = folder / f"{name}.yml"
    if not place.exists():
        raise FileNotFoundError(
            f"no preset {name!r}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yml')))}"
        )
    try:
        parts = yaml.load(place.read_text(encoding="utf-8"), Yaml) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{place} is no YAML that can be read ({' '.join(str(error).split())})") from error
    if not isinstance(parts, dict):
        raise ValueError(f"{place} holds {said(parts)}; it has a line for each notebook, and under it its parameters")
    if wrong := unknown(map(str, parts), ["note", *(page.stem for page in notebook.parent.glob("*.ipynb"))]):
        raise ValueError(f"{place} has values for {wrong}; there is no such notebook in {notebook.parent}")
    of = parts.get(notebook.stem) or {}
    if not isinstance(of, dict):
        raise ValueError(f"{place}: {notebook.stem} is {said(of)}; a line for each parameter is needed, NAME: VALUE")
    return of


def preset_of(model: str, notebook: Path) -> str:
    """The preset that is made for a language model, "" where none is: its layer and its penalties are right for that
    model only."""
    there = sorted(place.stem for place in (notebook.parent / "presets").glob("*.yml"))
    return next((name for name in there if preset(name, notebook).get("model") == model), "")
