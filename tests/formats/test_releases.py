"""Every kind of file in SAELens's registry of published SAEs is read as SAELens reads it, or refused by name.

The files are small, of the shape that each kind has on the hub, and lie in the hub's cache: no network is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aligned.formats import load
from aligned.formats.releases import NO_SAES

D_IN, D_SAE, K = 8, 24, 4
SIZES = {"d_in": D_IN, "d_sae": D_SAE}
W = {
    "W_enc": torch.randn(D_IN, D_SAE, generator=torch.Generator().manual_seed(0)) / 2,
    "W_dec": torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(1)) / 2,
    "b_enc": torch.randn(D_SAE, generator=torch.Generator().manual_seed(2)) / 2,
    "b_dec": torch.randn(D_IN, generator=torch.Generator().manual_seed(3)) / 2,
    "threshold": torch.rand(D_SAE, generator=torch.Generator().manual_seed(4)),
}
LINEAR = {
    "encoder.weight": W["W_enc"].T.contiguous(),
    "encoder.bias": W["b_enc"],
    "decoder.weight": W["W_dec"].T.contiguous(),
    "decoder.bias": W["b_dec"],
}


def text(place: Path, content: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))  # which YAML is too


def tensors(place: Path, content: dict[str, Tensor]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".npz":
        np.savez(place, **{name: value.numpy() for name, value in content.items()})
    elif place.suffix == ".safetensors":
        save_file(content, place)
    else:
        torch.save(content, place)


def saelens(folder: Path) -> None:
    of = {"sae_lens_version": "6.0.0", "model_name": "gpt2", "hook_name": "blocks.5.hook_resid_post"}
    kind = {"architecture": "jumprelu", "dtype": "float32", "apply_b_dec_to_input": False}
    text(folder / "cfg.json", {**kind, **SIZES, "metadata": of})
    tensors(folder / "sae_weights.safetensors", W)


def saelens_3(folder: Path) -> None:
    """As versions before 6 wrote it, with the scale of the activations left to the registry."""
    text(folder / "cfg.json", {"dtype": "float32", **SIZES, "model_name": "gpt2", "activation_fn_str": "relu",
         "hook_point": "blocks.6.hook_resid_pre", "normalize_activations": "expected_average_only_in"})  # fmt: skip
    tensors(folder / "sae_weights.safetensors", {name: W[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})


def hook_z(place: Path) -> None:
    text(place.with_name("z_cfg.json"), {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.5.attn.hook_z"})
    tensors(place, {name: W[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})


def gemma_scope(folder: Path) -> None:
    tensors(folder / "params.npz", {name.replace("W_", "w_"): value for name, value in W.items()})


def gemma_scope_2(folder: Path) -> None:
    layer = "model.layers.5"
    transcoder = "transcoder" in folder.parent.name
    text(folder / "config.json", {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt", "width": D_SAE,
         "hf_hook_point_in": f"{layer}.pre_feedforward_layernorm.output" if transcoder else f"{layer}.output",
         **({"hf_hook_point_out": f"{layer}.post_feedforward_layernorm.output"} if transcoder else {})})  # fmt: skip
    tensors(folder / "params.safetensors", {name.replace("W_", "w_"): value for name, value in W.items()})


def goodfire(place: Path) -> None:
    tensors(place, {name.replace(".", "_linear."): value for name, value in LINEAR.items()})


def llama_scope(folder: Path) -> None:
    text(folder / "hyperparams.json", {"d_model": D_IN, "d_sae": D_SAE, "hook_point_in": "blocks.5.hook_resid_post",
         "jump_relu_threshold": 0.4, "dataset_average_activation_norm": {"in": 4.0}})  # fmt: skip
    tensors(folder / "checkpoints" / "final.safetensors", LINEAR)


def llama_scope_r1(folder: Path) -> None:
    text(folder / "config.json", {"d_model": D_IN, "expansion_factor": 3, "hook_point_in": "blocks.5.hook_resid_post"})
    tensors(folder / "sae_weights.safetensors", LINEAR | {"log_jumprelu_threshold": W["threshold"].log()})


def dictionary_learning(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        trainer = {"dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "k": K, "layer": 5, "lm_name": "o/m"}
        text(folder / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})
        its = dict(LINEAR)
        its["b_dec" if kind.endswith("TopKSAE") else "bias"] = its.pop("decoder.bias")
        if kind == "GatedAutoEncoder":
            its |= {"gate_bias": its.pop("encoder.bias"), "mag_bias": W["b_enc"].flip(0), "r_mag": W["threshold"]}
            its["decoder_bias"] = its.pop("bias")
        if kind in ("BatchTopKSAE", "AutoEncoderTopK"):
            its |= {"threshold": torch.tensor(0.6), "k": torch.tensor(K)}
        if kind == "JumpReluAutoEncoder":
            its = dict(W)
        tensors(folder / "ae.pt", its)

    return write


def qwen_scope(place: Path) -> None:
    tensors(place, {**W, "W_enc": W["W_enc"].T.contiguous(), "W_dec": W["W_dec"].T.contiguous()})


def sparsify(folder: Path) -> None:
    text(folder / "cfg.json", {"d_in": D_IN, "expansion_factor": 3, "k": K, "normalize_decoder": False})
    its = {name: value for name, value in LINEAR.items() if name.startswith("encoder")}
    tensors(folder / "sae.safetensors", its | {"W_dec": LINEAR["decoder.weight"], "b_dec": W["b_dec"]})


@dataclass
class Row:
    loader: str
    write: Callable[[Path], None]
    repo: str
    path: str
    refused: str = ""  # what the refusal says; else it is read
    layer: int | None = 5
    hook: str | None = None  # where it reads something else than the residual stream after a layer
    scale: dict[str, float] = field(default_factory=dict)
    id: str = ""


SCOPE, SCOPE_2, HEADS = "google/gemma-scope-2b-pt", "google/gemma-scope-2-270m-pt", "blocks.5.attn.hook_z"
ROWS = [
    Row("sae_lens", saelens, "o/saes", "layer_5"),
    Row("sae_lens", saelens_3, "o/saes", "layer_5", scale={"it": 0.3}, id="sae_lens before 6"),
    Row("sae_lens", saelens_3, "o/saes", "layer_5", "normalizes .*expected_average_only_in", id="sae_lens, no scale"),
    Row("connor_rob_hook_z", hook_z, "o/saes", "z.pt", layer=None, hook=HEADS),
    Row("gemma_2", gemma_scope, f"{SCOPE}-res", "layer_5/width_16k/average_l0_7"),
    Row("gemma_2", gemma_scope, f"{SCOPE}-res", "embedding/width_4k", layer=None, hook="hook_embed", id="embedding"),
    Row("gemma_2", gemma_scope, f"{SCOPE}-att", "layer_5/width_16k", layer=None, hook=HEADS, id="att"),
    Row("gemma_3", gemma_scope_2, SCOPE_2, "resid_post/layer_5_width_16k_l0_small"),
    Row("gemma_3", gemma_scope_2, SCOPE_2, "mlp_out/layer_5_w", layer=None, hook="blocks.5.hook_mlp_out", id="mlp"),
    Row("gemma_3", gemma_scope_2, SCOPE_2, "transcoder/layer_5_width_16k", "a transcoder maps", id="transcoder"),
    Row("gemma_3", gemma_scope_2, SCOPE_2, "clt/width_262k/layer_5", "a cross-layer transcoder maps", id="clt"),
    Row("goodfire", goodfire, "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth", layer=19),
    Row("llama_scope", llama_scope, "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L5R-8x", scale={"it": 0.7}),
    Row("llama_scope_r1_distill", llama_scope_r1, "fnlp/Llama-Scope-R1-Distill", "L5R", scale={"it": 0.7}),
    *(
        Row("dictionary_learning_1", dictionary_learning(kind), "o/saes", "trainer_0", id=kind)
        for kind in ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "GatedAutoEncoder", "JumpReluAutoEncoder")
    ),
    Row("deepseek_r1", lambda place: tensors(place, LINEAR), "o/saes", "DeepSeek-R1-l5.pt"),
    Row("qwen_scope", qwen_scope, "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_4", "layer5.sae.pt"),
    Row("sparsify", sparsify, "o/saes", "layers.5"),
    Row("gemma_2_transcoder", gemma_scope, f"{SCOPE}-transcoders", "layer_5/width_16k", "a transcoder maps"),
    Row("mwhanna_transcoder", lambda _: None, "o/qwen3-4b-transcoders", "layer_5.safetensors", "a transcoder maps"),
    Row("mntss_clt_layer_transcoder", lambda _: None, "o/clt", "5", "a transcoder maps"),
    Row("temporal", lambda _: None, "o/saes", "gemma/layer_5/temporal", "depends on earlier tokens"),
]  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Row], None]:
    """Puts a row's files where the hub's client keeps what it has fetched, and a release `r` with the SAE `it` into
    SAELens's registry."""
    from huggingface_hub import constants
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup, get_pretrained_saes_directory

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(row: Row) -> None:
        kept = tmp_path / f"models--{row.repo.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("1" * 40)
        row.write(kept / "snapshots" / ("1" * 40) / row.path)
        entry = PretrainedSAELookup("r", row.repo, "m", row.loader, {"it": row.path}, {}, {}, {}, row.scale, SIZES)
        monkeypatch.setitem(get_pretrained_saes_directory(), "r", entry)

        def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:  # SAELens asks the hub for a part of the file
            place = kept / "snapshots" / ("1" * 40) / filename
            return {k: list(v.shape) for k, v in loaders.load_safetensors_weights(place).items()}

        monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)

    return put


