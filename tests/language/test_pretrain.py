"""Training of the embedded language model: exact resumption, its loss, its schedule, its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from aligned.cli import main
from aligned.language import pretrain, text
from aligned.language.model import EMBEDDED_FOLDER, LanguageModel
from aligned.language.pretrain import CrossEntropy, Pretraining, bigram_nats_per_token, train, train_tokenizer

TINY = Pretraining(d_model=16, layers=1, heads=2, vocabulary=257, context=16, tokens=16 * 8 * 12, batch=8, lr_adam=1e-2)


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Compiling would take longer than the tests."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def blocks() -> torch.Tensor:
    """A language in which each token is the one before plus one."""
    start = torch.randint(64, (40, 1), generator=torch.Generator().manual_seed(0))
    return (start + torch.arange(16)) % 64


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    blocks: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train(TINY, blocks, tmp_path / "whole", save_every=5)
    real = pretrain._rows

    def stop(spec: Pretraining, n: int, step: int) -> torch.Tensor:
        if step == 8:
            raise KeyboardInterrupt
        return real(spec, n, step)

    monkeypatch.setattr(pretrain, "_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, blocks, tmp_path / "parts", save_every=5)
    monkeypatch.setattr(pretrain, "_rows", real)
    resumed = train(TINY, blocks, tmp_path / "parts", save_every=5)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_model_is_refused(blocks: torch.Tensor, tmp_path: Path) -> None:
    train(TINY, blocks, tmp_path)
    with pytest.raises(ValueError, match="belongs to another training: seed 0, not 1"):
        train(Pretraining(**{**vars(TINY), "seed": 1}), blocks, tmp_path)


def test_every_epoch_reads_every_block_once() -> None:
    rows = torch.cat([pretrain._rows(TINY, 40, step) for step in range(10)])
    assert sorted(rows[:40].tolist()) == sorted(rows[40:].tolist()) == list(range(40))
    assert rows[:40].tolist() != rows[40:].tolist()


def test_cross_entropy_in_chunks_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(3000, 16, generator=generator).requires_grad_()
    w = torch.randn(64, 16, generator=generator).requires_grad_()
    target = torch.randint(64, (3000,), generator=generator)
    expected = F.cross_entropy(h @ w.T, target)
    expected_gradients = torch.autograd.grad(expected, (h, w))
    loss = CrossEntropy.apply(h, w, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)  # products are in bf16
    for ours, theirs in zip(torch.autograd.grad(loss, (h, w)), expected_gradients):
        assert (ours - theirs).norm() / theirs.norm() < 0.02


def test_schedule_rises_stays_and_falls_to_nothing() -> None:
    spec = Pretraining(tokens=1000 * 64 * 256)
    scale = [spec.lr_scale(step) for step in range(spec.steps)]
    assert scale[0] == pytest.approx(0.05)
    assert scale[100] == scale[499] == 1
    assert scale[750] == pytest.approx(0.5, abs=0.01)
    assert 0 < scale[-1] < 0.01


def test_bigrams_of_a_language_of_bigrams_are_nearly_certain(blocks: torch.Tensor) -> None:
    many = blocks.repeat(500, 1)
    assert bigram_nats_per_token(many, blocks, 64) < 0.2
    assert bigram_nats_per_token(many, blocks.flip(1), 64) > 4


def test_tokenizer_keeps_indentation_in_one_piece_and_gives_text_back() -> None:
    code = "def f(x):\n    if x:\n        return x_1 + 22\n\n\nclass A:\n\tpass  # été ∑\n"
    tokenizer = train_tokenizer(iter([code * 50]), 400)
    assert tokenizer.decode(tokenizer(code)["input_ids"]) == code
    assert any(t == "\n        " for t in map(tokenizer.decode, tokenizer(code)["input_ids"]))
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0


# A parameter that is out of range, and what is said of it before anything is read.
NUMBERS = {
    "tokens": (-5, "between 16,384 and"),
    "d_model": (0, "between 1 and"),
    "heads": (3, "a multiple of 8 times heads, 24"),
    "layers": (0, "between 1 and"),
    "vocabulary": (10, "between 257 and"),
    "context": (1, "between 2 and"),
    "batch": (0, "between 1 and"),
    "lr_adam": (float("nan"), "over 0 and at most 1"),
    "lr_muon": (2.0, "over 0 and at most 1"),
    "decay": (0.0, "over 0 and at most 1"),
    "warmup": (-1.0, "over 0 and at most 1"),
    "seed": (-1, "between 0 and"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(name: str) -> None:
    value, says = NUMBERS[name]
    with pytest.raises(ValueError, match=rf"is {value}; it .*{says}|d_model is 128; it .*{says}"):
        Pretraining(**{name: value})
    with pytest.raises(ValueError, match="parameters; at most"):
        Pretraining(d_model=2**15, vocabulary=2**20)


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small text in the place of the packages'."""
    docs = tuple(text.Document(f"{i}.py", f"def f_{i}(x):\n    return x + {i}\n" * 9) for i in range(40))
    monkeypatch.setattr(text, "installed_python", lambda split: docs if split == "train" else docs[:4])


