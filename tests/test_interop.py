"""Our runs are SAELens SAEs, and SAELens measures of them what we measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import aligned
from aligned.evals import recovery
from aligned.interop import load_saelens, save_saelens
from aligned.model import LanguageModel
from aligned.runs import Run
from aligned.sae import SAE
from aligned.spec import RunSpec

ARMS = [("relu", 0.05), ("topk", 8), ("batchtopk", 8)]


@pytest.fixture(scope="module", params=ARMS, ids=[a for a, _ in ARMS])
def run(request: pytest.FixtureRequest) -> Run:
    activation, sparsity = request.param
    return aligned.run(
        RunSpec(d_sae=256, activation=activation, sparsity=sparsity, tokens=65_536, batch=512, context=128, lr=2e-3)
    )


def test_saelens_opens_a_run_as_a_stock_sae(run: Run, model: LanguageModel, blocks: torch.Tensor) -> None:
    import sae_lens

    theirs = sae_lens.SAE.load_from_disk(str(run.path))
    x = model.residual(blocks, 3)[:, 1:].flatten(0, 1)
    assert torch.allclose(theirs.encode(x), run.sae.encode(x), atol=1e-5)
    assert torch.allclose(theirs(x), run.sae(x), rtol=1e-5, atol=1e-4)
    assert theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    assert theirs.cfg.metadata.model_name == "embedded"
    assert theirs.cfg.metadata.context_size == 128


def test_saelens_measures_what_we_measure(run: Run, model: LanguageModel, blocks: torch.Tensor) -> None:
    import sae_lens
    from datasets import Dataset
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler
    from sae_lens.training.activations_store import ActivationsStore

    theirs = sae_lens.SAE.load_from_disk(str(run.path))
    store = ActivationsStore.from_sae(
        model.bridge, theirs, dataset=Dataset.from_dict({"input_ids": blocks.tolist()}), streaming=False,
        context_size=blocks.shape[1], store_batch_size_prompts=len(blocks), n_batches_in_buffer=2, device="cpu",
    )  # fmt: skip
    metrics, _ = run_evals(
        theirs, store, model.bridge, ActivationScaler(),
        get_eval_everything_config(batch_size_prompts=len(blocks), n_eval_reconstruction_batches=1),
        exclude_special_tokens=[model.tokenizer.bos_token_id],
    )  # fmt: skip
    ours = recovery(run.sae, model, blocks, batch=len(blocks))
    quality = metrics["reconstruction_quality"]
    for mine, yours in (
        (ours["ce_recovered"], metrics["model_performance_preservation"]["ce_loss_score"]),
        (ours["ce_sae"], metrics["model_performance_preservation"]["ce_loss_with_sae"]),
        (ours["l0"], metrics["sparsity"]["l0"]),
        (1 - ours["fvu"], quality["explained_variance"]),
        (1 - ours["fvu_legacy"], quality["explained_variance_legacy"]),
    ):
        assert mine == pytest.approx(float(yours), rel=1e-3)


def test_recovery_of_a_perfect_sae_is_one_and_of_an_empty_one_what_its_bias_gives(
    model: LanguageModel, blocks: torch.Tensor
) -> None:
    perfect = SAE(128, 256, "relu", 0.0, "none")  # x = relu(x) - relu(-x)
    with torch.no_grad():
        eye = torch.eye(128)
        perfect.free.copy_(torch.cat([eye, -eye])), perfect.W_dec.copy_(torch.cat([eye, -eye]))
    perfect.layer = 3
    result = recovery(perfect, model, blocks)
    assert result["ce_recovered"] == pytest.approx(1, abs=1e-4)
    assert result["fvu"] == pytest.approx(0, abs=1e-6)
    assert result["l0"] == pytest.approx(128, abs=0.1)
    assert result["eval_tokens"] == (~model.is_special(blocks)).sum()
    with torch.no_grad():
        perfect.free.zero_()
    assert recovery(perfect, model, blocks)["alive"] == 0


def test_recovery_refuses_what_does_not_fit(model: LanguageModel, blocks: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="give layer="):
        recovery(SAE(128, 64, sparsity=4), model, blocks)
    with pytest.raises(ValueError, match="width 64, and embedded has width 128"):
        recovery(SAE(64, 64, sparsity=4), model, blocks, layer=3)


def test_saving_and_loading_gives_the_same_sae(tmp_path: Path) -> None:
    sae = SAE(32, 100, "batchtopk", 5, "projected", seed=2).for_raw_activations(0.02)
    sae.threshold.fill_(0.4)
    save_saelens(sae, tmp_path / "a", {})
    again = load_saelens(tmp_path / "a")
    for name, value in sae.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (aligned.alignment_score(again) - 1).abs().max() < 1e-5


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no cfg\.json"):
        load_saelens(tmp_path)
    save_saelens(SAE(8, 16, sparsity=2), tmp_path, {})
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_saelens(tmp_path)
