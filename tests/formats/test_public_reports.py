"""SAEs as they lie in public folders: trouble that users of the field's libraries report, each kind with what is right.

Where SAELens or `dictionary_learning` have the right value, they are asked for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import aligned
from aligned.evals import recovery
from aligned.formats import load, save_saelens
from aligned.language.model import LanguageModel
from aligned.sae import SAE
from tests import peer  # noqa: F401  (lets dictionary_learning be imported)
from tests.conftest import SMALL

X = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
TOPK, OLD_K = "AutoEncoderTopK", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
Config = Mapping[str, Any]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def of_saelens(folder: Path, config: Config, d_in: int = 8) -> Path:
    """A folder of SAELens, of a version before 6 unless the metadata names another."""
    weights = {"W_enc": random(d_in, 24), "W_dec": random(24, d_in), "b_enc": torch.zeros(24), "b_dec": random(d_in)}
    save_file(weights, folder / "sae_weights.safetensors")
    common = {"d_in": d_in, "d_sae": 24, "dtype": "float32", "hook_name": "blocks.3.hook_resid_post"}
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in (common | dict(config)).items() if v != "left out"}))
    return folder


def of_dictionary_learning(folder: Path, trainer: Config | None, buffer: Config | None = None, **more: Tensor) -> Path:
    weights = {"encoder.weight": random(24, 8), "encoder.bias": torch.zeros(24), "decoder.weight": random(8, 24)}
    torch.save(weights | {"b_dec": random(8)} | more, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer}))
    return folder


def of_sparsify(folder: Path, config: Config, **more: Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    weights = {"encoder.weight": random(24, 8), "encoder.bias": random(24), "W_dec": random(24, 8), "b_dec": random(8)}
    save_file(weights | more, folder / "sae.safetensors")
    common = {"expansion_factor": 3, "normalize_decoder": True, "num_latents": 24, "k": 4, "d_in": 8}
    (folder / "cfg.json").write_text(json.dumps(common | dict(config)))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        OLD_K,
        {"activation_fn_str": "topk", "k": 4},
        {"activation_fn": "topk", "k": 4, "activation_fn_kwargs": None},
        {"activation_fn_str": "topk", "k": 4, "activation_fn_kwargs": {"k": 4, "signed": False}},
        {"architecture": "topk", "k": 4},
        {"architecture": "topk", "k": 4, "metadata": {"sae_lens_version": "6.54.0"}},
    ],
    ids=str,
)
def test_a_topk_config_of_any_version_is_read_as_topk(config: Config, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    theirs = sae_lens.SAE.load_from_disk(of_saelens(tmp_path / "asked", OLD_K))
    found = load(of_saelens(tmp_path, config))
    assert torch.allclose(found.encode(X), theirs.encode(X), atol=1e-5)
    assert set((found.encode(X) > 0).sum(1).tolist()) == {4}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a repository of the hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders

    def fetch(repo_id: str, filename: str, **_: object) -> str:
        if not (tmp_path / filename).exists():
            raise LocalEntryNotFoundError(f"{repo_id} has no {filename}")
        return str(tmp_path / filename)

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", fetch)
    (tmp_path / "layer_3").mkdir()
    return tmp_path / "layer_3"


def test_a_folder_of_the_hub_is_read_as_one_on_disk(hub: Path) -> None:
    of_saelens(hub, {"activation_fn_str": "topk", "k": 4, "metadata": None})
    assert torch.equal(load("somebody/saes", "layer_3").encode(X), load(hub).encode(X))
    of_saelens(hub, {"activation_fn_str": "tanh-relu"})
    with pytest.raises(ValueError, match="somebody/saes, layer_3 has the activation 'tanh-relu'"):
        load("somebody/saes", "layer_3")


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "standard", "metadata": None},
        {"dtype": "left out"},
        {"dtype": None, "architecture": None},
        {"activation_fn": None},
        {"apply_b_dec_to_input": None, "normalize_activations": None, "metadata": {"sae_lens_version": "6.54.0"}},
    ],
    ids=str,
)
def test_what_a_config_leaves_out_has_its_usual_value(config: Config, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    theirs = sae_lens.SAE.load_from_disk(of_saelens(tmp_path / "asked", {"activation_fn_str": "relu"}))
    assert torch.allclose(load(of_saelens(tmp_path, config)).encode(X), theirs.encode(X), atol=1e-5)


@pytest.mark.parametrize("k_in_file", [False, True])
def test_k_may_stand_in_the_config_alone(k_in_file: bool, tmp_path: Path) -> None:
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    in_file = {"k": torch.tensor(4)} if k_in_file else {}
    found = load(of_dictionary_learning(tmp_path, {"dict_class": TOPK, "k": 4}, **in_file))
    theirs = AutoEncoderTopK(8, 24, 4)
    theirs.load_state_dict(torch.load(tmp_path / "ae.pt", weights_only=True), strict=False)
    assert torch.allclose(found.encode(X), theirs.encode(X), atol=1e-5)


def test_k_in_the_config_against_k_in_the_file(tmp_path: Path) -> None:
    """The peer refuses this too."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    of_dictionary_learning(tmp_path, {"dict_class": TOPK, "k": 8}, k=torch.tensor(4), threshold=torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"has more than one k: 8 in config\.json, 4 in ae\.pt"):
        load(tmp_path)
    with pytest.raises(ValueError, match="k=8 != 4"):
        AutoEncoderTopK.from_pretrained(tmp_path / "ae.pt", k=8)


