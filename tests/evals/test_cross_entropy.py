"""What recovery keeps and leaves out: losses in the store, logits in slices, outliers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aligned.evals import recovery
from aligned.evals.cross_entropy import baselines, recoveries
from aligned.language import model as models
from aligned.language.held_out import held_out
from aligned.language.model import LanguageModel
from aligned.sae import SAE


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    return tmp_path


@pytest.fixture
def sae() -> SAE:
    made = SAE(128, 64, "topk", 4)
    made.layer = 3
    return made


def test_the_models_own_losses_are_computed_once_and_kept(
    model: LanguageModel, blocks: torch.Tensor, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, zero, norms = baselines(model, blocks, 3)
    assert torch.allclose(clean, model.token_loss(blocks), atol=1e-4)
    assert torch.allclose(zero, model.token_loss(blocks, 3, torch.zeros(*blocks.shape, 128)), atol=1e-4)
    assert torch.allclose(norms, model.residual(blocks, 3).norm(dim=2), rtol=1e-4)
    (file,) = (store / "losses").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(model, "token_loss", None)  # a second pass over the model would fail
        assert all(torch.equal(a, b) for a, b in zip(baselines(model, blocks, 3), (clean, zero, norms)))
    baselines(model, blocks, 2)
    baselines(model, blocks[:2], 3)
    assert len(list((store / "losses").iterdir())) == 3  # of another layer, and of another text
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="is damaged.*made again"):
        assert torch.equal(baselines(model, blocks, 3)[1], zero)
    assert torch.equal(baselines(model, blocks, 3)[1], zero)


def test_logits_in_slices_give_the_same_loss(
    model: LanguageModel, blocks: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.randn(*blocks.shape, 128, generator=torch.Generator().manual_seed(0))
    whole = model.token_loss(blocks), model.token_loss(blocks, 3, other)
    seen = []
    handle = model.bridge.original_model.register_forward_hook(lambda *call: seen.append(call[2].logits.numel()))
    monkeypatch.setattr(models, "_LOGITS", 3 * 128 * model.bridge.cfg.d_vocab)
    sliced = model.token_loss(blocks), model.token_loss(blocks, 3, other)
    handle.remove()
    assert len(seen) == 2 * 6  # of 16 blocks, 3 at a time
    assert max(seen) <= models._LOGITS
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(whole, sliced))


def test_outliers_are_left_as_they_are_and_not_counted(
    model: LanguageModel, blocks: torch.Tensor, store: Path, sae: SAE
) -> None:
    x, special = model.residual(blocks, 3), model.is_special(blocks)
    bound = 1.1 * x.norm(dim=2)[~special].median()
    keep = ~special & (x.norm(dim=2) <= bound)
    assert 0 < (n_out := int((~special & ~keep).sum())) < 0.5 * keep.sum()
    found = recovery(sae, model, blocks, outliers=1.1)
    assert found["eval_tokens"] == keep.sum()
    assert found["eval_outliers"] == n_out
    rest = x[keep]
    x_hat = sae.decode(sae.encode(rest)).detach()
    variance = (rest - rest.mean(0)).square().sum()
    assert found["fvu"] == pytest.approx(((rest - x_hat).square().sum() / variance).item(), rel=1e-3)
    spliced = x.clone()
    spliced[keep] = x_hat
    loss = model.token_loss(blocks, 3, spliced)[keep[:, :-1]].mean().item()
    assert found["ce_sae"] == pytest.approx(loss, rel=1e-4)
    all_of_them = recovery(sae, model, blocks)
    assert (all_of_them["eval_tokens"], all_of_them["eval_outliers"]) == ((~special).sum(), 0)


def test_several_saes_at_once_are_each_measured_by_its_own_sums(
    model: LanguageModel, blocks: torch.Tensor, store: Path
) -> None:
    saes = [SAE(128, 512, "topk", 1, seed=0), SAE(128, 64, "relu", 0.0, seed=1)]
    found = recoveries(saes, model, blocks, layer=3, batch=5)
    x = model.residual(blocks, 3)
    keep = ~model.is_special(blocks)
    for sae, row in zip(saes, found):
        f = sae.encode(x[keep]).detach()
        assert row["l0"] == pytest.approx((f > 0).sum(1).float().mean().item())
        assert row["alive"] == pytest.approx((f > 0).any(0).float().mean().item())
        spliced = x.clone()
        spliced[keep] = sae.decode(f).detach()
        counted = keep[:, :-1]
        clean, with_sae, zero = (
            loss[counted].mean().item()
            for loss in (
                model.token_loss(blocks),
                model.token_loss(blocks, 3, spliced),
                model.token_loss(blocks, 3, torch.zeros_like(x)),
            )
        )
        assert row["ce_recovered"] == pytest.approx(1 - (with_sae - clean) / (zero - clean), rel=1e-3)
    assert found[0]["alive"] < 1


def test_held_out_text_without_outliers(model: LanguageModel) -> None:
    whole, without = held_out(model, 3, 1000, 128), held_out(model, 3, 1000, 128, outliers=1.1)
    norms = whole.x.norm(dim=2)
    assert torch.equal(without.keep, whole.keep & (norms <= 1.1 * norms[whole.keep].median()))
    assert len(without.kept[0]) == without.keep.sum() < whole.keep.sum()


def test_one_token_has_no_variance_to_explain(model: LanguageModel, store: Path, sae: SAE) -> None:
    with pytest.raises(ValueError, match="to be measured, without special ones and outliers, are 1; 2 or more"):
        recovery(sae, model, torch.tensor([[0, 50, 0]]))


def test_a_token_that_is_alone_in_its_batch_spoils_no_mean(model: LanguageModel, store: Path, sae: SAE) -> None:
    tokens = torch.tensor([[0, 50, 60, 40], [0, 50, 0, 0]])
    alone, together = recovery(sae, model, tokens, batch=1), recovery(sae, model, tokens[:1], batch=1)
    assert alone["eval_tokens"] == together["eval_tokens"] + 1
    assert alone["fvu_legacy"] == pytest.approx(together["fvu_legacy"], rel=1e-5)
