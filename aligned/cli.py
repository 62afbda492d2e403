"""The command line, `aligned` or `python -m aligned`: rerun, runs, publish, bench, pretrain, methods, models.

A command ends with 0 if all went well, with 1 if something failed, and with 2 if it was not understood.
"""

from __future__ import annotations

import logging
import runpy
import sys
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError as NoArgsIsHelp

from aligned.errors import NotInstalled

FAILED, USAGE = 1, 2
Pairs = tuple[tuple[str, str], ...]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def aligned() -> None:
    """Aligned training of sparse autoencoders (arXiv 2605.18629)."""


@aligned.command()
@click.argument("notebook", default="", metavar="[NOTEBOOK]")
@click.option("-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="as often as you like")
@click.option("--preset", default="", help="a file of notebooks/presets; by default that of the model")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="what to write: mine.ipynb, or mine.html, the page as the book would show it; with --all a folder",
)
@click.option("--figure", default="", metavar="NAME", help="write only this figure to --out, as SVG")
@click.option("--all", "every", is_flag=True, help="every notebook, into the folder --out")
def rerun(notebook: str, parameter: Pairs, preset: str, out: Path | None, figure: str, every: bool) -> None:
    """Run a figure's notebook with other parameters.

    NOTEBOOK is a name such as recovered_ce, or a path. Without --out nothing runs, and the parameters that it would
    have are listed. A figure is taken from the notebook as it stands; with other parameters, the notebook runs first.

    For example: aligned rerun recovered_ce --preset quick -p constraint rescaled -o mine.ipynb
    """
    from aligned.report import book
    from aligned.report import rerun as reruns
    from aligned.report.parameters import NOTEBOOKS
    from aligned.report.results import NothingPublished
    from aligned.report.written import Words

    if every and notebook:
        raise click.UsageError(f"--all runs every notebook: leave out {notebook}, or --all")
    if not every and not notebook:
        there = ", ".join(sorted(page.stem for page in NOTEBOOKS.glob("*.ipynb")))
        raise click.UsageError(f"name one notebook, or give --all; there are {there}")
    if every and figure:
        raise click.UsageError("--figure takes a figure from one notebook: name it instead of --all")
    if (every or figure) and not out:
        raise click.UsageError("--all and --figure write files: say where with --out")
    kinds = () if every else (".svg",) if figure else (".ipynb", ".html")
    if out and kinds and out.suffix not in kinds:
        raise click.UsageError(f"--out is {out}; what is written is {' or '.join(kinds)}: give a name that ends so")
    if every and out and out.is_file():
        raise click.UsageError(f"--out is {out}, a file; --all writes a page each into a folder")
    names = [name for name, _ in parameter]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.UsageError(f"{', '.join(twice)} is given twice; a list is one value, such as -p seeds [0,1]")
    work = reruns.chosen(notebook, {name: Words(value) for name, value in parameter}, preset)
    if out is None:
        for line in reruns.described(*next(iter(work.items()))):
            print(line)
    elif figure:
        print(f"written to {reruns.figure_with(*next(iter(work.items())), figure, out, sys.stderr)}")
    else:
        left: list[str] = []
        if every:
            print(reruns.in_all(work), flush=True)
        for number, (page, values) in enumerate(work.items(), 1):
            of = f" ({number} of {len(work)})" if every else ""
            print(f"{page.stem}{of}: {values or 'as it stands'}", flush=True)
            if said := reruns.ahead(page, values):
                print(f"  {said}", flush=True)
            if as_page := out.suffix == ".html" and not every:
                done = reruns.page_with(page, values, out, preset, sys.stderr)
            else:
                try:
                    above = reruns.banner(page, {} if every else values, preset)
                    done = reruns.rerun(page, out / page.name if every else out, values, sys.stderr, above=above)
                except NothingPublished as error:  # of all pages, the others can still be drawn
                    if not every:
                        raise
                    left.append(str(error))
                    continue
            beside = f"; {book.files_of(out).name} beside it holds the page: keep both together" if as_page else ""
            print(f"  written to {done}{beside}", flush=True)
        if left:
            raise NothingPublished("; ".join(left))


