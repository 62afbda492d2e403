"""Our runs are SAELens SAEs, and anyone's SAEs can be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

import aligned
from aligned.evals import recovery
from aligned.evals.codes import codes
from aligned.formats import load, load_saelens, save_saelens
from aligned.language.model import LanguageModel
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.store.runs import Run
from tests import peer  # noqa: F401  (lets dictionary_learning be imported)


def test_saelens_opens_a_run_as_a_stock_sae(run: Run, model: LanguageModel, blocks: torch.Tensor) -> None:
    import sae_lens

    theirs = sae_lens.SAE.load_from_disk(str(run.path))
    x = model.residual(blocks, 3)[:, 1:].flatten(0, 1)
    assert torch.allclose(theirs.encode(x), run.sae.encode(x), atol=1e-5)
    assert torch.allclose(theirs(x), run.sae(x), rtol=1e-5, atol=1e-4)
    assert theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    assert theirs.cfg.metadata.model_name == "embedded"
    assert theirs.cfg.metadata.context_size == 128


def test_a_run_can_be_uploaded_and_says_how_it_was_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own call the whole folder; by SAELens's call what an SAE needs."""
    from sae_lens.training import upload_saes_to_huggingface as upload

    sent: dict[str, list[str]] = {}

    def fake(_: object, folder_path: Path, path_in_repo: str, allow_patterns: list[str], **__: object) -> None:
        sent[path_in_repo] = [name for name in os.listdir(folder_path) if name in allow_patterns]

    monkeypatch.setattr(upload, "_repo_exists", lambda *_: True)
    monkeypatch.setattr(upload.HfApi, "upload_folder", fake)
    upload.upload_saes_to_huggingface({"layer-3": run.path}, "someone/saes", add_default_readme=False)
    assert sent.keys() == {"layer-3"}
    assert set(sent["layer-3"]) == {"cfg.json", "sae_weights.safetensors"}
    card = (run.path / "README.md").read_text()
    assert f"commit {run.provenance['commit']}" in card
    assert eval(card.split("aligned.run(aligned.")[1].split("\n")[0][:-1], {"RunSpec": RunSpec}) == run.spec


def test_a_models_revision_and_dtype_stand_where_saelens_looks_for_them(tmp_path: Path) -> None:
    import sae_lens

    sae = SAE(8, 16, "topk", 2)
    sae.model, sae.layer = "EleutherAI/pythia-160m@step143000+bfloat16", 3
    save_saelens(sae, tmp_path, {"hook_name": "blocks.3.hook_resid_post"})
    metadata = sae_lens.SAE.load_from_disk(tmp_path).cfg.metadata
    assert metadata.model_name == "EleutherAI/pythia-160m"
    assert metadata.model_from_pretrained_kwargs == {"revision": "step143000", "dtype": "bfloat16"}
    assert load(tmp_path).model == sae.model
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["metadata"] = {k: v for k, v in config["metadata"].items() if not k.startswith("aligned_")}
    (tmp_path / "cfg.json").write_text(json.dumps(config))  # as if it were another's
    assert load(tmp_path).model == "EleutherAI/pythia-160m@step143000"


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
    sae = SAE(128, 64, "topk", 4)
    with pytest.raises(ValueError, match="at most 256 tokens"):
        recovery(sae, model, blocks.reshape(2, -1), 3)
    with pytest.raises(ValueError, match=r"blocks of tokens.*\(0, 128\)"):
        recovery(sae, model, blocks[:0], 3)
    of_both = [recovery(sae, model, shape, 3)["ce_clean"] for shape in (blocks[:2], blocks[:2].reshape(4, -1))]
    assert of_both[0] < of_both[1]  # the same tokens in shorter blocks are harder to predict
    with pytest.raises(ValueError, match="width 64, and embedded has width 128"):
        recovery(SAE(64, 64, sparsity=4), model, blocks, layer=3)


