"""One code path for every family of language models: local folders in the shapes that the field works on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aligned.errors import Unreachable
from aligned.evals import recovery
from aligned.language.model import LanguageModel
from aligned.sae import SAE
from tests.folders import FAMILIES, make


@pytest.fixture(scope="module", params=[*FAMILIES, "gpt_neo", "qwen3"])  # GPT-Neo's blocks give tuples
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return LanguageModel(str(folder))


@pytest.fixture(scope="module")
def tokens(model: LanguageModel) -> Tensor:
    found = torch.randint(5, len(model.tokenizer), (4, 48), generator=torch.Generator().manual_seed(0))
    found[:, 0] = model.tokenizer.bos_token_id
    return found


def test_activations_and_loss_are_those_of_transformers(model: LanguageModel, folder: Path, tokens: Tensor) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        answer = plain(tokens, labels=tokens, output_hidden_states=True)
    assert (model.n_layers, model.d_in, model.context) == (3, 32, 256)
    for layer in range(2):  # transformers norms the last one
        ours = model.residual(tokens, layer)
        assert (ours - answer.hidden_states[layer + 1]).norm() / ours.norm() < 1e-5
    assert model.token_loss(tokens).mean().item() == pytest.approx(answer.loss.item(), rel=1e-5)


def test_in_bfloat16_it_is_transformers_in_bfloat16(model: LanguageModel, folder: Path, tokens: Tensor) -> None:
    from transformers import AutoModelForCausalLM

    half = LanguageModel(f"{folder}+bfloat16")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        hidden = plain(tokens, output_hidden_states=True).hidden_states
    ours = half.residual(tokens, 1)
    assert ours.dtype == torch.float32
    assert (ours - hidden[2].float()).norm() / ours.norm() < 0.05  # eight bits, over three layers
    assert torch.equal(ours, ours.bfloat16().float())  # and not float32's, which is as near
    clean = half.token_loss(tokens)
    assert clean.mean().item() == pytest.approx(model.token_loss(tokens).mean().item(), rel=0.02)
    assert torch.allclose(half.token_loss(tokens, 1, ours), clean, atol=0.05)


def test_a_residual_in_its_place(model: LanguageModel, tokens: Tensor) -> None:
    clean = model.token_loss(tokens)
    for layer in range(3):
        assert torch.allclose(model.token_loss(tokens, layer, model.residual(tokens, layer)), clean, atol=1e-4)
    zeros = torch.zeros(*tokens.shape, 32)
    with model.bridge.hooks(fwd_hooks=[(model.hook(1), lambda value, hook: torch.zeros_like(value))]):
        hooked = model.token_loss(tokens)
    assert torch.allclose(model.token_loss(tokens, 1, zeros), hooked, atol=1e-4)
    assert torch.equal(model.token_loss(tokens), clean)


def test_cross_entropy_with_a_perfect_sae_is_the_clean_one(model: LanguageModel, tokens: Tensor) -> None:
    perfect = SAE(32, 64, activation="relu", constraint="none")
    with torch.no_grad():
        perfect.W_dec[:] = torch.cat([torch.eye(32), -torch.eye(32)])
        perfect.free[:] = perfect.W_dec
        perfect.b_enc.zero_()
        perfect.b_dec.zero_()
    found = recovery(perfect, model, tokens, layer=1)
    assert found["ce_sae"] == pytest.approx(found["ce_clean"], rel=1e-5)
    assert found["fvu"] < 1e-10


def test_a_hub_id_is_a_folder_of_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cache as the hub's own library keeps it, with two revisions of one model."""
    from huggingface_hub import constants

    cached = tmp_path / "models--owner--tiny"
    (cached / "refs").mkdir(parents=True)
    made = {}
    for seed, revision in enumerate(("main", "step1")):
        commit = f"{seed}" * 40
        (cached / "refs" / revision).write_text(commit)
        made[revision] = make("gpt_neox", cached / "snapshots" / commit, seed)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    main, step = (LanguageModel(name) for name in ("owner/tiny", "owner/tiny@step1"))
    assert main.fingerprint == LanguageModel(str(made["main"])).fingerprint
    assert step.fingerprint == LanguageModel(str(made["step1"])).fingerprint != main.fingerprint
    with pytest.raises(Unreachable, match=r"'owner/tiny@step2' could not be fetched .* Without a network give a local"):
        LanguageModel("owner/tiny@step2")
