"""SAELens's own trainers train aligned SAEs, and what they export are stock SAELens SAEs."""

from __future__ import annotations

import importlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import aligned
from aligned import interop
from aligned.language.model import LanguageModel

CONFIGS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "aligned_standard": (interop.AlignedStandardConfig, "standard", {"l1_coefficient": 0.1}),
    "aligned_topk": (interop.AlignedTopKConfig, "topk", {"k": 4}),
    "aligned_batchtopk": (interop.AlignedBatchTopKConfig, "jumprelu", {"k": 4}),
    "aligned_matryoshka_batchtopk": (
        interop.AlignedMatryoshkaConfig,
        "jumprelu",
        {"k": 4, "matryoshka_widths": [10, 40]},
    ),
    "aligned_jumprelu": (interop.AlignedJumpReLUConfig, "jumprelu", {"l0_coefficient": 0.1}),
    "aligned_gated": (interop.AlignedGatedConfig, "gated", {"l1_coefficient": 0.1}),
}
NORMALIZED = ("none", "expected_average_only_in", "covariance_whitening")


def activations(n: int, seed: int = 0) -> Tensor:
    """Correlated, with a mean and of a large scale, as a residual stream is."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(99)) / 4
    return 7 * (torch.randn(n, 16, generator=generator) @ mix) + 3


def trained(architecture: str, normalize: str = "none", **more: Any) -> Any:
    from sae_lens import TrainingSAE
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config, _, fields = CONFIGS[architecture]
    torch.manual_seed(0)
    sae = TrainingSAE.from_dict(
        config(d_in=16, d_sae=40, normalize_activations=normalize, **(fields | more)).to_dict()
    )  # by its registered name, as SAELens's runner makes it
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=6000,
            train_batch_size_samples=200,
            lr=3e-3,
            lr_end=3e-4,
            n_batches_for_norm_estimate=20,
        ),
        sae,
        iter([activations(200, seed) for seed in range(60)]),
    )
    return trainer.fit()


@pytest.mark.parametrize("normalize", NORMALIZED)
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_trained_by_saelens_and_opened_as_a_stock_sae(architecture: str, normalize: str, tmp_path: Path) -> None:
    from sae_lens import SAE

    sae = trained(architecture, normalize)
    score = aligned.alignment_score(sae)
    assert (score - 1).abs().max() < 1e-5
    sae.save_inference_model(tmp_path)
    stock = SAE.load_from_disk(tmp_path)
    assert type(stock).__module__.startswith("sae_lens")
    assert stock.cfg.architecture() == CONFIGS[architecture][1]
    assert (aligned.alignment_score(stock) - 1).abs().max() < 1e-5
    x = activations(300, seed=1000)
    with torch.no_grad():
        by_batch = "batchtopk" in architecture
        codes = sae.encode_with_hidden_pre(x)[1] if by_batch else sae.encode(x)
        if by_batch:  # whose codes depend on the batch until it is exported, and then not
            codes = codes.relu() * (codes > sae.topk_threshold)
        assert torch.equal(stock.encode(x), codes)
        assert torch.equal(stock(x), sae.decode(codes))
    ours = interop.load(tmp_path)
    assert torch.allclose(ours(x), stock(x), atol=1e-4)


def test_training_moves_the_encoder_off_the_decoder_and_lowers_the_loss() -> None:
    sae = trained("aligned_topk")
    x = activations(500, seed=1000)
    start = interop.AlignedTopK(interop.AlignedTopKConfig(d_in=16, d_sae=40, k=4))
    assert (x - sae(x)).square().mean() < 0.5 * (x - start(x)).square().mean()
    assert (sae.W_enc.T - sae.W_dec).norm(dim=1).min() > 1e-3


def scaled(sae: Any, x: Tensor) -> Tensor:
    return sae(x * 0.3) / 0.3


def whitened(sae: Any, x: Tensor) -> Tensor:
    return sae((x - MEAN) @ WHITEN) @ torch.linalg.inv(WHITEN) + MEAN


MEAN, WHITEN = torch.linspace(-1, 1, 16), torch.eye(16) + 0.2 * torch.ones(16, 16).tril(-1)
FOLDS = {
    "scale": (scaled, lambda sae: sae.fold_activation_norm_scaling_factor(0.3)),
    "whitening": (whitened, lambda sae: sae.fold_activation_whitening(MEAN, WHITEN, torch.linalg.inv(WHITEN))),
    "norms": (lambda sae, x: sae(x), lambda sae: sae.fold_W_dec_norm()),
    "norms, given": (lambda sae, x: sae(x), lambda sae: sae.fold_and_get_W_dec_norm()),
}


@pytest.mark.parametrize(
    ("architecture", "fold"),
    [(a, f) for a in ("aligned_standard", "aligned_topk") for f in FOLDS]
    + [(a, f) for a in ("aligned_jumprelu", "aligned_gated") for f in FOLDS if f != "norms, given"],  # needs biases too
)
def test_a_fold_leaves_outputs_and_scores_as_they_are(architecture: str, fold: str) -> None:
    rescale = {"rescale_acts_by_decoder_norm": True} if architecture == "aligned_topk" else {}
    sae = trained(architecture, **rescale)
    x = activations(100)
    as_before, folded = FOLDS[fold]
    before = as_before(sae, x)
    folded(sae)
    assert torch.allclose(sae(x), before, atol=1e-3)
    assert (aligned.alignment_score(sae) - 1).abs().max() < 1e-5
    sae(x).sum().backward()
    assert sae.W_dec.grad.abs().sum() > 0


def test_a_fold_that_saelens_refuses_leaves_the_constraint_in_place() -> None:
    sae = trained("aligned_topk")
    with pytest.raises(NotImplementedError):
        sae.fold_W_dec_norm()
    with torch.no_grad():
        sae.W_dec *= 2
    assert (aligned.alignment_score(sae) - 1).abs().max() < 1e-5


def test_a_checkpoint_of_saelens_goes_on(tmp_path: Path) -> None:
    from sae_lens import TrainingSAE

    sae = trained("aligned_standard")
    sae.save_model(tmp_path)
    again = TrainingSAE.load_from_disk(tmp_path)
    assert isinstance(again, interop.AlignedStandard)
    assert torch.equal(again.W_enc, sae.W_enc)
    again(activations(10)).sum().backward()
    assert again.W_dec.grad.abs().sum() > 0
    copied = deepcopy(again)
    with torch.no_grad():
        copied.W_dec *= 2
    assert (aligned.alignment_score(copied) - 1).abs().max() < 1e-5
    assert torch.equal(again.W_enc, sae.W_enc)


def test_importing_twice_is_harmless() -> None:
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

    importlib.reload(interop)
    assert SAE_TRAINING_CLASS_REGISTRY["aligned_topk"] == (interop.AlignedTopK, interop.AlignedTopKConfig)


def test_the_runner_trains_one_on_a_language_model(tmp_path: Path, model: LanguageModel) -> None:
    from datasets import Dataset
    from sae_lens import SAE, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig

    tokens = torch.randint(5, 4000, (64, 64), generator=torch.Generator().manual_seed(0))
    runner = LanguageModelSAETrainingRunner(
        LanguageModelSAERunnerConfig(
            sae=interop.AlignedTopKConfig(d_in=128, d_sae=256, k=8, normalize_activations="expected_average_only_in"),
            model_name="embedded",
            hook_name=model.hook(3),
            dataset_path="tokens",
            streaming=False,
            context_size=64,
            training_tokens=4096,
            train_batch_size_tokens=256,
            n_batches_in_buffer=4,
            store_batch_size_prompts=8,
            lr_end=3e-5,
            n_batches_for_norm_estimate=4,
            checkpoint_path=None,
            output_path=str(tmp_path / "out"),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        override_dataset=Dataset.from_dict({"input_ids": tokens.tolist()}),
        override_model=model.bridge,
    )
    sae = runner.run()
    stock = SAE.load_from_disk(tmp_path / "out")
    assert (aligned.alignment_score(stock) - 1).abs().max() < 1e-5
    x = model.residual(tokens[:2], 3).flatten(0, 1)
    assert torch.equal(stock(x), sae(x))
    assert stock.cfg.metadata.hook_name == model.hook(3)