def test_the_table_has_every_loader_of_saelens() -> None:
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

    assert {row.loader for row in ROWS} == set(NAMED_PRETRAINED_SAE_LOADERS)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id or row.loader) for row in ROWS if not row.refused])
def test_it_is_read_as_saelens_reads_it(row: Row, hub: Callable[[Row], None]) -> None:
    import sae_lens

    hub(row)
    theirs, ours = sae_lens.SAE.from_pretrained("r", "it"), load("r", "it")
    if theirs.cfg.reshape_activations == "hook_z":  # SAELens takes heads apart; ours has them side by side
        theirs.turn_off_forward_pass_hook_z_reshaping()
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(5)) * 2
    f = theirs.encode(x)
    assert 0.02 < (f != 0).float().mean() < 0.9
    assert torch.allclose(ours.encode(x), f, atol=1e-5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)
    assert (ours.layer, ours.hook) == (row.layer, row.hook)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id or row.loader) for row in ROWS if row.refused])
def test_what_no_sae_can_be_is_refused_by_name(row: Row, hub: Callable[[Row], None]) -> None:
    """Transcoders before anything is fetched: of some of them there is no file here."""
    hub(row)
    with pytest.raises(ValueError, match=f"r, it .*{row.refused}"):
        load("r", "it")


def test_every_sae_in_the_registry_is_read_or_refused_for_what_it_is() -> None:
    """No SAE is taken for a transcoder by its path, and no transcoder for an SAE."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    for release, listed in get_pretrained_saes_directory().items():
        other = any(word in release for word in ("transcoder", "clt", "temporal"))
        for sae_id, path in listed.saes_map.items():
            assert other == any(kind in f"{listed.conversion_func} {path}" for kind in NO_SAES), (release, sae_id)


def test_a_file_that_is_damaged_is_said_to_be_so(hub: Callable[[Row], None]) -> None:
    """And not that a network is missing."""
    hub(Row("deepseek_r1", lambda place: tensors(place, {"encoder.weight": W["W_enc"]}), "o/saes", "R1-l5.pt"))
    with pytest.raises(ValueError, match=r"r, it is damaged, or of a shape .*decoder\.weight"):
        load("r", "it")


def test_a_folder_of_gemma_scope_is_read_as_the_release_is(hub: Callable[[Row], None], tmp_path: Path) -> None:
    """For who has downloaded one: SAELens asks the hub about Gemma Scope 2 even where the files are there."""
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(5)) * 2
    rows = [row for row in ROWS if row.loader in ("gemma_2", "gemma_3") and row.layer and not row.refused]
    for row in rows:
        hub(row)
        released = load("r", "it")
        (folder := tmp_path / row.loader).mkdir()
        row.write(folder)
        ours = load(folder)
        assert torch.allclose(ours.encode(x), released.encode(x), atol=1e-6)
        assert torch.allclose(ours(x), released(x), atol=1e-5)
    assert (ours.model, ours.layer) == (released.model, released.layer) == ("google/gemma-3-270m", 5)
    assert len(rows) == 2
    gemma_scope_2(other := tmp_path / "transcoder" / "layer_5")
    with pytest.raises(ValueError, match=r"is no SAE: a transcoder maps .*pre_feedforward_layernorm"):
        load(other)
