"""The language model, against transformers itself, and the embedded one's quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aligned.language import text
from aligned.language.model import EMBEDDED_FOLDER, LanguageModel


@pytest.fixture(scope="module")
def plain():  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER, dtype=torch.float32)


def test_residuals_are_transformers_hidden_states(model: LanguageModel, plain, blocks: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        hidden = plain(blocks, output_hidden_states=True).hidden_states
    for layer in range(model.n_layers - 1):  # transformers norms the last one
        ours = model.residual(blocks, layer)
        assert (ours - hidden[layer + 1]).norm() / hidden[layer + 1].norm() < 1e-5


def test_loss_is_transformers_loss(model: LanguageModel, plain, blocks: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        expected = plain(blocks, labels=blocks).loss
    assert model.token_loss(blocks).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_residual_itself_in_its_place_changes_nothing(model: LanguageModel, blocks: torch.Tensor) -> None:
    clean = model.token_loss(blocks)
    assert torch.allclose(model.token_loss(blocks, 3, model.residual(blocks, 3)), clean, atol=1e-5)
    zero = model.token_loss(blocks, 3, torch.zeros_like(model.residual(blocks, 3)))
    assert zero.mean() > clean.mean() + 1
    assert (zero.std(dim=0) > 0).any()
    assert torch.equal(model.token_loss(blocks), clean)  # and the model is as it was


def test_a_residual_in_its_place_is_as_with_transformer_lens_hooks(model: LanguageModel, blocks: torch.Tensor) -> None:
    for layer in (0, 2, model.n_layers - 1):
        other = torch.randn_like(model.residual(blocks, layer))
        hooks = [(model.hook(layer), lambda value, hook: other)]  # noqa: B023
        loss = model.bridge.run_with_hooks(
            blocks, return_type="loss", loss_per_token=True, fwd_hooks=hooks, prepend_bos=False
        )
        assert torch.allclose(model.token_loss(blocks, layer, other), loss, atol=1e-4)


def test_special_tokens_are_bos_and_separators(model: LanguageModel, blocks: torch.Tensor) -> None:
    special = model.is_special(blocks)
    assert special[:, 0].all()
    assert torch.equal(special, blocks == model.tokenizer.bos_token_id)


def test_the_embedded_model_is_what_its_card_says(model: LanguageModel) -> None:
    """Bits per byte on held-out text near the card's, on a sample; the card's own, within the bounds asked of it."""
    card = json.loads((EMBEDDED_FOLDER / "provenance.json").read_text())
    assert card["bits_per_byte"] <= 1.45
    assert card["bits_per_byte"] < card["xz_9e_bits_per_byte"]
    assert card["bits_per_byte"] < card["bigram_bits_per_byte"]
    assert set(card["held_out_packages"]) == set(text.HELD_OUT_PACKAGES)
    sample = text.token_blocks(text.installed_python("held_out")[::8], model.tokenizer, model.context, blocks=64)
    loss = torch.cat([model.token_loss(x) for x in sample.split(32)])
    assert loss.mean().item() == pytest.approx(card["nats_per_token"], rel=0.1)


def test_the_embedded_models_text_is_what_is_installed() -> None:
    card = json.loads((EMBEDDED_FOLDER / "provenance.json").read_text())
    assert text.fingerprint(text.installed_python("held_out")) == card["held_out_fingerprint"]
    assert text.fingerprint(text.installed_python("train")) == card["train_fingerprint"]


def test_the_embedded_model_is_small_and_ordinary() -> None:
    assert sum(f.stat().st_size for f in EMBEDDED_FOLDER.iterdir()) < 12e6
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in EMBEDDED_FOLDER.iterdir()}


def test_tokenizer_gives_text_back(model: LanguageModel) -> None:
    for doc in text.installed_python("held_out")[:20]:
        assert model.tokenizer.decode(model.tokenizer(doc.text, add_special_tokens=False)["input_ids"]) == doc.text


def test_errors_name_the_remedy(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 6 layers, 0 to 5"):
        model.hook(6)
    with pytest.raises(FileNotFoundError, match="no model at"):
        LanguageModel(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        LanguageModel(str(tmp_path))
    with pytest.raises(ConnectionError, match="Without a network"):
        LanguageModel("nobody/nothing")


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased"])
def test_a_hub_id_has_an_owner(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"a hub id with its owner, such as .*'openai-community/gpt2'"):
        LanguageModel(name)


def test_what_the_hub_library_says_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def refuse(*_: object, **__: object) -> None:
        raise OSError("429 Client Error:\nToo Many Requests. " + "x" * 999)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ConnectionError, match=r"\(429 Client Error: Too Many Requests\. x+\.\.\.\)") as error:
        LanguageModel("EleutherAI/pythia-160m")
    assert len(str(error.value)) < 600


def of_characters(folder: Path, rows: int, **special: str) -> Path:
    """A small model of 95 characters, with room for so many tokens, whose tokenizer has these special tokens alone."""
    import string

    import tokenizers
    import transformers

    letters = tokenizers.models.BPE({letter: number for number, letter in enumerate(string.printable[:95])}, [])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(letters), **special)
    fast.save_pretrained(folder)
    none = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 64}
    config = transformers.GPTNeoXConfig(
        vocab_size=rows, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **none
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("rows", [95, 128])
def test_a_tokenizer_without_special_tokens_is_refused_and_gets_none(rows: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a BOS nor an EOS token"):
        LanguageModel(str(of_characters(tmp_path, rows)), device="cpu")


@pytest.mark.parametrize("only", ["bos_token", "eos_token"])
def test_the_special_tokens_are_those_of_the_models_own_tokenizer(only: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    lm = LanguageModel(str(of_characters(tmp_path, 128, **{only: "<s>"})), device="cpu")
    docs = [text.Document("", "HI")] * 9
    blocks = text.token_blocks(docs, lm.tokenizer, 7)
    assert torch.equal(blocks, text.token_blocks(docs, AutoTokenizer.from_pretrained(tmp_path), 7))
    assert blocks[0].tolist() == [95, 43, 44, 95, 43, 44, 95]
    assert lm.is_special(blocks)[0].tolist() == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertLMHeadModel", "T5ForConditionalGeneration", None])
def test_a_model_that_sees_what_follows_is_refused(kind: str | None, tmp_path: Path) -> None:
    """By its class, or where the configuration names none, by its type."""
    import transformers

    of_characters(tmp_path, 128, bos_token="<s>")
    common = {"architectures": kind and [kind], "vocab_size": 128}
    if kind == "T5ForConditionalGeneration":
        transformers.T5Config(**common).save_pretrained(tmp_path)
    else:
        transformers.BertConfig(**common).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no causal language model"):
        LanguageModel(str(tmp_path), device="cpu")


def test_a_revision_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import transformers
    from huggingface_hub.errors import RevisionNotFoundError

    asked = {}

    def refuse(name: str, revision: str, trust_remote_code: bool) -> None:
        asked[name] = revision
        response = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
        raise OSError("no such revision") from RevisionNotFoundError("no", response=response)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ConnectionError, match="no revision 'step999'; without '@step999'"):
        LanguageModel("EleutherAI/pythia-160m@step999")
    assert asked == {"EleutherAI/pythia-160m": "step999"}


def test_an_error_is_one_line_in_a_notebook() -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    with capture_output() as shown:
        shell.run_cell("from aligned.language.model import LanguageModel\nLanguageModel('nobody/nothing')")
    said = (shown.stdout + shown.stderr).strip()
    assert said.startswith("Unreachable: the model 'nobody/nothing' could not be fetched")
    assert len(said.splitlines()) == 1


def test_bfloat16_is_near_float32_and_takes_half_the_memory(model: LanguageModel, blocks: torch.Tensor) -> None:
    half = LanguageModel("embedded+bfloat16")
    assert repr(half) == "<language model embedded+bfloat16: 6 layers of width 128, on cpu, bfloat16>"
    assert {p.dtype for p in half.bridge.original_model.parameters()} == {torch.bfloat16}
    ours, exact = half.residual(blocks, 3), model.residual(blocks, 3)
    assert ours.dtype == torch.float32
    assert (ours - exact).norm() / exact.norm() < 0.02
    clean = model.token_loss(blocks).mean().item()
    assert half.token_loss(blocks, 3, ours).mean().item() == pytest.approx(clean, rel=0.02)
    assert {p.dtype for p in model.bridge.original_model.parameters()} == {torch.float32}


def test_a_gated_model_asks_for_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import transformers
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: object, **__: object) -> None:
        response = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))
        raise OSError("you are trying to access a gated repo") from GatedRepoError("gated", response=response)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(PermissionError, match="hf auth login"):
        LanguageModel("google/gemma-2-2b")
