"""SAELens and SAEBench measure of an exported run what we measure, or differ by what the page "Use it in your own work"
says, definition by definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aligned.evals import recovery
from aligned.language.model import LanguageModel
from aligned.store.runs import Run
from tests import peer


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Theirs, under our names."""
    loss, quality = metrics["model_performance_preservation"], metrics["reconstruction_quality"]
    return {
        "ce_recovered": loss["ce_loss_score"],
        "ce_clean": loss["ce_loss_without_sae"],
        "ce_sae": loss["ce_loss_with_sae"],
        "ce_zero": loss["ce_loss_with_ablation"],
        "l0": metrics["sparsity"]["l0"],
        "fvu": 1 - quality["explained_variance"],
        "fvu_legacy": 1 - quality["explained_variance_legacy"],
    }


def same(ours: dict[str, float], theirs: dict[str, float], *names: str) -> None:
    for name in names:
        assert theirs[name] == pytest.approx(ours[name], rel=1e-3), name


LOSSES = ("ce_recovered", "ce_clean", "ce_sae", "ce_zero")


@pytest.mark.parametrize("batch", [4, 16])
def test_saelens_measures_what_we_measure(run: Run, model: LanguageModel, blocks: torch.Tensor, batch: int) -> None:
    """Both leave special tokens out by default. The legacy FVU is of a batch's mean, so both take the same batches."""
    theirs, features = peer.saelens_evals(run.path, model, blocks, batch)
    ours = recovery(run.sae, model, blocks, batch=batch)
    same(ours, numbers(theirs), *LOSSES, "l0", "fvu", "fvu_legacy")
    assert (torch.tensor(features["feature_density"]) > 0).float().mean() == pytest.approx(ours["alive"], abs=1e-6)


def test_the_two_formulas_of_explained_variance_differ_and_only_the_legacy_one_depends_on_the_batch(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    small, large = (recovery(run.sae, model, blocks, batch=batch) for batch in (1, 16))
    assert small["fvu"] == pytest.approx(large["fvu"], rel=1e-6)
    assert abs(small["fvu_legacy"] - large["fvu_legacy"]) > 1e-3
    assert abs(large["fvu"] - large["fvu_legacy"]) > 1e-3


def test_saelens_with_special_tokens_counts_and_reconstructs_bos(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    theirs = numbers(peer.saelens_evals(run.path, model, blocks, 16, exclude_special_tokens=False)[0])
    x = model.residual(blocks, 3)
    with torch.no_grad():
        f, loss = run.sae.encode(x), model.token_loss(blocks, 3, run.sae(x))
    flat = x.flatten(0, 1)
    assert theirs["l0"] == pytest.approx((f != 0).sum(-1).float().mean().item(), rel=1e-4)
    assert theirs["ce_sae"] == pytest.approx(loss.mean().item(), rel=1e-4)
    error, variance = (x - run.sae(x)).square().sum(), (flat - flat.mean(0)).square().sum()
    assert theirs["fvu"] == pytest.approx((error / variance).item(), rel=1e-3)
    ours = recovery(run.sae, model, blocks, batch=16)
    assert theirs["ce_sae"] != pytest.approx(ours["ce_sae"], rel=1e-3)


def test_saebench_measures_what_we_measure_where_special_tokens_stay_as_they_are(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    theirs, features = peer.saebench_core(run.path, model, blocks, 16, exclude_special_tokens_from_reconstruction=True)
    ours = recovery(run.sae, model, blocks, batch=16)
    same(ours, numbers(theirs), *LOSSES, "l0", "fvu_legacy")
    assert (torch.tensor(features["feature_density"]) > 0).float().mean() == pytest.approx(ours["alive"], abs=1e-6)


def test_saebench_reconstructs_bos_by_default_and_does_not_count_it(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    theirs, ours = numbers(peer.saebench_core(run.path, model, blocks, 16)[0]), recovery(run.sae, model, blocks)
    same(ours, theirs, "ce_clean", "ce_zero", "l0")
    with torch.no_grad():
        loss = model.token_loss(blocks, 3, run.sae(model.residual(blocks, 3)))
    ce_sae = loss[~model.is_special(blocks)[:, :-1]].mean().item()
    assert theirs["ce_sae"] == pytest.approx(ce_sae, rel=1e-4)
    assert theirs["ce_recovered"] == pytest.approx(
        (ours["ce_zero"] - ce_sae) / (ours["ce_zero"] - ours["ce_clean"]), rel=1e-3
    )
    assert abs(theirs["ce_sae"] - ours["ce_sae"]) > 1e-3


def test_what_saebench_calls_explained_variance_divides_by_no_variance(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    """It subtracts the square of the mean square of one number, and not the squared mean: where activations are large
    this is below 0, and the score over 1. Its paper has the legacy formula."""
    theirs = peer.saebench_core(run.path, model, blocks, 16)[0]["reconstruction_quality"]["explained_variance"]
    x = model.residual(blocks, 3)[~model.is_special(blocks)]
    square = x.square().sum(1).mean()
    error = (x - run.sae(x)).square().sum(1).mean()
    assert theirs == pytest.approx((1 - error / (square - (square / x.shape[1]) ** 2)).item(), rel=1e-3)
    assert theirs > 1


def test_saebenchs_own_classes_choose_codes_as_ours_do_after_training(
    run: Run, model: LanguageModel, blocks: torch.Tensor
) -> None:
    """A BatchTopK SAE by its threshold, so a token's codes depend on no other token; a TopK SAE by its k."""
    from sae_bench.custom_saes.batch_topk_sae import BatchTopKSAE
    from sae_bench.custom_saes.relu_sae import ReluSAE
    from sae_bench.custom_saes.topk_sae import TopKSAE

    ours = run.sae
    kind = {"relu": ReluSAE, "topk": TopKSAE, "batchtopk": BatchTopKSAE}[ours.activation]
    of_k = {} if ours.activation == "relu" else {"k": ours.k}
    theirs = kind(128, 256, **of_k, model_name="", hook_layer=3, device=torch.device("cpu"), dtype=torch.float32)
    weights = {"W_enc": ours.W_enc, "W_dec": ours.W_dec, "b_enc": ours.b_enc, "b_dec": ours.b_dec}
    weights |= {"threshold": ours.threshold[0]} if ours.activation == "batchtopk" else {}
    theirs.load_state_dict(weights, strict=False)
    x = model.residual(blocks, 3)[:, 1:].flatten(0, 1)
    with torch.no_grad():
        assert torch.allclose(theirs.encode(x), ours.encode(x), atol=1e-5)
    if ours.activation == "batchtopk":
        alone = torch.cat([ours.encode(token[None]) for token in x[:20]])
        assert torch.allclose(alone, ours.encode(x)[:20], atol=1e-5)
        assert len(set((ours.encode(x) != 0).sum(1).tolist())) > 1
