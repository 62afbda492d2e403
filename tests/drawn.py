"""A page's cells, run in this process: what every new kernel spends on imports, on compiling and on reading the
installed packages is spent once. (`make test` runs every page in a kernel of its own besides, by nbval.)"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

from aligned.report import plots
from aligned.report.rerun import checked


def drawn(page: Path, given: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[object]]:
    """Run a page with these parameters in the place of its own.

    Returns:
        The names that stand at its end, and what its cells show: the value of each cell's last line, if it has one.
    """
    monkeypatch.setattr(plots, "style", lambda: None)  # it asks for a kernel
    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    shown: list[object] = []
    values = checked(page, given)
    for cell in nbformat.read(page, 4).cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, page.stem, "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), page.stem, "eval"), names))
            plt.close("all")
        if "parameters" in cell.metadata.get("tags", ()):
            names |= values
    return names, shown
