"""A strict front for papermill: run a figure's notebook with other parameters.

    aligned rerun recovered_ce                                      # its parameters, with their defaults
    aligned rerun recovered_ce -p constraint rescaled -o mine.ipynb
    aligned rerun recovered_ce --preset smoke -o mine.ipynb
    aligned rerun recovered_ce -p model gemma-3-270m -o mine.ipynb  # with that model's preset

Papermill itself only warns of a parameter that the notebook does not have, and checks no types; here both are errors,
found before anything runs.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from aligned.checks import installed
from aligned.files import check_place, in_one_move, write_text
from aligned.progress import calm
from aligned.report.parameters import NOTEBOOKS, Parameters, comments, parameters, preset, preset_of
from aligned.report.values import allowed, problems
from aligned.report.written import kind, typed

QUIET = ["--IPKernelApp.log_level=CRITICAL"]  # else a kernel warns of its own transport, and of being stopped
CELLS = "{desc}: {n_fmt} of {total_fmt} cells done, after {elapsed}\n"  # a line each, for training has its own bar


def chosen(name: str, given: Mapping[str, Any], by: str = "") -> dict[Path, Parameters]:
    """Notebooks, each with the parameters that it will get, checked before anything runs.

    Args:
        name: of one of `NOTEBOOKS`, or the path of any; "" for all of them.
        given: parameters, which go before a preset's; from the command line, `Words`.
        by: the preset's name; "" for that of the model.

    Raises:
        FileNotFoundError: no such notebook, or no such preset.
        ValueError, TypeError: see `checked`; and where a preset's name was given as the model's.
        NotInstalled: what runs notebooks is not there.
    """
    installed("papermill", "book")
    model = str(given.get("model", ""))
    first = NOTEBOOKS / "bimodality.ipynb"
    of_model = preset_of(model, first)
    if (NOTEBOOKS / "presets" / f"{model}.yml").exists() and not of_model:
        raise ValueError(f"{model} is the name of a preset, not of a language model: give --preset {model}")
    if by and of_model and (of := preset(by, first).get("model", model)) != model:
        raise ValueError(f"the preset {by} is of {of}, not of {model}: leave out --preset, and {of_model} is taken")
    place = NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb"
    if name.endswith(".ipynb") and (Path(name).exists() or not place.exists()):
        place = Path(name)
    pages = [place] if name else sorted(NOTEBOOKS.glob("*.ipynb"))
    known = {page: parameters(page) for page in pages}
    everywhere = {parameter for of in known.values() for parameter in of}
    work = {}
    for page in pages:
        preset_name = by or preset_of(model, page)
        # of all pages, each takes what it has, and a name that none has is an error on the first
        own = {n: value for n, value in given.items() if name or n in known[page] or n not in everywhere}
        work[page] = checked(page, {**(preset(preset_name, page) if preset_name else {}), **own})
    return work


def described(notebook: Path, given: Mapping[str, Any]) -> list[str]:
    """A line a parameter: the value that it would have, its type, and what stands about it in the parameters cell."""
    known, about = parameters(notebook), comments(notebook)
    lines = []
    for name, value in (known | dict(given)).items():
        changed = f" (by itself {known[name]!r})" if value != known[name] else ""
        of = ", ".join(allowed(name))
        words = "; ".join(part for part in (about[name], of and f"may be {of}") if part)
        of_type = "any type" if known[name] is None else kind(known[name])
        lines.append(f"  {name} = {value!r}{changed}  [{of_type}]{words and f': {words}'}")
    lines += [f"It asks for {said}."] if (said := ahead(notebook, given)) else []
    these = "runs it with these" if known else "runs it; it takes no parameters"
    lines += [f"Its figures, for --figure: {', '.join(names)}."] if (names := figures(notebook)) else []
    return [*lines, f"Nothing was run; -o mine.ipynb {these}."]


def checked(notebook: Path, given: Mapping[str, Any]) -> Parameters:
    """The parameters as the notebook will get them.

    Raises:
        ValueError: a parameter that the notebook does not have, where the message names those that it has; a value that
            cannot be (`aligned.report.values`). All that is wrong is said at once.
        TypeError: a value of another type than the one that stands in the notebook.
    """
    known = parameters(notebook)
    found: Parameters = {}
    wrong: list[str] = []
    kinds: list[str] = []
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            wrong.append(f"there is no parameter {name!r}" + (f" (is it {near[0]}?)" if near else ""))
            continue
        try:
            found[name] = typed(name, value, known[name])
        except TypeError as error:
            kinds.append(str(error))
    if wrong:
        wrong[-1] += f"; it has {', '.join(known)}" if known else ": it takes none (no cell has the tag `parameters`)"
    if found:
        wrong += problems(notebook.stem, known, found)
    if errors := [*wrong, *kinds]:
        between = "\n  " if len(errors) > 1 else " "
        raise (ValueError if wrong else TypeError)(between.join([f"{notebook.stem}:", *errors]))
    return found


def ahead(notebook: Path, given: Mapping[str, Any]) -> str:
    """`aligned.report.wanted.ahead`, of a notebook with these parameters."""
    from aligned.report import wanted

    return wanted.ahead(notebook.stem, parameters(notebook) | dict(given))


def in_all(work: Mapping[Path, Mapping[str, Any]]) -> str:
    """What several pages train together, in a line; an SAE that two of them ask for is trained once.

    Args:
        work: notebooks, each with its parameters, as `chosen` returns them.
    """
    from aligned.report import cost, wanted

    pages = {page.stem: parameters(page) | dict(given) for page, given in work.items()}
    missing = list(dict.fromkeys(spec for page, p in pages.items() for spec in wanted.to_train(page, p)))
    about = cost.in_about(missing) if len({spec.model for spec in missing}) == 1 else ""
    return f"{len(work)} page{'s' * (len(work) != 1)}; {len(missing)} SAEs to train{about}"


def banner(notebook: Path, given: Mapping[str, Any], by: str = "") -> str:
    """What a page says that was made again: with which preset, and with which values that are not the preset's; and
    whether its numbers mean anything.

    Args:
        notebook: the page.
        given: its parameters, where they are not those of the book.
        by: the preset whose values are among them; "" for that of the model.
    """
    from aligned.report import book

    by = by or preset_of(str(given.get("model", "")), notebook)
    of_preset = preset(by, notebook) if by and given else {}
    made = [f"the preset {by}"] if of_preset else []
    made += [f"{name} = {value!r}" for name, value in given.items() if of_preset.get(name) != value]
    again = (
        f'The page {notebook.stem} was made again with {", ".join(made)}; the cell "# Parameters" has all values. Its '
        "exercises, their commands and solutions are those of the book's own page and model."
    )
    return " ".join(filter(None, (again if made else "", book.note(by))))


def rerun(
    notebook: Path,
    out: Path,
    given: Mapping[str, Any],
    watched: TextIO | None = None,
    beside: Path | None = None,
    above: str = "",
) -> Path:
    """Execute a notebook with parameters into `out`, which is written only when every cell has run.

    What a failed run has got to is kept in the folder `failed/`.

    Args:
        notebook: the page.
        out: where to.
        given: parameters whose values differ from those in the notebook.
        watched: where to show, while it runs, which cell has been reached and what the cells print: what is trained,
            with the time left.
        beside: the folder in which `failed/` is made; by default that of `out`.
        above: a sentence to put under the page's title.

    Raises:
        ValueError, TypeError: see `checked`.
        NothingPublished: of what the page can't be drawn without; found before anything runs.
        OSError: `out` can't be written; found before anything runs.
        RuntimeError: a cell failed; the message is that cell's.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from aligned.report.wanted import check_published

    given = checked(notebook, given)
    check_published(notebook.stem, parameters(notebook) | given)
    check_place(out)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what fails is raised, and said once
    watched = None if watched is None else calm(watched)
    bar = {"bar_format": CELLS, "desc": notebook.stem, "file": watched, "disable": False}
    with TemporaryDirectory() as place:  # not beside `out`, where a rerun that is killed would leave half a page
        running = Path(place) / out.name
        try:
            papermill.execute_notebook(
                str(notebook),
                str(running),
                given,
                kernel_name="python3",
                progress_bar=bar if watched is not None else False,
                stdout_file=watched,
                stderr_file=watched,
                extra_arguments=QUIET,
            )
        except PapermillExecutionError as error:
            failed = (beside or out.parent) / "failed" / out.name
            failed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(running, failed)
            raise RuntimeError(
                f"{notebook.stem}: {error.ename}: {error.evalue} (what ran is kept in {failed})"
            ) from error
        _tidied(running, above)
        with in_one_move(out) as beside:
            shutil.copy(running, beside)
    return out