def _named(names: tuple[str, ...]) -> list[Path]:
    """The folders of some runs, named in full or by a pattern; of all, if none is named."""
    from aligned.files import store
    from aligned.store.runs import folders

    if not store().exists():
        print(f"there is no store at {store()} yet; ALIGNED_STORE names another")
    there = folders()
    found = {name: [of for of in there if of.name == name or fnmatchcase(of.name, name)] for name in names}
    if unknown := sorted(name for name, of in found.items() if not of):
        raise click.UsageError(
            f"no run {', '.join(unknown)} in {store()}; `aligned runs list` names them, and 'embedded-*' stands for "
            "all that begin so"
        )
    return list(dict.fromkeys(chain(*found.values()))) if names else there


@aligned.group()
def runs() -> None:
    """The runs in the store: list, show, verify, export, remove."""


@runs.command("list")
def list_runs() -> None:
    """Every run: its size, date and tokens, and what was measured last of CE recovered; and the pools' size."""
    from aligned.files import store
    from aligned.store.runs import line

    folders = _named(())
    print(f"{len(folders)} runs in {store()}")
    for folder in folders:
        print(line(folder))
    pools = store() / "pools"
    if size := sum(file.stat().st_size for file in pools.rglob("*") if file.is_file()):
        print(f"and {size / 1e6:,.1f} MB of activations in {pools}: delete them when nothing trains, to make room")


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def show(names: tuple[str, ...]) -> None:
    """All that is known of some runs, as JSON. A NAME may be a pattern such as 'embedded-l3-*'."""
    from aligned.store.runs import known

    for folder in _named(names):
        print(known(folder))


