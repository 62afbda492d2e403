"""`pip install .` gives a working `aligned`, the embedded model with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    assert {f"Provides-Extra: {extra}" for extra in ("book", "test", "ray", "interop")} <= set(metadata.splitlines())


def test_what_was_installed_from_it_works(wheel: Path, tmp_path: Path) -> None:
    """With nothing of this checkout: a model, text of its own, a run, a record."""
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join('{"text": "%s"}' % (f"x{i} = {i} + 1\\n" * 60) for i in range(200)))
    code = f"""
import aligned
assert aligned.__file__.startswith({str(target)!r}), aligned.__file__
run = aligned.run(aligned.RunSpec(d_sae=64, sparsity=4, tokens=8192, batch=512, context=64, text={str(text)!r}))
table = aligned.records([run], 512)
assert table.score_min[0] > 0.9999, table
"""
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "ALIGNED_STORE": str(tmp_path / "store"), "PATH": "/usr/bin:/bin", "HOME": "/"},
        check=True,
    )
