"""What may befall a store: killed owners, damaged files, no room, no right to write, another version's runs."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import aligned
from aligned.cli import main
from aligned.store import runs
from tests.conftest import SMALL


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def no_json(path: Path) -> None:
    path.write_text("{half a rec")


@pytest.mark.parametrize(
    ("damage", "name", "says"),
    [
        (truncate, "sae_weights.safetensors", "sae_weights.safetensors is not what was written"),
        (flip, "sae_weights.safetensors", "sae_weights.safetensors is not what was written"),
        (Path.unlink, "sae_weights.safetensors", "holds no sae_weights.safetensors"),
        (no_json, "spec.json", "spec.json is not what was written"),
        (no_json, "provenance.json", "provenance.json is not JSON"),
        (flip, "log.csv", "log.csv is not what was written"),
    ],
)
def test_a_damaged_run_is_set_aside_and_trained_again(place: Path, damage, name: str, says: str) -> None:  # type: ignore[no-untyped-def]
    first = aligned.run(SMALL)
    weights = first.sae.W_enc.clone()
    damage(first.path / name)
    with pytest.warns(UserWarning, match=f"{says}.*set aside as .*damaged.* and trained again"):
        again = aligned.run(SMALL)
    assert torch.equal(again.sae.W_enc, weights)
    assert len(list((place / "damaged").iterdir())) == 1
    assert main(["runs", "verify"]) == 0


def test_verify_names_what_is_damaged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = aligned.run(SMALL)
    flip(run.path / "sae_weights.safetensors")
    assert main(["runs", "verify", SMALL.name]) == 1
    assert "sae_weights.safetensors is not what was written" in capsys.readouterr().out


def test_metrics_that_cannot_be_read_are_made_again(place: Path) -> None:
    run = aligned.run(SMALL)
    first = aligned.records([run], 1024)
    no_json(run.path / "metrics.json")
    with pytest.warns(UserWarning, match=r"metrics\.json is not JSON.*evaluations are made again"):
        assert aligned.records([run], 1024).equals(first)
    assert (run.path / "metrics.json.0").exists()


def test_a_run_of_another_format_is_left_alone_and_named(place: Path) -> None:
    run = aligned.run(SMALL)
    made = json.loads((run.path / "provenance.json").read_text())
    (run.path / "provenance.json").write_text(json.dumps(made | {"format": 0}))
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.warns(UserWarning, match=f"{SMALL.name} is of format 0 and is left alone"):
        again = aligned.run(SMALL)
    assert again.path != run.path
    assert aligned.run(SMALL).path == again.path
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


@contextmanager
def little_room() -> Iterator[None]:
    """No file may grow beyond 20 kB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room(place: Path) -> None:
    with little_room(), pytest.raises(OSError, match=r"no room to write .*ALIGNED_STORE"):
        aligned.run(SMALL)
    assert runs.finished(SMALL) is None
    aligned.run(SMALL)


def test_no_room_for_activations(place: Path) -> None:
    (place / "pools").unlink()
    runs._kept.clear()
    with little_room(), pytest.raises(OSError, match=r"no room for 0\.00 GB of activations"):
        aligned.run(SMALL)
    assert not [p for p in (place / "pools").iterdir() if p.is_dir()]


def test_a_store_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = aligned.run(SMALL)
    refused = OSError("read-only")
    monkeypatch.setattr(runs, "check_writable", lambda: (_ for _ in ()).throw(refused))
    assert aligned.run(SMALL).path == there.path  # what is there can be used all the same
    with pytest.warns(UserWarning, match="is not kept: read-only"):
        assert len(aligned.records([there], 1024)) == 1
    monkeypatch.undo()
    monkeypatch.setenv("ALIGNED_STORE", "/proc/aligned")
    for train in (aligned.run, lambda spec: aligned.sweep([spec])):
        with pytest.raises(OSError, match=r"the store /proc/aligned can't be written .*ALIGNED_STORE"):
            train(SMALL)
