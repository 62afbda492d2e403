"""A strict front for papermill: run a figure's notebook with other parameters.

    python -m aligned.report.rerun recovered_ce                                  # its parameters, with their defaults
    python -m aligned.report.rerun recovered_ce -p constraint rescaled -o mine.ipynb
    python -m aligned.report.rerun recovered_ce --preset smoke -o mine.ipynb
    python -m aligned.report.rerun recovered_ce -p model gemma-3-270m -o mine.ipynb      # with that model's preset

Papermill itself only warns of a parameter that the notebook does not have, and checks no types; here both are errors,
found before anything runs.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aligned.files import write_text

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
Parameters = dict[str, Any]


def parameters(notebook: Path) -> Parameters:
    """The names in a notebook's `parameters` cell, with the values that stand there.

    Raises:
        FileNotFoundError: no such notebook; the message names those that there are.
        ValueError: a parameter whose value is not a literal.
    """
    import papermill

    if not notebook.exists():
        there = ", ".join(sorted(p.stem for p in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(f"no notebook {notebook}; in {notebook.parent} there are: {there}")
    found = papermill.inspect_notebook(str(notebook))
    try:
        return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{notebook}: a value in the parameters cell is not a literal") from error


def preset(name: str, notebook: Path) -> Parameters:
    """A notebook's part of `presets/<name>.yml`.

    Raises:
        FileNotFoundError: no such preset; the message names those that there are.
    """
    import yaml

    folder = notebook.parent / "presets"
    place = folder / f"{name}.yml"
    if not place.exists():
        raise FileNotFoundError(
            f"no preset {name!r}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yml')))}"
        )
    return (yaml.safe_load(place.read_text()) or {}).get(notebook.stem) or {}


def preset_of(model: str, notebook: Path) -> str:
    """The preset that is made for a language model, "" where none is: its layer and its penalties fit no other."""
    there = sorted(place.stem for place in (notebook.parent / "presets").glob("*.yml"))
    return next((name for name in there if preset(name, notebook).get("model") == model), "")


def checked(notebook: Path, given: Mapping[str, Any]) -> Parameters:
    """The parameters as the notebook will get them.

    Raises:
        ValueError: a parameter that the notebook does not have; the message names those that it has.
        TypeError: a value of another type than the one that stands in the notebook.
    """
    known = parameters(notebook)
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"{notebook.stem} has no parameter {', '.join(map(repr, unknown))}; it has "
            + ", ".join(f"{name} ({_kind(value)}, {value!r})" for name, value in known.items())
        )
    return {name: _as(name, value, known[name]) for name, value in given.items()}


def rerun(notebook: Path, out: Path, given: Mapping[str, Any]) -> Path:
    """Execute a notebook with parameters into `out`, which is written only when every cell has run.

    What a failed run has got to is kept beside it, in the folder `failed/`.

    Raises:
        ValueError, TypeError: see `checked`.
        RuntimeError: a cell failed; the message is that cell's.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    given = checked(notebook, given)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".running-") as place:  # not where it would be taken for a page
        beside = Path(place) / out.name
        try:
            papermill.execute_notebook(str(notebook), str(beside), given, kernel_name="python3", progress_bar=False)
        except PapermillExecutionError as error:
            failed = out.parent / "failed" / out.name
            failed.parent.mkdir(exist_ok=True)
            beside.replace(failed)
            raise RuntimeError(
                f"{notebook.stem}: {error.ename}: {error.evalue} (what ran is kept in {failed})"
            ) from error
        _forget_where_it_ran(beside)
        beside.replace(out)
    return out


def figure(notebook: Path, name: str, out: Path) -> Path:
    """Write the SVG of an executed notebook's figure, by the figure's name.

    Raises:
        ValueError: no such figure; the message names those that there are.
    """
    import nbformat

    drawn = {
        cell.metadata["mystnb"]["figure"]["name"]: output.data["image/svg+xml"]
        for cell in nbformat.read(notebook, 4).cells
        if "figure" in cell.metadata.get("mystnb", {})
        for output in cell.outputs
        if "image/svg+xml" in output.get("data", {})
    }
    if name not in drawn:
        raise ValueError(f"{notebook} has no figure {name!r}; it has {', '.join(drawn) or 'none that was drawn'}")
    write_text(out, drawn[name])
    return out


def _forget_where_it_ran(notebook: Path) -> None:
    """Take out papermill's own records and what went to stderr, progress bars and libraries' warnings: paths of the
    machine, and times that make every rerun differ."""
    import nbformat

    nb = nbformat.read(notebook, 4)
    for part in (nb, *nb.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(nb, notebook)


def _kind(value: Any) -> str:
    return f"list of {_kind(value[0])}" if isinstance(value, list) and value else type(value).__name__


def _as(name: str, value: Any, like: Any) -> Any:
    """`value` if it is of the type of `like`; an int will do for a float."""
    if isinstance(like, list) and isinstance(value, list):
        return [_as(f"{name}[{i}]", v, like[0]) for i, v in enumerate(value)] if like else value
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        raise TypeError(f"{name} is {value!r} ({_kind(value)}); it must be of type {_kind(like)}, such as {like!r}")
    return value


def _from_command_line(text: str) -> Any:
    """3, 1e-4, [1, 2] as Python has them; true, words and lists of words as YAML."""
    import yaml

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m aligned.report.rerun", description="Run a figure's notebook with other parameters."
    )
    parser.add_argument("notebook", nargs="?", help="a name such as recovered_ce, or a path")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--preset", help="a file of notebooks/presets; by default that of the model")
    parser.add_argument("-o", "--out", type=Path, help="the notebook to write; with --all a folder")
    parser.add_argument("--figure", metavar="NAME", help="write this figure of the executed notebook to --out, as SVG")
    parser.add_argument("--all", action="store_true", help="every notebook, into the folder --out")
    options = parser.parse_args(arguments)
    if not options.all and not options.notebook:
        parser.error("name a notebook, or give --all")
    if (options.all or options.figure) and not options.out:
        parser.error("--all and --figure write files: say where with --out")
    try:
        if options.all:
            chosen = sorted(NOTEBOOKS.glob("*.ipynb"))
        else:
            named = Path(options.notebook)
            chosen = [named if named.suffix == ".ipynb" else NOTEBOOKS / f"{options.notebook}.ipynb"]
        given = {name: _from_command_line(value) for name, value in options.parameter}
        named_by = [options.preset or preset_of(str(given.get("model", "")), nb) for nb in chosen]
        work = [(nb, {**(preset(name, nb) if name else {}), **given}) for nb, name in zip(chosen, named_by)]
        if options.figure:
            print(f"written to {figure(chosen[0], options.figure, options.out)}")
            return
        for notebook, values in work:
            checked(notebook, values)
        if options.out is None:
            for name, value in parameters(chosen[0]).items():
                print(f"  {name} = {value!r}")
            return
        for number, (notebook, values) in enumerate(work, 1):
            out = options.out / notebook.name if options.all else options.out
            of = f" ({number} of {len(work)})" if options.all else ""
            print(f"{notebook.stem}{of}: {values or 'as it stands'}", flush=True)
            print(f"  written to {rerun(notebook, out, values)}", flush=True)
    except (FileNotFoundError, ValueError, TypeError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; what was trained is kept, and the same command goes on from there")


if __name__ == "__main__":
    main()