def test_saving_and_loading_gives_the_same_sae(tmp_path: Path) -> None:
    sae = SAE(32, 100, "batchtopk", 5, "projected", seed=2).for_raw_activations(0.02)
    sae.threshold.fill_(0.4)
    save_saelens(sae, tmp_path / "a", {})
    again = load_saelens(tmp_path / "a")
    for name, value in sae.state_dict().items():
        read = again.state_dict()[name]
        assert torch.equal(value.expand_as(read), read), name
    assert (aligned.alignment_score(again) - 1).abs().max() < 1e-5


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no cfg\.json"):
        load_saelens(tmp_path)
    save_saelens(SAE(8, 16, sparsity=2), tmp_path, {})
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_saelens(tmp_path)


def test_what_was_tampered_with_is_refused(tmp_path: Path) -> None:
    save_saelens(SAE(8, 16, sparsity=2), tmp_path, {})
    with pytest.raises(FileNotFoundError, match="is a file; give the folder"):
        load(tmp_path / "cfg.json")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(tmp_path / "nowhere", "an id")
    config = json.loads((tmp_path / "cfg.json").read_text())
    for broken in ([], {**config, "metadata": {**config["metadata"], "aligned_sparsity": "x"}}):
        (tmp_path / "cfg.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="damaged"):
            load(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "sae_weights.safetensors")
    for name, tensor, says in (
        ("b_dec", torch.zeros(1), r"b_dec is \(1,\), and with this decoder it is \(8,\)"),
        ("W_enc", weights["W_enc"] * torch.nan, "W_enc of this SAE is not finite"),
    ):
        save_file({**weights, name: tensor}, tmp_path / "sae_weights.safetensors")
        with pytest.raises(ValueError, match=says):
            load(tmp_path)


KINDS = ["standard", "topk", "topk_scaled", "jumprelu", "gated"]


@pytest.fixture(params=KINDS)
def theirs(request: pytest.FixtureRequest) -> Any:
    """A SAELens SAE with random weights, of each kind that can be read."""
    import sae_lens

    common = {"d_in": 8, "d_sae": 24, "metadata": SAEMetadata(hook_name="blocks.5.hook_resid_pre")}
    kind = request.param
    sae = {
        "standard": lambda: sae_lens.StandardSAE(sae_lens.StandardSAEConfig(apply_b_dec_to_input=False, **common)),
        "topk": lambda: sae_lens.TopKSAE(sae_lens.TopKSAEConfig(k=4, rescale_acts_by_decoder_norm=False, **common)),
        "topk_scaled": lambda: sae_lens.TopKSAE(
            sae_lens.TopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, **common)
        ),
        "jumprelu": lambda: sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(**common)),
        "gated": lambda: sae_lens.GatedSAE(sae_lens.GatedSAEConfig(**common)),
    }[kind]()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
        if kind == "jumprelu":
            sae.threshold.abs_()
    return sae


