"""What a folder holds, checked: its files, the JSON objects in them, and their checksums."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from aligned.checks import said
from aligned.errors import NotFound
from aligned.files import sha256

TAMPERED = "it is damaged, or its training failed: take another"


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Errors of a damaged folder, in one sentence that names it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{folder} is damaged: {error} is not in it") from error
    except (TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    except ValueError as error:
        if str(folder) in str(error):
            raise
        raise ValueError(f"{folder}: {error}") from error


def check_sums(folder: Path) -> None:
    """Raise a `ValueError` for a file that is not what the folder's provenance says was written."""
    if not (folder / "provenance.json").is_file():
        return
    sums = part(json_object(folder, "provenance.json"), "checksums", folder / "provenance.json")
    for name in ("cfg.json", "sae_weights.safetensors"):
        if name in sums and sums[name] != sha256(file(folder, name)):
            raise ValueError(f"{folder / name} is not what was written (its checksum differs): {TAMPERED}")


def file(folder: Path, name: str) -> Path:
    """A file in a folder; a folder or a pipe of its name is none."""
    place = folder / name
    if not place.exists():
        raise NotFound(f"{folder} holds no {name}, which such a folder has")
    if not place.is_file():
        raise ValueError(f"{place} is no file")
    return place


def json_object(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file."""
    place = file(folder, name)
    try:
        found = json.loads(place.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON ({error})") from error
    return part({name: found}, name, place)


def part(of: dict[str, Any], name: str, place: Path) -> dict[str, Any]:
    """An object in an object; an empty one where there is none, or a null."""
    if not isinstance(found := {} if of.get(name) is None else of[name], dict):
        raise ValueError(f"{place} is damaged: {name} is {said(found)}, and an object {{...}} is needed")
    return found
