"""A page's cells, run in this process: what every new kernel spends on imports, on compiling and on reading the
installed packages is spent once. (`make test` runs every page in a kernel of its own besides, by nbval.)"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

import aligned
from aligned.report import plots, results
from aligned.report.parameters import parameters
from aligned.report.rerun import checked
from aligned.report.wanted import PAGES, wanted
from aligned.spec import RunSpec

SOLUTION = re.compile(r"\} Solution\n:class: dropdown\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?:^|`|\n)(?:\.venv/bin/)?aligned ((?:\\\n|[^`\n])+)")


def prose(page: Path) -> str:
    """The words of a page, be it Markdown or a notebook."""
    if page.suffix == ".md":
        return page.read_text()
    return "\n".join(cell.source for cell in nbformat.read(page, 4).cells if cell.cell_type == "markdown")


def solutions(page: Path) -> list[str]:
    """The code in the solutions of a page's exercises, imports first."""
    code = []
    for words in SOLUTION.findall(prose(page)):
        for span in re.findall(r"`([^`\n]+)`", words):
            try:
                ast.parse(span)
            except SyntaxError:
                continue  # a command, or words
            if re.search(r"[(\[]| = |import ", span) and "..." not in span:
                code.append(span)
    return sorted(code, key=lambda span: "import " not in span)


def drawn(page: Path, given: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[object]]:
    """Run a page with these parameters in the place of its own. It has to ask for the records that `wanted` foresees.

    Returns:
        The names that stand at its end, and what its cells show: the value of each cell's last line, if it has one.
    """
    monkeypatch.setattr(plots, "style", lambda: None)  # it asks for a kernel
    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    shown: list[object] = []
    values = checked(page, given)
    asked: set[tuple[RunSpec, str, int]] = set()
    records = results.records

    def noted(specs: Any, size: int, use_published: bool = True, measure: str = "recovery") -> Any:
        asked.update((of, measure, size) for of in specs if isinstance(of, RunSpec))
        return records(specs, size, use_published, measure)

    monkeypatch.setattr(results, "records", noted)
    monkeypatch.setattr(aligned, "records", noted, raising=False)
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
    if page.stem in PAGES:
        of_page = wanted(page.stem, parameters(page) | values)
        assert asked == {(spec, of.measure, of.size) for of in of_page for spec in of.specs}
    return names, shown