def figures(notebook: Path) -> list[str]:
    """The names of a notebook's figures."""
    import nbformat

    cells = nbformat.read(notebook, 4).cells
    return [c.metadata["mystnb"]["figure"]["name"] for c in cells if "figure" in c.metadata.get("mystnb", {})]


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


def figure_with(notebook: Path, given: Mapping[str, Any], name: str, out: Path, watched: TextIO | None = None) -> Path:
    """`figure`, of the notebook with these parameters; with none the notebook is taken as it stands, and nothing runs.

    Raises:
        ValueError: no such figure, found before anything runs.
        RuntimeError: see `rerun`.
    """
    if not given:
        return figure(notebook, name, out)
    if name not in (there := figures(notebook)):
        raise ValueError(f"{notebook} has no figure {name!r}; it has {', '.join(there) or 'none'}")
    check_place(out)
    with TemporaryDirectory() as place:
        return figure(rerun(notebook, Path(place) / notebook.name, given, watched, out.parent), name, out)


def page_with(
    notebook: Path, given: Mapping[str, Any], out: Path, preset: str = "", watched: TextIO | None = None
) -> Path:
    """`rerun`, and the page as the book would show it: `out` opens it (see `aligned.report.book.page`).

    Args:
        notebook, given, watched: see `rerun`.
        out: a file that ends in `.html`.
        preset: the preset whose values are among those given.

    Raises:
        ValueError: the notebook is no page of the book, found before anything runs.
        FileExistsError: see `aligned.report.book.check_free`; found before anything runs.
        RuntimeError: see `rerun`.
    """
    from aligned.report import book

    if not (NOTEBOOKS / notebook.name).exists():
        raise ValueError(f"{notebook} is no page of the book: give -o {out.with_suffix('.ipynb')}")
    check_place(out)
    book.check_free(book.files_of(out))
    with TemporaryDirectory() as place:
        return book.page(
            rerun(notebook, Path(place) / notebook.name, given, watched, out.parent),
            out,
            banner(notebook, given, preset),
        )


def _tidied(notebook: Path, above: str) -> None:
    """Take out papermill's own records and what went to stderr, progress bars and libraries' warnings: paths of the
    machine, and times that make every rerun differ. Put a sentence under the page's title."""
    import nbformat

    nb = nbformat.read(notebook, 4)
    if above:
        title, _, rest = nb.cells[0].source.partition("\n") if nb.cells[0].cell_type == "markdown" else ("", "", "")
        if title.startswith("# "):
            nb.cells[0].source = f"{title}\n\n> {above}\n{rest}"
        else:
            nb.cells.insert(0, nbformat.v4.new_markdown_cell(f"> {above}"))
    for part in (nb, *nb.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(nb, notebook)