def batchtopk(**more: Tensor) -> Callable[[Path], Path]:
    return lambda folder: of_dictionary_learning(
        folder, {"dict_class": "BatchTopKSAE", "k": 4}, k=torch.tensor(4), **more
    )


OURS = {"aligned_activation": "batchtopk", "aligned_sparsity": 4, "aligned_layer": 3}
# A folder, and what is said of it.
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "topk, no k": (lambda f: of_saelens(f, {"activation_fn_str": "topk"}), "does not say its k"),
    "topk of version 6, no k": (lambda f: of_saelens(f, {"architecture": "topk"}), "does not say its k"),
    "topk, two k": (lambda f: of_saelens(f, OLD_K | {"k": 8}), "more than one k: 8 in cfg.json, 4 in its activation"),
    "topk, k of text": (lambda f: of_saelens(f, {"architecture": "topk", "k": "4"}), "k is '4'; it is a whole number"),
    "topk of absolute values": (
        lambda f: of_saelens(f, {"activation_fn": "topk", "activation_fn_kwargs": {"k": 4, "signed": True}}), "signed"
    ),
    "tanh-relu": (lambda f: of_saelens(f, {"activation_fn_str": "tanh-relu"}), "activation 'tanh-relu'; relu and topk"),
    "gelu": (lambda f: of_saelens(f, {"activation_fn": "gelu"}), "activation 'gelu'"),
    "a transcoder": (lambda f: of_saelens(f, {"architecture": "transcoder"}), "architecture 'transcoder'"),
    "a checkpoint": (
        lambda f: of_saelens(f, {"architecture": "batchtopk", "k": 4, "metadata": {"sae_lens_version": "6.54.0"}}),
        "architecture 'batchtopk'.*save_inference_model",
    ),
    "no trainer": (lambda f: of_dictionary_learning(f, None), "dictionary of no class"),
    "dictionary, no k": (lambda f: of_dictionary_learning(f, {"dict_class": TOPK}), "does not say its k"),
    "batchtopk, no threshold": (batchtopk(), "a BatchTopKSAE without a threshold"),
    "batchtopk, no threshold yet": (batchtopk(threshold=torch.tensor(-1.0)), "a BatchTopKSAE without a threshold"),
    "dictionary, another class's file": (
        lambda f: of_dictionary_learning(f, {"dict_class": "AutoEncoder"}, threshold=torch.tensor(0.5)),
        "is no AutoEncoder: it has threshold too",
    ),
    "jumprelu, no threshold": (
        lambda f: of_dictionary_learning(f, {"dict_class": "JumpReluAutoEncoder"}), "'threshold' is not in it"
    ),
    "our own, its threshold gone": (
        lambda f: of_saelens(f, {"architecture": "jumprelu", "metadata": OURS}), "the weights have no threshold"
    ),
    "sparsify, a skip connection": (
        lambda f: of_sparsify(f, {}, W_skip=random(8, 8)), "has W_skip too"
    ),
    "sparsify, groupmax": (lambda f: of_sparsify(f, {"activation": "groupmax"}), "activation 'groupmax'"),
    "sparsify, a transcoder": (lambda f: of_sparsify(f, {"transcode": True}), "transcode"),
    "sparsify, no k": (lambda f: of_sparsify(f, {"k": None}), "does not say its k"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_wrongly_is_refused(case: str, tmp_path: Path) -> None:
    make, says = REFUSED[case]
    make(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_sparsify_is_read_as_sparsify_computes_it(tmp_path: Path) -> None:
    found = load(of_sparsify(tmp_path / "layers.3", {}))
    x = X - random(8)
    acts, at = F.relu(F.linear(x, random(24, 8), random(24))).topk(4, dim=-1)  # eai-sparsify 1.3.3, fused_encoder.py
    assert torch.allclose(found.encode(X), torch.zeros(200, 24).scatter(1, at, acts), atol=1e-5)
    assert torch.allclose(found(X), F.embedding_bag(at, random(24, 8), per_sample_weights=acts, mode="sum") + random(8))
    assert found.layer == 3


@pytest.mark.parametrize(
    ("folder", "layer", "hook"),
    [("h.5", 5, None), ("gpt_neox.layers.2", 2, None), ("layers.3.mlp", None, "layers.3.mlp"), ("mine", None, None),
     ("embed_tokens", None, "embed_tokens")],
)  # fmt: skip
def test_the_name_of_a_sparsify_folder_says_what_it_reads(
    folder: str, layer: int | None, hook: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model": "EleutherAI/pythia-160m"}')
    found = load(of_sparsify(tmp_path / folder, {}))
    assert (found.layer, found.hook, found.model) == (layer, hook, "EleutherAI/pythia-160m")


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.3])
@pytest.mark.parametrize("activation", ["batchtopk", "topk", "matryoshka"])
def test_saving_changes_no_code(activation: str, threshold: float, tmp_path: Path) -> None:
    """Here and in SAELens, once and once more, with a threshold or without one yet."""
    sae = SAE(8, 24, activation, 4, seed=3).for_raw_activations(0.5)
    if activation != "topk":
        sae.threshold.fill_(threshold)
    expected = sae.encode(X)
    for place in ("once", "again"):
        save_saelens(sae, tmp_path / place, {})
        assert torch.allclose(sae_lens.SAE.load_from_disk(tmp_path / place).encode(X), expected, atol=1e-5)
        sae = load(tmp_path / place)
        assert torch.allclose(sae.encode(X), expected, atol=1e-6)
        assert (sae.threshold >= 0).all() == (activation != "topk" and threshold >= 0)


def test_a_run_too_short_for_a_threshold_keeps_k_codes(model: LanguageModel, blocks: Tensor) -> None:
    run = aligned.run(replace(SMALL, activation="batchtopk", batch=SMALL.tokens))  # one step
    x = model.residual(blocks[:1], 3)[0, 1:]
    assert (run.sae.encode(x) > 0).sum(1).max() <= 4
    assert torch.allclose(sae_lens.SAE.load_from_disk(run.path).encode(x), run.sae.encode(x), atol=1e-5)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"hook_name": "blocks.1.hook_mlp_out"}, "blocks.1.hook_mlp_out"),
        ({"hook_name": "blocks.1.hook_attn_out"}, "blocks.1.hook_attn_out"),
        ({"hook_name": "blocks.1.hook_resid_mid"}, "blocks.1.hook_resid_mid"),
        ({"hook_name": "blocks.0.hook_resid_pre"}, "blocks.0.hook_resid_pre"),
        ({"hook_name": "blocks.1.hook_resid_post", "hook_head_index": 2}, "head 2 of blocks.1.hook_resid_post"),
        ({"hook_name": "model.layers.1.mlp"}, "model.layers.1.mlp"),
    ],
)
def test_an_sae_of_another_place_is_never_spliced_into_the_residual_stream(
    where: Config, says: str, tmp_path: Path, model: LanguageModel, blocks: Tensor
) -> None:
    found = load(of_saelens(tmp_path, {"model_name": "embedded", **where}, d_in=128))
    save_saelens(found, tmp_path / "again", {})
    for sae in (found, load(tmp_path / "again"), found.for_raw_activations(1.0)):
        for layer in (None, 1):
            with pytest.raises(ValueError, match=f"this SAE reads {says}, and what is measured with a model"):
                recovery(sae, model, blocks, layer)


