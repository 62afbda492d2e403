"""The book: it builds from the committed pages, and shows one page that was made again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from aligned.report import book
from aligned.report.parameters import NOTEBOOKS
from aligned.report.rerun import page_with


def test_a_page_that_was_made_again_is_shown_as_the_book_would_and_says_so(tmp_path: Path) -> None:
    """Warnings are errors, so this also says that the committed pages build."""
    out = page_with(NOTEBOOKS / "geometry.ipynb", {"angle_v": 100.0}, tmp_path / "mine.html")
    shown = tmp_path / "mine_files" / "notebooks" / "geometry.html"
    assert f"url={shown.relative_to(tmp_path)}" in out.read_text()
    said = shown.read_text()
    assert "The page geometry was made again with angle_v = 100.0" in said
    assert '<section id="exercises">' in said  # MyST and Sphinx have read it
    assert (tmp_path / "mine_files" / "notebooks" / "scorecard.html").exists()  # where its links lead


def test_half_a_page_of_a_rerun_that_was_killed_does_not_break_the_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a book of two pages."""
    root = tmp_path / "root"
    shutil.copytree(book.ROOT / "book" / "static", root / "book" / "static")
    shutil.copytree(book.ROOT / "book" / "ext", root / "book" / "ext")
    for name in ("_config.yml", "book/references.bib"):
        shutil.copy(book.ROOT / name, root / name)
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n  - file: notebooks/page\n")
    (root / "book" / "index.md").write_text("# The first\n")
    for name in ("page.ipynb", ".running-1/page.ipynb", "failed/page.ipynb"):
        (root / "notebooks" / name).parent.mkdir(exist_ok=True)
        (root / "notebooks" / name).write_text('{"cells": [')
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# The second")]),
        root / "notebooks" / "page.ipynb",
    )
    monkeypatch.setattr(book, "ROOT", root)
    book.build(root / "notebooks", tmp_path / "html")
    assert "The second" in (tmp_path / "html" / "notebooks" / "page.html").read_text()


def test_what_is_no_page_of_the_book_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own.ipynb is no page of the book: give -o .*mine.ipynb"):
        page_with(tmp_path / "own.ipynb", {}, tmp_path / "mine.html")


def test_a_folder_that_is_no_book_is_not_replaced_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "mine_files").mkdir()
    (tmp_path / "mine_files" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine_files is there and is no book of this program"):
        page_with(NOTEBOOKS / "geometry.ipynb", {}, tmp_path / "mine.html")
    with pytest.raises(FileExistsError, match="name another place"):
        book.build(NOTEBOOKS, tmp_path / "mine_files")
    assert [place.name for place in tmp_path.rglob("*")] == ["mine_files", "notes.txt"]


def test_what_a_failed_page_got_to_is_kept(tmp_path: Path) -> None:
    nb = nbformat.read(NOTEBOOKS / "geometry.ipynb", 4)
    nb.cells.append(nbformat.v4.new_code_cell("assert False"))
    nbformat.write(nb, tmp_path / "geometry.ipynb")
    with pytest.raises(RuntimeError, match="what ran is kept in"):
        page_with(tmp_path / "geometry.ipynb", {}, tmp_path / "out" / "mine.html")
    assert (tmp_path / "out" / "failed" / "geometry.ipynb").exists()


def test_a_preset_whose_numbers_mean_little_says_so_on_every_page() -> None:
    assert "made with it mean nothing" in book.note("smoke")
    assert "too few tokens" in book.note("quick")
    assert book.note("laptop") == book.note("") == ""


def test_the_book_needs_no_torch() -> None:
    code = "import sys, aligned.report.book; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
