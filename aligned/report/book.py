"""Executed notebooks and the prose become a book: `python -m aligned.report.book NOTEBOOKS OUT`.

It needs the packages of `aligned[book]` alone: torch and the others are for running notebooks, not for showing them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import yaml

ROOT = Path(__file__).parents[2]
SHOWN = ("aligned/**/*.py", "aligned/data/embedded/README.md")  # what pages show, or link to
_NOT_SHOWN = shutil.ignore_patterns(".*", "failed")  # pages that a rerun has not finished


def build(notebooks: Path, out: Path, banner: str = "") -> Path:
    """Build the book from a folder of executed notebooks; warnings are errors.

    Args:
        notebooks: the folder; if a page is missing there, the published one is used.
        out: the folder of HTML to write; an earlier book in it is replaced.
        banner: what stands at the top of every page.

    Returns:
        The first page.

    Raises:
        FileExistsError: see `check_free`.
        RuntimeError: the book could not be built; the message is Sphinx's.
    """
    check_free(out)
    with TemporaryDirectory() as place:  # a folder of its own, so that nothing else is read as one of the pages
        source, built = Path(place) / "source", Path(place) / "_build" / "html"
        for name in ("book", "notebooks"):
            shutil.copytree(ROOT / name, source / name, ignore=_NOT_SHOWN)
        shutil.copytree(notebooks, source / "notebooks", ignore=_all_but_notebooks, dirs_exist_ok=True)
        for file in (file for pattern in SHOWN for file in ROOT.glob(pattern)):
            (source / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, source / file.relative_to(ROOT))
        shutil.copy(ROOT / "_toc.yml", source)
        config = yaml.safe_load((ROOT / "_config.yml").read_text())
        config["sphinx"]["config"]["html_theme_options"]["announcement"] = banner
        (source / "_config.yml").write_text(yaml.safe_dump(config))
        jupyter_book = [
            str(Path(sys.executable).with_name("jupyter-book")),
            "build",
            "--all",
            "-W",
            "-n",
            "--keep-going",
        ]
        said = subprocess.run(
            [*jupyter_book, "--path-output", place, str(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if said.returncode or not (built / "index.html").exists():
            wrong = [line for line in said.stdout.splitlines() if "WARNING" in line or "ERROR" in line]
            raise RuntimeError("the book could not be built: " + ("\n".join(wrong) or said.stdout[-2000:]))
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(built, out)
    return out / "index.html"


def check_free(out: Path) -> None:
    """Raise a `FileExistsError` for a place that holds something else than a built book, which would be lost."""
    if out.exists() and not (out / "objects.inv").exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(
            f"{out} is there and is no book of this program, so it is not replaced: name another place"
        )


def files_of(out: Path) -> Path:
    """The folder that goes with a page that `page` writes."""
    return out.with_name(f"{out.stem}_files")


def page(notebook: Path, out: Path, banner: str = "") -> Path:
    """One executed notebook as the book would show it: `out` opens it, in the folder `<out>_files` beside it.

    Args:
        notebook: it, executed, under the name that it has in the book.
        out: a file that ends in `.html`.
        banner: see `build`.
    """
    files = files_of(out)
    with TemporaryDirectory() as place:
        shutil.copy(notebook, place)
        build(Path(place), files, banner)
    to = f"{files.name}/notebooks/{notebook.stem}.html"
    out.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={to}"><a href="{to}">{out.stem}</a>\n')
    return out


def note(preset: str) -> str:
    """What a book says of the preset that its notebooks were run with: `note` in the preset's file, "" by default."""
    if not preset:
        return ""
    known = yaml.safe_load((ROOT / "notebooks" / "presets" / f"{preset}.yml").read_text()) or {}
    return str(known.get("note", ""))


def _all_but_notebooks(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".ipynb")]


@click.command()
@click.argument("notebooks", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--preset", default="", help="what the notebooks were run with; its note stands on every page")
def main(notebooks: Path, out: Path, preset: str) -> None:
    """Build the book in OUT from the executed NOTEBOOKS."""
    try:
        print(f"open {build(notebooks, out, note(preset))}")
    except (RuntimeError, FileExistsError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