@runs.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Compare runs (all, if none is named) with their checksums. A NAME may be a pattern such as 'embedded-l3-*'."""
    from aligned.store.runs import Damaged, check

    folders, bad = _named(names), 0
    for folder in folders:
        try:
            check(folder)
        except Damaged as error:
            bad += 1
            print(f"damaged: {error}")
    print(f"{len(folders) - bad} of {len(folders)} runs are whole")
    click.get_current_context().exit(FAILED if bad else 0)


@runs.command()
@click.argument("name")
@click.argument("to", type=click.Path(path_type=Path), metavar="FOLDER")
def export(name: str, to: Path) -> None:
    """Copy a run's SAE into a new FOLDER, ready to upload.

    SAELens opens it. With it go a card that says how it was made, its spec, and its provenance.
    """
    import shutil

    from aligned.store.runs import check

    folder, *others = _named((name,))
    if others:
        raise click.UsageError(f"{name} stands for {1 + len(others)} runs: name one")
    check(folder)
    if to.exists():
        raise click.UsageError(f"{to} is there already: name a new folder")
    to.mkdir(parents=True)
    for part in ("README.md", "cfg.json", "sae_weights.safetensors", "spec.json", "provenance.json"):
        shutil.copy(folder / part, to)
    print(f"written to {to}; `hf upload YOU/NAME {to}` sends it to the hub")


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="without asking")
def remove(names: tuple[str, ...], yes: bool) -> None:
    """Delete runs; asks before it does. A NAME may be a pattern such as 'embedded-l3-*'."""
    import shutil

    from aligned.store.runs import line

    folders = _named(names)
    if not yes:
        print("\n".join(map(line, folders)))
        if not sys.stdin.isatty():
            raise click.UsageError("nothing was removed, for there is nobody to ask: give --yes")
        click.confirm(
            f"Delete {'this run' if len(folders) == 1 else f'these {len(folders)} runs'} for good?", abort=True
        )
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise OSError(error.errno, f"{folder} can't be removed ({error.strerror})") from error
        print(f"removed {folder.name}")


@aligned.command()
@click.argument("names", nargs=-1, metavar="[MODEL] [PART]...")
@click.option("--train", is_flag=True, help="first train and measure what the store does not have: a night for all")
def publish(names: tuple[str, ...], train: bool) -> None:
    """Write the store's records to results/, and verdicts into the README.

    What is published is planned in aligned/report/published.py; with --train, MODEL and PART say which part of the
    plan. Several processes may share the training.
    """
    from aligned.report import published, results, scorecard

    if names and not train:
        raise click.UsageError(f"{' '.join(names)} says what to train: give --train too")
    scorecard.check_checkout(train)
    if train:
        for said in published.train(names):
            print(said, flush=True)
    print(f"{results.publish()} records in {results.RESULTS}")
    scorecard.write_in_readme()


@aligned.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("name", default="speed")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(name: str, arguments: tuple[str, ...]) -> None:
    """Run a benchmark of this checkout.

    NAME is a file of benchmarks/, speed by default; what follows are its own arguments.
    """
    from aligned.files import home

    there = sorted(place.stem for place in (home() / "benchmarks").glob("*.py") if place.stem != "__init__")
    if name in ("-h", "--help"):
        print(f"{click.get_current_context().get_help()}\n\n  There are {', '.join(there) or 'none here'}.")
        return
    if name not in there:
        raise click.UsageError(f"no benchmark {name!r} in {home()}; there are {', '.join(there) or 'none'}")
    sys.path.insert(0, str(home()))
    sys.argv = [name, *arguments]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")


@aligned.command()
@click.option("--out", type=click.Path(path_type=Path), help="the folder to write; by default one in the store")
@click.option("--in-place", is_flag=True, help="write the model of this checkout, in the place of the one in use")
@click.option("--work", type=click.Path(path_type=Path), help="where checkpoints stand; by default in the store")
@click.option("-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="as often as you like")
def pretrain(out: Path | None, in_place: bool, work: Path | None, parameter: Pairs) -> None:
    """Train the embedded language model again, in another folder: an hour on two cores.

    At the end it says how the new model compares with the one in use, which stays as it is.
    """
    from aligned.language import pretrain as training
    from aligned.language.model import EMBEDDED_FOLDER
    from aligned.report.written import Words, typed

    known, names = asdict(training.Pretraining()), [name for name, _ in parameter]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.UsageError(f"{', '.join(twice)} is given twice")
    if unknown := sorted(set(names) - set(known)):
        raise click.UsageError(f"no parameter {', '.join(unknown)}; there are {', '.join(known)}")
    if in_place and (out or parameter):
        raise click.UsageError("--in-place trains the model in use again, as its card says: leave out --out and -p")
    if out and out.resolve() == EMBEDDED_FOLDER.resolve():
        raise click.UsageError(f"{out} holds the model in use: give --in-place to train it anew, or another --out")
    spec = training.Pretraining(**{name: typed(name, Words(value), known[name]) for name, value in parameter})
    own = training.place(spec)
    to = EMBEDDED_FOLDER if in_place else out or own / "model"
    work = work or own / "work"
    training.pretrain(spec, to, work)
    if in_place:
        print(f"{to} holds it now; `git diff --stat {to}` shows what changed")
    else:
        print(f"{training.compared(to, EMBEDDED_FOLDER)}\n`-p model {to}` draws a page with it.")


@aligned.command()
@click.option("--wheels", is_flag=True, help="only what pip installs for the real ones")
def models(wheels: bool) -> None:
    """The language models that have a name here.

    Says whether they are installed, and how much of them is published.
    """
    from importlib.util import find_spec

    from aligned.language.wheels import MODELS, READER

    if wheels:
        print(READER, *(pin for of in MODELS.values() for pin in of.pins))
        return
    from aligned.report import scorecard
    from aligned.report.published import PLANS

    for name in PLANS:
        of = MODELS.get(name)
        there = of is None or all(find_spec(package) for package, _ in of.parts)
        print(f"{name}: {'installed' if there else '`make real` installs it'}. {of.about if of else ''}".rstrip())
        print(f"  {scorecard.setting(name)}")


@aligned.command()
def methods() -> None:
    """The kinds of SAE that can be trained, with their options.

    A spec's `activation` is one of them.
    """
    from dataclasses import fields

    from aligned.methods import METHODS

    for name, kind in sorted(METHODS.items()):
        of = kind()
        print(f"{name}: {(kind.__doc__ or '').splitlines()[0]}")
        print("  sparsity: " + ("k, a number of codes" if of.counts else "the coefficient of a penalty"))
        for option in fields(of):
            print(f"  option {option.name}: {option.type}, {option.default}")


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit code.

    Args:
        arguments: by default those of the process.
    """
    try:
        return aligned(arguments, prog_name="aligned", standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        logging.disable()  # what was at work has its own words about being stopped
        print("stopped; what was trained is kept, and the same command goes on from there", file=sys.stderr)
        return FAILED
    except NoArgsIsHelp as asked:
        print(asked.format_message())
        return USAGE
    except click.ClickException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        return USAGE
    except (OSError, ValueError, TypeError, RuntimeError, FloatingPointError, NotInstalled) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def run() -> None:
    """What the program `aligned` does."""
    sys.exit(main())


if __name__ == "__main__":
    run()