@pytest.mark.parametrize(
    ("trainer", "buffer", "place"),
    [
        ({"submodule_name": "mlp_out"}, None, (None, "mlp_out of layer 3")),
        ({"submodule_name": "attention"}, None, (None, "attention of layer 3")),
        ({"submodule_name": "resid_post_layer_3"}, {"io": "in"}, (None, "resid_post_layer_3 of layer 3 (in)")),
        ({"submodule_name": "resid_post_layer_3"}, {"io": "out"}, (3, None)),
        ({}, None, (3, None)),
    ],
)
def test_a_dictionary_says_where_it_reads(
    trainer: Config, buffer: Config | None, place: tuple[int | None, str | None], tmp_path: Path
) -> None:
    found = load(of_dictionary_learning(tmp_path, {"dict_class": "AutoEncoder", "layer": 3, **trainer}, buffer))
    assert found.layer == place[0]
    assert (found.hook or "").startswith(place[1] or "")
    assert (found.hook is None) == (place[1] is None)


@pytest.mark.parametrize(
    ("hook", "layer"), [("blocks.2.hook_resid_pre", 1), ("blocks.2.hook_resid_post", 2), ("model.layers.5", 5)]
)
def test_the_residual_stream_by_its_other_names(hook: str, layer: int, tmp_path: Path) -> None:
    found = load(of_saelens(tmp_path, {"hook_name": hook}))
    assert (found.layer, found.hook) == (layer, None)
    save_saelens(found, tmp_path / "again", {})
    assert sae_lens.SAE.load_from_disk(tmp_path / "again").cfg.metadata.hook_name == f"blocks.{layer}.hook_resid_post"


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_run_that_is_not_what_was_written_is_not_read(name: str, tmp_path: Path) -> None:
    run = aligned.run(SMALL)
    folder = shutil.copytree(run.path, tmp_path / "run")
    assert torch.equal(load(folder).W_dec, run.sae.W_dec)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + b" ")
    with pytest.raises(ValueError, match=f"{name} is not what was written .its checksum differs"):
        load(folder)
