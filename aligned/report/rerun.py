"""A strict front for papermill: run a figure's notebook with other parameters.

    aligned rerun recovered_ce                                      # its parameters, with their defaults
    aligned rerun recovered_ce -p constraint rescaled -o mine.ipynb
    aligned rerun recovered_ce --preset smoke -o mine.ipynb
    aligned rerun recovered_ce -p model gemma-3-270m -o mine.ipynb  # with that model's preset

Papermill itself only warns of a parameter that the notebook does not have, and checks no types; here both are errors,
found before anything runs.
"""

from __future__ import annotations

import ast
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from operator import add, floordiv, mul, sub, truediv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TextIO

import yaml

from aligned.checks import installed, said, unknown
from aligned.files import check_place, in_one_move, write_text
from aligned.progress import calm
from aligned.report.values import allowed, problems

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
QUIET = ["--IPKernelApp.log_level=CRITICAL"]  # else a kernel warns of its own transport, and of being stopped
CELLS = "{desc}: {n_fmt} of {total_fmt} cells done, after {elapsed}\n"  # a line each, for training has its own bar
Parameters = dict[str, Any]


def parameters(notebook: Path) -> Parameters:
    """The names in a notebook's `parameters` cell, with the values that stand there.

    Raises:
        FileNotFoundError: no such notebook; the message names those that there are.
        ValueError: no notebook; the cell is no Python, or a value must be computed; names the parameter.
    """
    return {name: value for name, (value, _) in _cell(notebook).items()}


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
        there = ", ".join(sorted(p.stem for p in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(f"no notebook {notebook}; in {notebook.parent} there are: {there}")
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
    if (NOTEBOOKS / "presets" / f"{model}.yml").exists() and not preset_of(model, NOTEBOOKS / "bimodality.ipynb"):
        raise ValueError(f"{model} is the name of a preset, not of a language model: give --preset {model}")
    place = Path(name) if name.endswith(".ipynb") else NOTEBOOKS / f"{name}.ipynb"
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
    known, comments = parameters(notebook), _comments(notebook)
    lines = []
    for name, value in (known | dict(given)).items():
        changed = f" (by itself {known[name]!r})" if value != known[name] else ""
        of = ", ".join(allowed(name))
        words = "; ".join(part for part in (comments[name], of and f"may be {of}") if part)
        kind = "any type" if known[name] is None else _kind(known[name])
        lines.append(f"  {name} = {value!r}{changed}  [{kind}]{words and f': {words}'}")
    lines += [f"It asks for {said}."] if (said := ahead(notebook, given)) else []
    return [*lines, "Nothing was run; -o mine.ipynb runs it with these."]


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
        wrong[-1] += f"; it has {', '.join(known)}" if known else ", for no cell of it has the tag `parameters`"
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


def rerun(
    notebook: Path, out: Path, given: Mapping[str, Any], watched: TextIO | None = None, beside: Path | None = None
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
        _forget_where_it_ran(running)
        with in_one_move(out) as beside:
            shutil.copy(running, beside)
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


def figure_with(notebook: Path, given: Mapping[str, Any], name: str, out: Path, watched: TextIO | None = None) -> Path:
    """`figure`, of the notebook with these parameters; with none the notebook is taken as it stands, and nothing runs.

    Raises:
        ValueError: no such figure, found before anything runs.
        RuntimeError: see `rerun`.
    """
    import nbformat

    if not given:
        return figure(notebook, name, out)
    cells = nbformat.read(notebook, 4).cells
    there = [c.metadata["mystnb"]["figure"]["name"] for c in cells if "figure" in c.metadata.get("mystnb", {})]
    if name not in there:
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
    made = ", ".join(f"{name} = {value!r}" for name, value in given.items())
    again = made and f"The page {notebook.stem} was made again with {made}."  # the others are those of the book
    banner = " ".join(filter(None, (again, book.note(preset))))
    with TemporaryDirectory() as place:
        return book.page(rerun(notebook, Path(place) / notebook.name, given, watched, out.parent), out, banner)


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


def _comments(notebook: Path) -> dict[str, str]:
    """What stands about each parameter: behind it, or in the line above."""
    lines = _source(notebook).splitlines()
    found = {}
    for name, (_, statement) in _cell(notebook).items():
        behind = lines[(statement.end_lineno or 0) - 1].encode()[statement.end_col_offset or 0 :].decode()
        above = lines[statement.lineno - 2] if statement.lineno > 1 else ""
        words = behind if "#" in behind else above if above.startswith("# ") else ""
        found[name] = words.strip("# ")
    return found


def _kind(value: Any) -> str:
    return f"list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__


class Words(str):
    """A value as it was written on the command line. What it means depends on the parameter: see `typed`."""


def typed(name: str, value: Any, like: Any) -> Any:
    """`value` if it is of the type of `like`; any value, where `like` is None. An int will do for a float, a whole
    float for an int (1e6), and a tuple for a list.

    `Words` are taken as they are where `like` is a string, and read (`written`) where it is not; with commas between
    them they make a list.

    Raises:
        TypeError: another type; names the parameter.
    """
    if isinstance(value, Words):
        if isinstance(like, str):
            return str(value)
        words = isinstance(like, list) and not value.lstrip().startswith(("[", "("))
        if words and ("," in value or isinstance((like or [None])[0], str)):
            value = [Words(word.strip()) for word in value.split(",")]
        else:
            value = written(value)
    if like is None:
        return value
    if isinstance(like, list) and isinstance(value, list | tuple):
        first = like[0] if like else None
        return [typed(f"{name}[{i}]", v, first) for i, v in enumerate(value)]
    if isinstance(like, int) and not isinstance(like, bool) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        flat = isinstance(like, list) and not any(isinstance(v, dict | list) for v in like)
        commas = f", on the command line {','.join(map(str, like))}" if flat else ""
        one = f"; one alone is written '[{value}]'" if flat and isinstance(value, int | float | str) else ""
        raise TypeError(
            f"{name} is {said(value)} ({_kind(value)}); it must be of type {_kind(like)}, such as {like!r}{commas}{one}"
        )
    return value


def written(text: str) -> Any:
    """What words mean: 3, 1e-4, [1, 2] as in Python; true, words and lists of words as in YAML, without comments."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    try:
        return str(text) if re.search(r"(^|\s)#", text) else yaml.load(text, Yaml)
    except (yaml.YAMLError, RecursionError):
        return str(text)


class Yaml(yaml.SafeLoader):
    """YAML as version 1.2 has it, and people expect it: 1e-3 is a number, 010 is 10, 1:30, no and a date are words, and
    a key stands once. PyYAML by itself reads version 1.1, and takes the last of two equal keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {', '.join(twice)} is given twice")
        return node


for _kind_of, _pattern in (
    ("bool", "(?:true|True|TRUE|false|False|FALSE)$"),
    ("null", "(?:~|null|Null|NULL|)$"),
    ("merge", "<<$"),  # not in 1.2, and the presets' way to share values
    ("int", "[-+]?[0-9](?:_?[0-9])*$"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"),
):
    Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_kind_of}", re.compile(_pattern), None)
Yaml.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