def test_a_training_keeps_to_its_own_folders(documents: None, tmp_path: Path) -> None:
    out, work, spec = tmp_path / "out", tmp_path / "work", replace(TINY, vocabulary=300)
    pretrain.pretrain(spec, out, work)
    assert LanguageModel(str(out), device="cpu").d_in == 16
    assert json.loads((out / "provenance.json").read_text())["spec"]["tokens"] == spec.tokens
    pretrain.pretrain(spec, out, work)  # what it made itself it writes again
    with pytest.raises(ValueError, match="tokens 1536, not 1280; give another --work folder"):
        pretrain.pretrain(replace(spec, tokens=1280), out, work)
    with pytest.raises(ValueError, match="vocabulary 300, not 301"):
        pretrain.pretrain(replace(spec, vocabulary=301), out, work)


def test_what_something_else_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    (tmp_path / "afile").touch()
    for out, work, says in (
        ("mine", "work", "mine holds files that `aligned pretrain` did not make: give another --out"),
        ("out", "mine", "did not make: give another --work"),
        ("afile", "work", r"afile can't be written \(File exists\): give another --out"),
    ):
        with pytest.raises((ValueError, OSError), match=says):
            pretrain.pretrain(TINY, tmp_path / out, tmp_path / work)
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"


def test_the_defaults_are_the_embedded_models_and_so_is_its_card(tmp_path: Path) -> None:
    facts = json.loads((EMBEDDED_FOLDER / "provenance.json").read_text())
    spec = Pretraining()
    assert asdict(spec) == facts["spec"]
    assert spec.steps * spec.batch * spec.context == spec.tokens
    pretrain.write_card(tmp_path, facts)
    assert (tmp_path / "README.md").read_text() == (EMBEDDED_FOLDER / "README.md").read_text()
    pretrain.write_card(tmp_path, facts | {"spec": asdict(replace(spec, seed=1))})
    assert "`aligned pretrain -p seed 1`\ntrains this model again" in (tmp_path / "README.md").read_text()


SMALL = {"d_model": 16, "layers": 2, "heads": 2, "vocabulary": 300, "context": 32, "batch": 4, "tokens": 1536}


def test_a_model_is_trained_in_a_folder_of_its_own_and_compared_with_the_one_in_use(
    documents: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    before = {file: file.read_bytes() for file in EMBEDDED_FOLDER.iterdir()}
    assert main(["pretrain", *(word for name, value in SMALL.items() for word in ("-p", name, str(value)))]) == 0
    made = pretrain.place(Pretraining(**SMALL)) / "model"  # type: ignore[arg-type]
    assert made.is_relative_to(tmp_path)
    told = capsys.readouterr().out
    assert told.startswith(f"to {made}, when all is done; until then in {made.parent / 'work'}")
    assert re.search(r"Held-out loss: \d\.\d+ bits per byte; of the one in use, 1\.235, on other text", told)
    assert "The weights differ: d_model 16, not 128; layers 2, not 6" in told
    assert "another text" in told
    assert f"`-p model {made}`" in told
    assert LanguageModel(str(made), device="cpu").d_in == 16
    assert {file: file.read_bytes() for file in EMBEDDED_FOLDER.iterdir()} == before
    assert pretrain.compared(EMBEDDED_FOLDER, EMBEDDED_FOLDER).endswith(
        "1.235 bits per byte; of the one in use, 1.235. The weights are the same."
    )


def test_the_model_in_use_is_written_only_where_this_is_said(
    documents: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    written: list[Path] = []
    monkeypatch.setattr(pretrain, "pretrain", lambda spec, out, work: written.append(out))
    monkeypatch.setattr(pretrain, "compared", lambda made, given: "")
    assert main(["pretrain"]) == 0
    assert main(["pretrain", "--in-place"]) == 0
    assert main(["pretrain", "--out", str(tmp_path / "mine")]) == 0
    assert written == [tmp_path / "pretrained" / "embedded" / "model", EMBEDDED_FOLDER, tmp_path / "mine"]
    for arguments, says in (
        (["--out", str(EMBEDDED_FOLDER)], "holds the model in use: give --in-place"),
        (["--in-place", "-p", "seed", "1"], "leave out --out and -p"),
        (["--in-place", "--out", "mine"], "leave out --out and -p"),
        (["-p", "seed", "1", "-p", "seed", "2"], "seed is given twice"),
    ):
        assert main(["pretrain", *arguments]) == 2
        assert says in capsys.readouterr().err
    assert len(written) == 3
