"""Steering: a direction that makes the model write something is found to do so, a random one is not."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from aligned.evals import pushes
from aligned.evals.pushes import best_features, rises, steering, success_rate
from aligned.language.any_text import any_text
from aligned.language.labels import LEXICAL
from aligned.language.model import LanguageModel
from aligned.sae import SAE


@pytest.fixture(scope="module")
def sae(model: LanguageModel) -> SAE:
    """Feature 0 is the embedding of `#` as the last layer reads it; feature 1 is a random direction."""
    sae = SAE(model.d_in, 4, "relu", 0.0, "none")
    sae.layer = model.n_layers - 1
    (comment,) = model.tokenizer("#", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        sae.W_dec[0] = model.bridge.original_model.get_output_embeddings().weight[comment]
    return sae


def test_a_direction_that_writes_comments_does_and_a_random_one_does_not(
    model: LanguageModel, blocks: torch.Tensor, sae: SAE
) -> None:
    prompts = blocks[:, :33]
    table = steering(sae, model, [0, 1], ["comment", "comment"], prompts, strength=1.0, length=16)
    assert table.success[0]
    assert table.steered[0] > table.unsteered[0] + 0.05
    assert not table.success[1]
    assert table.ce_steered[0] > table.ce_unsteered[0]  # on text as it is


def test_labels_of_any_text_are_counted_too(model: LanguageModel, blocks: torch.Tensor, sae: SAE) -> None:
    labelling = any_text([])
    prompts = blocks[:, :33]
    table = steering(sae, model, [0], ["other sign"], prompts, strength=1.0, length=16, labelling=labelling)
    assert table.steered[0] > table.unsteered[0] + 0.05
    with pytest.raises(
        ValueError, match="comment cannot be counted in text that may not parse; there are inside a word"
    ):
        steering(sae, model, [0], ["comment"], prompts, labelling=labelling)
    known = pd.DataFrame({"concept": ["comma", "comment", "number"], "f1_chosen": [0.3, 0.9, 0.8]})
    assert best_features(known, 2, labelling).index.tolist() == [2, 0]


def test_a_push_is_as_long_as_activations_are_whatever_the_length_of_the_row(
    model: LanguageModel, blocks: torch.Tensor, sae: SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[torch.Tensor] = []

    def write(*arguments: Any) -> torch.Tensor:
        pushed.extend(arguments[5:])
        return blocks[:8, 16:20]

    monkeypatch.setattr(pushes, "_write", write)
    prompts = blocks[:8, :16]
    steering(sae, model, [0, 1], ["comment", "comment"], prompts, strength=0.5, length=4)
    x = model.residual(prompts, model.n_layers - 1)[~model.is_special(prompts)]
    for push, row in zip(pushed, sae.W_dec.detach()):
        assert torch.allclose(push, 0.5 * x.square().sum(1).mean().sqrt() * row / row.norm(), atol=1e-4)
    assert len(pushed) == 2


def test_what_is_written_depends_on_the_seed_alone(model: LanguageModel, blocks: torch.Tensor) -> None:
    prompts = blocks[:4, :20]
    first, again, other = (model.write(prompts, 8, seed) for seed in (0, 0, 1))
    assert first.shape == (4, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, model.write(prompts, 8, 0, 3, lambda residual: residual))


def test_p_is_the_share_of_sign_changes_with_at_least_that_mean() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 10)
    means = [np.mean(signs * differences) for signs in product((-1.0, 1.0), repeat=10)]
    assert rises(differences) == pytest.approx(np.mean(np.array(means) >= differences.mean() - 1e-12))
    assert rises(np.zeros(10)) == 1
    assert rises(np.ones(20)) < 0.001


def test_by_chance_a_twentieth_succeeds() -> None:
    rng = np.random.default_rng(1)
    assert np.mean([rises(rng.normal(0, 1, 30)) < 0.05 for _ in range(200)]) == pytest.approx(0.05, abs=0.04)


def test_the_best_features_are_those_of_the_half_they_were_chosen_on() -> None:
    table = pd.DataFrame(
        {"concept": ["comma", "loop body", "dot", None, "comment"], "f1_chosen": [0.3, 0.9, 0.8, 0, 0.5], "f1": 0.1}
    )
    assert best_features(table, 2).index.tolist() == [2, 4]
    with pytest.raises(ValueError, match="4 features are to be steered with, and 3 have a concept"):
        best_features(table, 4)


def test_the_success_rate_has_wilsons_interval() -> None:
    rate, low, high = success_rate(pd.DataFrame({"success": [True] * 8 + [False] * 2}))
    assert rate == 0.8
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # of Wilson's formula


def test_what_cannot_be_measured_is_refused(model: LanguageModel, blocks: torch.Tensor, sae: SAE) -> None:
    with pytest.raises(ValueError, match=f"loop body cannot be counted .* there are {LEXICAL[0]}"):
        steering(sae, model, [0], ["loop body"], blocks[:, :16])
    with pytest.raises(ValueError, match="1 features, and concepts is"):
        steering(sae, model, [0], ["comment", "comment"], blocks[:, :16])
    with pytest.raises(ValueError, match="at most 256 tokens"):
        steering(sae, model, [0], ["comment"], blocks, length=200)
    other = SAE(model.d_in, 40)
    other.model = "EleutherAI/pythia-14m"
    with pytest.raises(
        ValueError, match=r"trained on EleutherAI/pythia-14m, and the model is embedded; .* set sae\.model"
    ):
        steering(other, model, [0], ["comment"], blocks[:, :16], layer=3)
    with pytest.raises(ValueError, match="does not say which layer"):
        steering(SAE(model.d_in, 40), model, [0], ["comment"], blocks[:, :16])
    with pytest.raises(ValueError, match="width 8, and embedded has width 128"):
        steering(SAE(8, 40), model, [0], ["comment"], blocks, layer=3)
