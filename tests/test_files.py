"""Files are whole or not there at all, and what was saved is what is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from aligned import files


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3, dtype=torch.int32), "c": torch.zeros(0)}
    files.save(tmp_path / "deep" / "a.safetensors", tensors, {"step": 3, "of": ["x"]})
    found, meta = files.load(tmp_path / "deep" / "a.safetensors")
    assert meta == {"step": 3, "of": ["x"]}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


def test_one_bit_that_changed_is_seen(tmp_path: Path) -> None:
    place = tmp_path / "a.safetensors"
    files.save(place, {"a": torch.zeros(100)}, {})
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged.*checksums differ"):
        files.load(place)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    files.write_text(tmp_path / "a", "old")

    def fails() -> None:
        with files.in_one_move(tmp_path / "a") as beside:
            beside.write_text("ne")
            assert (tmp_path / "a").read_text() == "old"
            raise error

    with pytest.raises(error):
        fails()
    assert {place.name: place.read_text() for place in tmp_path.iterdir()} == {"a": "old"}
    files.write_json(tmp_path / "a", {"é": 1})
    assert (tmp_path / "a").read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


def test_who_may_read_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.save(tmp_path / "a", {"a": torch.zeros(1)}, {})
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "a").write_text(str(number))
        assert files.set_aside(tmp_path / "a", tmp_path / "damaged") == tmp_path / "damaged" / f"a.{number}"
    assert [(tmp_path / "damaged" / f"a.{number}").read_text() for number in range(3)] == ["0", "1", "2"]
    assert not (tmp_path / "a").exists()


def test_only_halves_of_a_file_are_removed(tmp_path: Path) -> None:
    for name in ("a", ".a.12", ".b.12", "a.12"):
        (tmp_path / name).touch()
    files.remove_halves(tmp_path / "a")
    assert {place.name for place in tmp_path.iterdir()} == {"a", ".b.12", "a.12"}


def test_an_optimizer_goes_on_from_its_tensors() -> None:
    def made(steps: int) -> tuple[torch.nn.Parameter, torch.optim.Adam]:
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([weight], lr=0.1)
        for step in range(steps):
            weight.grad = torch.tensor([1.0, step, -2.0])
            optimizer.step()
        return weight, optimizer

    (weight, optimizer), (other, again) = made(3), made(0)
    tensors = {name: value.clone() for name, value in files.optimizer_tensors(optimizer, "adam").items()}
    assert set(tensors) == {"adam.0.step", "adam.0.exp_avg", "adam.0.exp_avg_sq"}
    files.restore_optimizer(again, "adam", {**tensors, "adamant.0.step": torch.tensor(99.0)})
    with torch.no_grad():
        other.copy_(weight)
    for parameter, of in ((weight, optimizer), (other, again)):
        parameter.grad = torch.tensor([0.5, 0.5, 0.5])
        of.step()
    assert torch.equal(weight, other)


def test_the_store_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", f" {tmp_path} ")
    assert files.store() == tmp_path
    monkeypatch.setenv("ALIGNED_STORE", "~/there")
    assert files.store() == Path.home() / "there"
    for unset in (lambda: monkeypatch.setenv("ALIGNED_STORE", " "), lambda: monkeypatch.delenv("ALIGNED_STORE")):
        unset()
        assert files.store() == files.home() / "runs"
    (tmp_path / "a").touch()
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "a"))
    with pytest.raises(NotADirectoryError, match="a file; it names a folder"):
        files.store()
