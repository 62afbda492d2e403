"""Where files are kept, and safe files: written beside their place and then moved into it; nothing that could run code
is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def home() -> Path:
    """The checkout, so that a notebook finds what is kept there from wherever it is started; for an installed package
    the current folder."""
    checkout = Path(__file__).parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path()


def store() -> Path:
    """Where runs and pools are kept: the folder that `ALIGNED_STORE` names, else `runs/` at `home`.

    Raises:
        NotADirectoryError: `ALIGNED_STORE` names a file, or a place in one.
        OSError: it can't be the name of a folder.
    """
    named = os.environ.get("ALIGNED_STORE", "").strip()
    try:
        place = Path(named).expanduser().absolute() if named else home() / "runs"
        there = next(part for part in (place, *place.parents) if part.exists())
    except (OSError, RuntimeError) as error:  # too long; no such user
        why = getattr(error, "strerror", None) or error
        raise OSError(errno.EINVAL, f"ALIGNED_STORE is {named}, which can't be a folder ({why})") from error
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"ALIGNED_STORE is {named}, and {there} is a file; it names a folder")
    return place


def check_place(path: Path) -> None:
    """Make the folder that a file is to be written in, and try it, before the work whose result it will hold.

    Raises:
        OSError: it can't be written; names what stands there.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{path} is a folder; name a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written ({error.strerror}); name another place") from error


@contextmanager
def in_one_move(path: Path) -> Iterator[Path]:
    """Gives a place beside `path` to write to; at the end, what was written there replaces `path`. A reader sees the
    old file or the new one, never an incomplete one. After an error only the old one is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        if beside.is_file():
            beside.chmod(0o666 & ~_umask())  # safetensors' own would keep others from reading a shared store
        _to_disk(beside)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        if any(f"os error {e}" in str(error) or getattr(error, "errno", None) == e for e in _NO_ROOM):
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                errno.ENOSPC,
                f"no room to write {path.name} in {path.parent} ({free / 1e6:.0f} MB free). What was there is kept; "
                "make room, or choose another place with ALIGNED_STORE, and run again: it goes on from there",
            ) from error
        raise
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _to_disk(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk: what is moved into place survives a power cut."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_halves(path: Path) -> None:
    """Remove what a process that was killed while it wrote `path` has left beside it. For one process at a time."""
    for half in path.parent.glob(f".{path.name}.*"):
        half.unlink()


def set_aside(path: Path, folder: Path) -> Path:
    """Move what is damaged into a folder, under a name that is free there. Returns its new place."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while (free := folder / f"{path.name}.{number}").exists():
        number += 1
    path.rename(free)
    return free


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move."""
    with in_one_move(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, in one move."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Save tensors, their checksums and JSON-able facts about them in one safetensors file, in one move.

    Raises:
        OSError: there is no room; the file that was there is kept.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    facts = {"meta": json.dumps(meta), "checksums": json.dumps({k: _checksum(v) for k, v in tensors.items()})}
    with in_one_move(path) as beside:
        save_file(tensors, beside, facts)


def load(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts that `save` wrote.

    Raises:
        ValueError: the file is damaged or was not written by `save`.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            meta, checksums = json.loads(facts["meta"]), json.loads(facts["checksums"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        if {k: _checksum(v) for k, v in tensors.items()} != checksums:
            raise KeyError("checksums differ")
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged, or is not a checkpoint of this project ({error})") from error
    return {k: v.to(device) for k, v in tensors.items()}, meta


def check_precision(path: Path, meta: Mapping[str, Any], now: str) -> None:
    """Raise a `ValueError` where a checkpoint's training would go on in another precision (`aligned.precision`)."""
    before = meta.get("precision", "bf16")  # the only one there was before checkpoints said which
    if before != now:
        raise ValueError(
            f"{path} is a checkpoint in {before}, and training is in {now} here: "
            f"set ALIGNED_PRECISION={before} to go on with it, or remove it to start over"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimizer's state as named tensors `prefix.parameter.name`."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": torch.as_tensor(v) for i, slots in state.items() for name, v in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            _, i, name = key.rsplit(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
