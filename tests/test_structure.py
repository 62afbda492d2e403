"""Imports run one way: a file imports from its own folder and from those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest

ALIGNED = Path(__file__).parents[1] / "aligned"
# The house, from the ground up. What stands in one row knows nothing of the rest of that row.
FLOORS = (
    ("errors",),
    ("checks",),
    ("alignment", "files", "methods", "precision", "progress"),
    ("sae", "provenance", "language"),
    ("spec", "formats"),
    ("interop", "training"),
    ("store", "evals"),
    ("report", "exercises"),
    ("cli",),
    ("__main__",),
)
FLOOR = {part: number for number, row in enumerate(FLOORS) for part in row}


def imported(place: Path) -> Iterator[tuple[int, str]]:
    """The modules of `aligned` that a file imports, each with its line."""
    for node in ast.walk(ast.parse(place.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "aligned")
        elif isinstance(node, ast.ImportFrom) and node.module == "aligned":
            yield from ((node.lineno, f"aligned.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aligned."):
            yield node.lineno, str(node.module)


def wrong(place: Path, root: Path = ALIGNED) -> list[str]:
    """The imports of a file that run upwards or across."""
    own = place.relative_to(root).with_suffix("").parts[0]
    return [
        f"{place.relative_to(root)}, line {line}: {own} imports {module}"
        for line, module in imported(place)
        if (part := module.split(".")[1] if "." in module else "__init__") != own
        and FLOOR.get(part, len(FLOORS)) >= FLOOR[own]
    ]


FILES = [place for place in sorted(ALIGNED.rglob("*.py")) if place != ALIGNED / "__init__.py"]


@pytest.mark.parametrize("place", FILES, ids=lambda place: str(place.relative_to(ALIGNED)))
def test_imports_run_one_way(place: Path) -> None:
    assert not wrong(place)


@pytest.mark.parametrize(
    "line", ["from aligned import evals", "from aligned.report.claims import bimodal", "import aligned.store.runs"]
)
def test_an_import_that_runs_upwards_or_across_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    place = tmp_path / "store" / "runs.py"
    place.write_text(f"import torch\n{line}\n")
    found = wrong(place, tmp_path)
    if "store" in line:  # its own folder
        assert not found
    else:
        assert len(found) == 1
        assert "line 2" in found[0]


@pytest.mark.parametrize("folder", sorted(place.parent for place in ALIGNED.rglob("__init__.py")), ids=lambda f: f.name)
def test_no_name_of_a_folder_hides_one_of_its_files(folder: Path) -> None:
    """`aligned.evals.scr` is a function: then no file may be called so."""
    package = import_module(".".join(folder.relative_to(ALIGNED.parent).parts))
    files = {info.name for info in iter_modules([str(folder)])} - {"__main__"}
    assert not [name for name in files if not isinstance(getattr(package, name, ast), ModuleType)]
