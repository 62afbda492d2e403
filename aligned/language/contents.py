"""Digests of what a local text or a local model contains, so that one that has changed under the same name is noticed.

A digest stands for the bytes of the files. It is kept in the store beside the files' sizes and times of change, and
while these are the same no file is read again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from aligned import files
from aligned.language import text, wheels
from aligned.language.model import EMBEDDED, EMBEDDED_FOLDER, named

# Of a model's folder: weights, shape and tokenizer. Its card may change.
_OF_A_MODEL = ("*.safetensors", "*.bin", "config.json", "*token*", "vocab*", "merges*", "*.model")
_SETTLED = 2.0  # seconds; what changed later than that may change again within one tick of the file system's clock


def local_text(source: str) -> Path | None:
    """Where a text is, if it is a local file or folder."""
    if source in (text.INSTALLED, text.ENGLISH) or not (place := Path(source).expanduser()).exists():
        return None
    return place.resolve()


def local_model(name: str) -> Path | None:
    """The folder of a model that is a local folder; None for models that come as wheels (their files are pinned) or
    from the hub."""
    of, *_ = named(name)
    if of in wheels.MODELS:
        return None
    folder = EMBEDDED_FOLDER if of == EMBEDDED else Path(of).expanduser()
    return folder.resolve() if folder.is_dir() else None


def of_text(source: str) -> str:
    """Of a local text the digest; of any other the empty string."""
    place = local_text(source)
    return "" if place is None else _digest(place, text.files_of(place))


def of_model(name: str) -> str:
    """Of a model in a local folder the digest; of any other the empty string."""
    folder = local_model(name)
    return "" if folder is None else _digest(folder, {file for kind in _OF_A_MODEL for file in folder.glob(kind)})


def _digest(root: Path, files_of: Iterable[Path]) -> str:
    """SHA-256 over the places of some files in a folder and their bytes, 16 digits."""
    places = sorted(file for file in files_of if file.is_file())
    found = [file.stat() for file in places]
    names = [file.relative_to(root).as_posix() for file in places]
    stamps = [[name, f.st_size, f.st_mtime_ns, f.st_ctime_ns] for name, f in zip(names, found)]
    kept = files.store() / "contents" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text())
        if known["stamps"] == stamps:
            return str(known["digest"])
    total = hashlib.sha256()
    for name, place in zip(names, places):
        with place.open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    digest = total.hexdigest()[:16]
    if time.time() - max((f.st_ctime for f in found), default=0.0) > _SETTLED:
        with suppress(OSError):  # a store that can't be written
            files.write_json(kept, {"of": str(root), "stamps": stamps, "digest": digest})
    return digest
