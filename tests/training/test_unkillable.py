"""Killed at any moment, out of room, or given a damaged checkpoint: training ends with the same bits, or says why."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aligned import files
from aligned.training.loop import train
from tests.training.test_training import Synthetic, spec

# A run of its own process: slow enough to be hit, with a checkpoint after every step.
SCRIPT = """
import sys, time
from pathlib import Path
import torch
from aligned.training.loop import train
from tests.training.test_training import Synthetic, spec
torch.set_num_threads(1)
def step(_):
    print("a step", flush=True)
    time.sleep(0.01)
sae, _ = train(spec({changes}), Synthetic(), Path(sys.argv[1]), save_every=0, progress=step)
torch.save(sae.state_dict(), Path(sys.argv[1]) / "sae.pt")
"""
CHANGES = "activation='batchtopk', constraint='projected'"


def start(folder: Path, script: str = SCRIPT, changes: str = CHANGES) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", script.replace("{changes}", changes), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    sae, _ = train(spec(activation="batchtopk", constraint="projected"), Synthetic(), tmp_path_factory.mktemp("whole"))
    return sae.state_dict()


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    chance, kills, reached = random.Random(0), 0, 0
    while True:
        process = start(tmp_path)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        if kills < 20:
            time.sleep(chance.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
        if process.wait(timeout=120) == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr and process.stderr.read()
        kills += 1
        if (tmp_path / "checkpoint.safetensors").exists():
            step = files.load(tmp_path / "checkpoint.safetensors")[1]["step"]
            assert step >= reached  # what was reached is never lost
            reached = step
    assert kills == 20
    assert reached > 0
    ended = torch.load(tmp_path / "sae.pt", weights_only=True)
    assert all(torch.equal(ended[name], value) for name, value in uninterrupted.items())


def test_a_kill_in_the_middle_of_writing_a_checkpoint(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    """The half-written file stays beside the whole one, is never read, and is gone at the next start."""
    dies = SCRIPT.replace(
        "def step",
        "import os, signal\nfrom aligned import files\nwritten = 0\n"
        "def half(tensors, place, facts):\n"
        "    global written\n    written += 1\n    save_file(tensors, place, facts)\n"
        "    if written == 30:\n"
        "        os.truncate(place, os.path.getsize(place) // 2)\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_file, files.save_file = files.save_file, half\ndef step",
    )
    assert start(tmp_path, dies).wait(timeout=120) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".checkpoint.safetensors.*"))) == 1
    assert files.load(tmp_path / "checkpoint.safetensors")[1]["step"] == 29
    assert start(tmp_path).wait(timeout=120) == 0
    assert not list(tmp_path.glob(".checkpoint.safetensors.*"))
    ended = torch.load(tmp_path / "sae.pt", weights_only=True)
    assert all(torch.equal(ended[name], value) for name, value in uninterrupted.items())


def test_no_room_for_a_checkpoint_is_said_and_the_last_one_kept(tmp_path: Path) -> None:
    s = spec()
    train_until(s, tmp_path, 10)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no room to write checkpoint\.safetensors in .*What was there is kept"):
            train(s, Synthetic(), tmp_path, save_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    train(s, Synthetic(), tmp_path)


def test_a_damaged_checkpoint_is_refused_by_name_and_set_aside(tmp_path: Path) -> None:
    whole, _ = train(spec(), Synthetic(), tmp_path / "whole")
    for damage in ("truncated", "flipped", "empty", "not ours"):
        folder = tmp_path / damage
        train_until(spec(), folder, 10)
        place, other = folder / "checkpoint.safetensors", folder / "something else"
        other.write_text("keep me")
        data = bytearray(place.read_bytes())
        if damage == "flipped":
            data[-100] ^= 1
        place.write_bytes(
            {"truncated": data[: len(data) // 2], "flipped": data, "empty": b"", "not ours": b"x" * 99}[damage]
        )
        with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged.* training starts over"):
            again, _ = train(spec(), Synthetic(), folder)
        assert torch.equal(again.W_dec, whole.W_dec)
        assert other.read_text() == "keep me"
        assert (folder / "refused-checkpoint.safetensors").exists()


def test_a_checkpoint_of_another_spec_is_refused_by_name(tmp_path: Path) -> None:
    train_until(spec(seed=1), tmp_path, 10)
    with pytest.warns(UserWarning, match=f"of another spec \\({spec(seed=1).hash}\\), not {spec().hash}.* starts over"):
        again, _ = train(spec(), Synthetic(), tmp_path)
    assert torch.equal(again.W_dec, train(spec(), Synthetic(), tmp_path / "new")[0].W_dec)


def test_kernels_give_the_same_bits_on_a_new_machine_and_later(tmp_path: Path) -> None:
    """A new machine compiles, a resumed run may find code compiled: both must do the same."""
    script = """
import hashlib, torch
from aligned.training import kernels_cpu
from tests.training.test_kernels import LENGTHS, ragged, random
v, d, g_e, g_d, x = (random(40, 768, seed=i) for i in range(5))
out = torch.zeros(40, 800)
kernels_cpu.encoder(v, d, True, True, out)
squares = kernels_cpu.pull_back(g_e, g_d, v, d, True)
starts, features, values = ragged(LENGTHS, 13)
difference, dots = kernels_cpu.reconstruct(values, features, starts, d, d[0], x[: len(LENGTHS)])
made = torch.cat([a.flatten() for a in (out, d, g_e, g_d, squares, difference, dots)])
print(hashlib.sha256(made.numpy().tobytes()).hexdigest())
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    sums = {
        subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd=Path(__file__).parents[2], capture_output=True,
            text=True, check=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(sums) == 1


class Stopped(Exception):
    pass


def train_until(s: object, folder: Path, step: int) -> None:
    """Train that many steps, with a checkpoint after each, and stop."""
    steps = 0

    def stop(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps > step:
            raise Stopped

    with pytest.raises(Stopped):
        train(s, Synthetic(), folder, save_every=0, progress=stop)  # type: ignore[arg-type]
