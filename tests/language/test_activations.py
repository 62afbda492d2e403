"""The pool and the stream: the right activations, in an order that depends on seed and step alone."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from aligned.language import activations, text
from aligned.language.activations import Centred, Pool, Stream, collect
from aligned.language.model import LanguageModel
from aligned.precision import autocast


@pytest.fixture(scope="module")
def pool(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    made = collect(model, 3, text.INSTALLED, 5000, 128, "held_out", tmp_path_factory.mktemp("pools"))
    assert isinstance(made, Pool)
    return made


def test_the_pool_holds_every_activation_once(model: LanguageModel, pool: Pool) -> None:
    blocks = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 128, blocks=48)
    with autocast(model.device):
        expected = model.residual(blocks, 3)[~model.is_special(blocks)][:5000].bfloat16()
    assert pool.rows.shape == (5000, 128)
    assert not torch.equal(pool.rows, expected)  # shuffled
    key = torch.randn(128, generator=torch.Generator().manual_seed(0)).double()
    ours, theirs = (pool.rows.double() @ key).sort().values, (expected.double() @ key).sort().values
    assert torch.allclose(ours, theirs, rtol=1e-2, atol=1.0)


def test_scaled_activations_have_mean_square_norm_one(pool: Pool) -> None:
    x = torch.cat([pool.batch(0, step, 500) for step in range(10)])
    assert x.square().sum(1).mean().item() == pytest.approx(1, abs=2e-3)


def test_centred_activations_have_mean_zero_and_mean_square_norm_one(pool: Pool) -> None:
    centred = Centred(pool)
    x = torch.cat([centred.batch(0, step, 500) for step in range(10)])
    assert x.mean(0).abs().max() < 1e-3
    assert x.square().sum(1).mean().item() == pytest.approx(1, abs=2e-3)
    assert torch.allclose(x[:500], (pool.batch(0, 0, 500) / pool.scale - centred.mean) * centred.scale, atol=1e-5)


def test_a_batch_depends_on_seed_and_step_alone(pool: Pool) -> None:
    first = pool.batch(0, 3, 64)
    pool.batch(1, 0, 64)
    assert torch.equal(pool.batch(0, 3, 64), first)
    assert not torch.equal(pool.batch(1, 3, 64), first)
    assert not torch.equal(pool.batch(0, 4, 64), first)


def test_an_epoch_uses_every_activation_once_and_the_next_another_order(pool: Pool) -> None:
    epochs = [torch.cat([pool.batch(0, step + 10 * e, 500) for step in range(10)]) for e in (0, 1)]
    assert not torch.equal(*epochs)
    key = torch.randn(128, generator=torch.Generator().manual_seed(1))
    a, b = ((x @ key).sort().values for x in epochs)
    assert torch.allclose(a, b)
    assert torch.allclose(a, (pool.scale * pool.rows.float() @ key).sort().values, atol=1e-5)


def test_nothing_can_be_written_to_a_pool(pool: Pool) -> None:
    file = pool.folder / "activations.bf16"
    before = file.read_bytes()
    other = Pool(pool.folder)
    other.rows[0] = 0
    assert file.read_bytes() == before


def test_a_pool_is_found_again(
    model: LanguageModel, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    monkeypatch.setattr(activations, "_residuals", None)  # a second pass over the model would fail
    again = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert torch.equal(made.rows, again.rows)  # type: ignore[union-attr]


def test_each_precision_has_a_pool_of_its_own(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(asked: str) -> Pool:
        monkeypatch.setenv("ALIGNED_PRECISION", asked)
        found = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
        assert isinstance(found, Pool)
        assert found.facts["precision"] == asked
        return found

    half, whole = made("bf16"), made("float32")
    assert not torch.equal(half.rows, whole.rows)
    assert made("bf16").folder == half.folder
    facts = json.loads((half.folder / "pool.json").read_text())
    del facts["precision"], facts["facts_crc32"]  # as the first pools were, all of them in bf16
    (half.folder / "pool.json").write_text(json.dumps(facts))
    monkeypatch.setattr(activations, "_residuals", None)  # a second pass over the model would fail
    monkeypatch.setenv("ALIGNED_PRECISION", "bf16")
    assert torch.equal(collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path).rows, half.rows)
    shutil.rmtree(half.folder)
    whole.folder.rename(half.folder)  # as those in float32 were once, whose names did not say so
    assert made("float32").folder == half.folder


def test_a_text_that_was_changed_has_another_pool(model: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    pools = []
    for line in ("x = 1\n", "y = 22\n"):
        file.write_text(line * 500)
        side = text._side(file.read_text())
        pools.append(collect(model, 2, str(file), 500, 128, side, tmp_path / "pools"))
    assert pools[0].folder != pools[1].folder  # type: ignore[union-attr]


def killed_after(calls: int, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the language model be read so many times, and then stop as a process that is killed does: with no clean-up
    that an error would allow."""
    left, real = iter(range(calls)), type(model).residual

    def residual(tokens: torch.Tensor, layer: int) -> torch.Tensor:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(model, tokens, layer)

    monkeypatch.setattr(model, "residual", residual)