def test_a_saelens_sae_of_any_kind_is_read(theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sae_lens

    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    theirs.save_inference_model(tmp_path) if hasattr(theirs, "save_inference_model") else theirs.save_model(tmp_path)
    ours = load(tmp_path)
    expected = theirs.encode(x)
    assert (expected > 0).float().mean() < 0.9
    if not getattr(theirs.cfg, "rescale_acts_by_decoder_norm", False):  # there ours has the decoder's norm in its codes
        assert torch.allclose(ours.encode(x), expected, atol=1e-5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)
    assert ours.layer == 4  # hook_resid_pre of layer 5
    assert torch.allclose(torch.from_numpy(codes(ours, x).toarray()), ours.encode(x), atol=1e-5)

    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", lambda *_, **__: theirs)
    assert torch.equal(load("some-release", "layer_5").W_dec, ours.W_dec)

    scores = aligned.alignment_score(ours)
    if theirs.cfg.architecture() == "gated":  # its encoder of magnitudes
        assert torch.allclose(scores, aligned.alignment_score(theirs) * theirs.r_mag.exp(), atol=1e-5)
    else:
        assert torch.allclose(scores, aligned.alignment_score(theirs), atol=1e-5)

    save_saelens(ours, tmp_path / "again", {})
    again = load(tmp_path / "again")
    assert torch.equal(again.encode(x), ours.encode(x))
    assert torch.allclose(sae_lens.SAE.load_from_disk(tmp_path / "again")(x), ours(x), atol=1e-5)


DICTIONARIES = ["AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK",
                "BatchTopKSAE", "MatryoshkaBatchTopKSAE"]  # fmt: skip


def their_dictionary(kind: str, folder: Path) -> Any:
    """A dictionary of the peer with random weights, in a folder such as its trainer writes."""
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = {
        "AutoEncoderTopK": lambda: AutoEncoderTopK(8, 24, 4),
        "BatchTopKSAE": lambda: BatchTopKSAE(8, 24, 4),
        "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(8, 24, 4, [8, 16]),
    }
    torch.manual_seed(0)
    theirs = made[kind]() if kind in made else getattr(dictionary, kind)(8, 24)
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn_like(value).abs() / 4 if name == "threshold" else torch.randn_like(value) / 2)
    torch.save(theirs.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "layer": 8, "dict_size": 24}}))
    return theirs


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_a_dictionary_of_the_papers_stack_is_read(kind: str, tmp_path: Path) -> None:
    theirs = their_dictionary(kind, tmp_path)
    ours = load(tmp_path)
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    expected = theirs.encode(x)
    assert 0 < (expected > 0).float().mean() < 0.9
    assert torch.allclose(ours.encode(x), expected, atol=1e-5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)
    assert ours.layer == 8


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import sae_lens
    from huggingface_hub.errors import GatedRepoError

    with pytest.raises(FileNotFoundError, match="no folder 'nowhere'; of a SAELens release give the sae_id too"):
        load("nowhere")
    with pytest.raises(FileNotFoundError, match=r"a dictionary_learning folder an ae\.pt"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"SAELens knows no SAE 'a' of a release 'gpt2.*Valid IDs are"):
        load("gpt2-small-res-jb", "a")

    def raises(error: Exception) -> None:
        def fetch(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(sae_lens.SAE, "from_pretrained", fetch)

    raises(OSError("no route to host"))
    with pytest.raises(ConnectionError, match="'a' of the release 'nobody/saes' could not be fetched"):
        load("nobody/saes", "a")
    raises(GatedRepoError("gated", response=httpx.Response(403, request=httpx.Request("GET", "https://example.org"))))
    with pytest.raises(PermissionError, match="the release 'nobody/saes' needs a login"):
        load("nobody/saes", "a")

    their_dictionary("AutoEncoder", tmp_path)
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "CrossCoder"}}')
    with pytest.raises(ValueError, match=r"holds a CrossCoder; those that can be read: AutoEncoder, "):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "BatchTopKSAE"}}')
    with pytest.raises(ValueError, match="does not say its k"):
        load(tmp_path)

    class Trap:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "trapped").touch, ())

    torch.save({"encoder.weight": Trap()}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="holds more than tensors, and was not read"):
        load(tmp_path)
    assert not (tmp_path / "trapped").exists()
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load(tmp_path)

    (tmp_path / "cfg.json").write_text('{"architecture": "tree", "d_in": 3}')
    with pytest.raises(FileNotFoundError, match=r"holds no sae_weights\.safetensors"):
        load(tmp_path)
    (tmp_path / "sae_weights.safetensors").touch()
    with pytest.raises(ValueError, match="is of the architecture 'tree'; standard, topk"):
        load(tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load(tmp_path)
    scaled = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(8, 24, normalize_activations="layer_norm"))
    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", lambda *_, **__: scaled)
    with pytest.raises(ValueError, match=r"r, a normalizes its input \(layer_norm\)"):
        load("r", "a")
