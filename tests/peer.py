"""The stack behind the paper: `dictionary_learning` 0.1.0 to train, without the parts of it that need a language model;
SAEBench 0.6.0 to measure, its SCR and its core measures. Beside them SAELens's measures."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch

from aligned.evals.spurious import Texts
from aligned.language.model import LanguageModel
from aligned.sae import SAE

stub = types.ModuleType("nnsight")
stub.LanguageModel = object  # type: ignore[attr-defined]
sys.modules.setdefault("nnsight", stub)


def trainer(activation: str, steps: int, d_in: int, d_sae: int, sparsity: float, lr: float, device: str = "cpu") -> Any:
    """The peer's trainer, with this project's scaling of the demo's settings to `steps`."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.p_anneal import PAnnealTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    warmup = round(steps * 1000 / 24414)
    common = {"steps": steps, "activation_dim": d_in, "dict_size": d_sae, "layer": 0, "lm_name": "", "device": device,
              "lr": lr, "warmup_steps": warmup, "decay_start": round(0.8 * steps), "seed": 0}  # fmt: skip
    if activation == "relu":
        return StandardTrainer(**common, l1_penalty=sparsity, sparsity_warmup_steps=round(steps * 5000 / 24414))
    if activation == "p_anneal":
        return PAnnealTrainer(
            **common, initial_sparsity_penalty=sparsity, sparsity_function="Lp^p", p_end=0.2,
            sparsity_warmup_steps=round(steps * 5000 / 24414), anneal_start=round(steps * 10_000 / 24414),
        )  # fmt: skip
    if activation == "gated":
        return GatedSAETrainer(**common, l1_penalty=sparsity, sparsity_warmup_steps=round(steps * 5000 / 24414))
    if activation == "matryoshka":  # by these weights its mean of means is the sum
        shares = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32]
        return MatryoshkaBatchTopKTrainer(
            **common, k=int(sparsity), threshold_start_step=warmup, group_fractions=shares, group_weights=[5.0] * 5
        )
    kind = TopKTrainer if activation == "topk" else BatchTopKTrainer
    return kind(**common, k=int(sparsity), threshold_start_step=warmup)


def by_saebench(
    sae: SAE, train: Texts, validation: Texts, test: Texts, ns: list[int], epochs: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """SAEBench's probes, trained by itself, and its SCR. The epoch is the best one on `validation`, where SAEBench
    has its test texts."""
    from sae_bench.evals.scr_and_tpp import main as saebench
    from sae_bench.evals.sparse_probing.probe_training import train_probe_on_activations
    from sae_bench.sae_bench_utils.activation_collection import create_meaned_model_activations

    theirs_train, theirs_test = _in_saebench_form(train), _in_saebench_form(test)
    means = [
        create_meaned_model_activations(form) for form in (theirs_train, _in_saebench_form(validation), theirs_test)
    ]
    trained, _ = train_probe_on_activations(
        means[0],
        means[1],
        use_sklearn=False,
        epochs=epochs,
        perform_scr=True,
        l1_penalty=1e-3,
        early_stopping_patience=epochs,
    )
    torch.set_grad_enabled(True)
    classes = ["male / female", "professor / nurse", "male_professor / female_nurse"]
    effects = saebench.get_all_node_effects_for_one_sae(sae, trained, classes, True, theirs_train, 125)
    ablated = saebench.perform_feature_ablations(trained, sae, 125, theirs_test, effects, ns, classes, 500, True)
    clean = saebench.get_probe_test_accuracy(trained, classes, means[2], 500, True)
    return trained, saebench.get_scr_plotting_dict(ablated, clean)


def _in_saebench_form(texts: Texts) -> dict[str, torch.Tensor]:
    """Its six sets of activations, by its own names: gender is b, profession is a. It knows special tokens by zeros."""
    x = texts.x * texts.keep[..., None]
    even, together = texts.balanced, texts.coinciding
    return {
        "male / female": x[even & texts.b],
        "female_data_only": x[even & ~texts.b],
        "professor / nurse": x[even & texts.a],
        "nurse_data_only": x[even & ~texts.a],
        "male_professor / female_nurse": x[together & texts.a],
        "female_nurse_data_only": x[together & ~texts.a],
    }


Measured = tuple[dict[str, Any], dict[str, Any]]  # of the SAE, and of each feature


def saelens_evals(
    folder: Path, model: LanguageModel, blocks: torch.Tensor, batch: int, exclude_special_tokens: bool = True
) -> Measured:
    """SAELens's measures of the SAE in a folder, on these blocks."""
    import sae_lens
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    sae = sae_lens.SAE.load_from_disk(folder)
    batches = len(blocks) // batch
    wanted = get_eval_everything_config(batch, batches, batches)
    return run_evals(
        sae,
        _their_text(sae, model, blocks),
        model.bridge,
        ActivationScaler(),
        wanted,
        exclude_special_tokens=exclude_special_tokens,
    )


def saebench_core(folder: Path, model: LanguageModel, blocks: torch.Tensor, batch: int, **options: bool) -> Measured:
    """SAEBench's core measures of the SAE in a folder, on these blocks, as its `multiple_evals` computes them."""
    import sae_lens
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.evals.core.main import run_evals
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae

    _, sae, _ = load_and_format_sae("", sae_lens.SAE.load_from_disk(folder), "cpu")
    batches = len(blocks) // batch
    wanted = CoreEvalConfig(
        batch_size_prompts=batch, n_eval_reconstruction_batches=batches, n_eval_sparsity_variance_batches=batches,
        compute_ce_loss=True, compute_sparsity_metrics=True, compute_variance_metrics=True,
        compute_featurewise_density_statistics=True, **options,
    )  # fmt: skip
    special = {getattr(model.tokenizer, f"{which}_token_id") for which in ("pad", "eos", "bos")} - {None}
    return run_evals(sae, _their_text(sae, model, blocks), model.bridge, wanted, ignore_tokens=special)


def _their_text(sae: Any, model: LanguageModel, blocks: torch.Tensor) -> Any:
    """Tokens as both packages read them: block after block, in batches."""
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    return ActivationsStore.from_sae(
        model.bridge, sae, dataset=Dataset.from_dict({"input_ids": blocks.tolist()}), streaming=False,
        context_size=blocks.shape[1], store_batch_size_prompts=len(blocks), n_batches_in_buffer=2, device="cpu",
    )  # fmt: skip