def test_a_pool_that_was_stopped_goes_on_where_it_was(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path / "whole")
    monkeypatch.setattr(activations, "_KEEP_EVERY", 0.0)
    killed_after(3, model, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path)
    (half,) = tmp_path.glob(".*.half")
    kept = json.loads((half / "half.json").read_text())
    assert kept["blocks"] == 24
    killed_after(2, model, monkeypatch)  # 5000 tokens are 40 blocks, of which 24 are not read again
    made = collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path)
    assert isinstance(made, Pool)
    assert isinstance(whole, Pool)
    assert torch.equal(made.rows, whole.rows)
    differ = {key for key, value in made.facts.items() if whole.facts[key] != value}
    assert differ <= {"tokens_per_second", "facts_crc32"}
    assert {p.name for p in made.folder.iterdir()} == {"activations.bf16", "pool.json"}
    assert not half.exists()


@pytest.mark.parametrize("damage", ["another", "cut", "not JSON"])
def test_a_half_that_will_not_do_is_begun_again(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole = collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path / "whole")
    monkeypatch.setattr(activations, "_KEEP_EVERY", 0.0)
    with monkeypatch.context() as patched:
        killed_after(3, model, patched)
        with pytest.raises(KeyboardInterrupt):
            collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path)
    (half,) = tmp_path.glob(".*.half")
    if damage == "another":
        kept = json.loads((half / "half.json").read_text())
        kept["of"]["text_fingerprint"] = "of another text"
        (half / "half.json").write_text(json.dumps(kept))
    elif damage == "cut":
        os.truncate(half / "activations.bf16", 1000)
    else:
        (half / "half.json").write_text("{")
    made = collect(model, 2, text.INSTALLED, 5000, 128, "held_out", tmp_path)
    assert torch.equal(made.rows, whole.rows)  # type: ignore[union-attr]


def test_a_system_that_cannot_promise_room_makes_the_same_pool(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path / "a")
    monkeypatch.delattr(os, "posix_fallocate")
    assert torch.equal(collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path / "b").rows, made.rows)  # type: ignore[union-attr]


def make_sinks(model: LanguageModel, patched: pytest.MonkeyPatch) -> None:
    """The first token after BOS of each block is 50 times as long."""
    real = model.residual

    def residual(tokens: torch.Tensor, layer: int) -> torch.Tensor:
        x = real(tokens, layer)
        x[:, 1] *= 50
        return x

    patched.setattr(model, "residual", residual)


