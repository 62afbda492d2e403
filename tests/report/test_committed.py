"""The committed pages say what their code says of the published records: no page is older than these."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from IPython.display import Markdown

from aligned.report.parameters import NOTEBOOKS
from aligned.report.wanted import PAGES
from aligned.store import runs
from tests.drawn import drawn


def committed(page: Path) -> list[str | None]:
    """The Markdown of each cell that ends in a value; None where it shows something else."""
    cells = [cell for cell in nbformat.read(page, 4).cells if cell.cell_type == "code"]
    ends = [cell for cell in cells if (body := ast.parse(cell.source).body) and isinstance(body[-1], ast.Expr)]
    results = [[out for out in cell.outputs if out.output_type == "execute_result"] for cell in ends]
    return [of[0].data.get("text/markdown") if of else None for of in results]


@pytest.mark.parametrize("name", [*PAGES, "scorecard", "toy_to_gemma", "cost"])
def test_a_committed_page_says_what_the_records_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(runs, "_train", None)  # to train would be an error
    page = NOTEBOOKS / f"{name}.ipynb"
    _, shown = drawn(page, {}, monkeypatch)
    there = committed(page)
    assert len(there) == len(shown)
    told = [(was, now.data) for was, now in zip(there, shown) if isinstance(now, Markdown)]
    assert told
    for was, now in told:
        assert was == now, f"{name} is older than the records: `aligned rerun {name} -o notebooks/{name}.ipynb`"