@pytest.fixture(scope="module")
def with_sinks(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool in which the first token after BOS of each block is 50 times as long."""
    with pytest.MonkeyPatch.context() as patched:
        make_sinks(model, patched)
        made = collect(model, 3, text.INSTALLED, 5000, 128, "held_out", tmp_path_factory.mktemp("pools"))
    assert isinstance(made, Pool)
    return made


def test_outliers_are_counted(model: LanguageModel, with_sinks: Pool, pool: Pool) -> None:
    blocks = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 128, blocks=40)
    keep = ~model.is_special(blocks)
    sinks = int(keep[:, 1].sum())
    assert with_sinks.facts["outliers"]["tokens"] == with_sinks.facts["outliers"]["first_in_block"] == sinks
    assert sum(with_sinks.facts["outliers"]["commonest"].values()) <= sinks
    words = {model.tokenizer.decode([t]) for t in blocks[:, 1].tolist()}
    assert set(with_sinks.facts["outliers"]["commonest"]) <= words
    assert with_sinks.facts["outliers"]["share_of_square"] > 0.9
    assert with_sinks.facts["left_out"] == {"bos": 40, "separators": int((~keep[:, 1:]).sum())}
    assert pool.facts["outliers"]["tokens"] == int((pool.norms() > 10 * pool.norms().median()).sum())


def test_without_outliers_scale_mean_and_batches_know_none(with_sinks: Pool) -> None:
    norms = with_sinks.norms()
    ordinary = with_sinks.rows[norms <= 10 * norms.median()].float()
    without = with_sinks.without_outliers(10)
    assert without.n == len(ordinary) == 5000 - with_sinks.facts["outliers"]["tokens"]
    assert torch.allclose(without.mean, ordinary.mean(0), atol=1e-4)
    assert without.scale == pytest.approx(activations.scale_of(ordinary), rel=1e-5)
    epoch = without.batch(0, 0, without.n) / without.scale
    key = torch.randn(128, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((epoch @ key).sort().values, (ordinary @ key).sort().values, atol=1e-2)
    again = pickle.loads(pickle.dumps(without))
    assert torch.equal(again.batch(1, 2, 100), without.batch(1, 2, 100))
    assert with_sinks.without_outliers(10) is without  # rows are read once
    x = torch.cat([Centred(without).batch(0, step, 500) for step in range(9)])
    assert x.mean(0).abs().max() < 0.02
    assert x.square().sum(1).mean().item() == pytest.approx(1, abs=0.02)


def test_a_stream_without_outliers(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sinks(model, monkeypatch)
    blocks = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 128, blocks=40)
    stream = Stream(model, 3, blocks, window=1000)
    without = stream.without_outliers(10)
    assert without.scale > 3 * stream.scale
    norms = [torch.cat([s.batch(0, i, 100) for i in range(9)]).norm(dim=1) / s.scale for s in (stream, without)]
    assert norms[0].max() > without.limit >= norms[1].max()


def test_a_stream_takes_the_pools_place_where_the_disk_is_full(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_DISK_SHARE", 0.0)
    stream = collect(model, 3, text.INSTALLED, 5000, 128, "held_out", tmp_path)
    assert isinstance(stream, Stream)
    stream = Stream(model, 3, stream.blocks, window=1000)
    late = stream.batch(0, 7, 100)  # of a later window
    early = stream.batch(0, 0, 100)
    assert torch.equal(stream.batch(0, 7, 100), late)
    assert torch.equal(Stream(model, 3, stream.blocks, window=1000).batch(0, 0, 100), early)
    assert not torch.equal(stream.batch(1, 0, 100), early)
    assert late.square().sum(1).mean().item() == pytest.approx(1, abs=0.2)


def test_activations_that_are_not_finite_stop_it(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "residual", lambda tokens, layer: torch.full((*tokens.shape, 128), torch.nan))
    with pytest.raises(FloatingPointError, match="not finite at layer 1, in blocks 0 to"):
        collect(model, 1, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_a_context_the_model_cannot_take_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 256"):
        collect(model, 1, text.INSTALLED, 500, 512, "held_out", tmp_path)
    with pytest.raises(ValueError, match="6 layers"):
        collect(model, 9, text.INSTALLED, 500, 128, "held_out", tmp_path)


def test_a_pool_whose_file_was_cut_is_set_aside_and_made_again(model: LanguageModel, tmp_path: Path) -> None:
    made = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert isinstance(made, Pool)
    rows = made.rows.clone()
    os.truncate(made.folder / "activations.bf16", 1000)
    with pytest.warns(UserWarning, match="is not as it was written in .*. It is set aside as .*damaged"):
        again = collect(model, 2, text.INSTALLED, 500, 128, "held_out", tmp_path)
    assert torch.equal(again.rows, rows)  # type: ignore[union-attr]
    assert len(list((tmp_path / "damaged").iterdir())) == 1
