"""Held-out text: labels, activations and tokens belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aligned.language import text
from aligned.language.any_text import NAMES
from aligned.language.held_out import held_out
from aligned.language.labels import CONCEPTS
from aligned.language.model import LanguageModel


def test_tokens_labels_and_activations_belong_together(model: LanguageModel) -> None:
    found = held_out(model, 2, 1000, context=64)
    assert found.tokens.shape == (16, 64)
    expected = text.token_blocks(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 64, 16)
    assert torch.equal(found.tokens, expected)
    assert torch.allclose(found.x[3], model.residual(found.tokens[3:4], 2)[0], atol=1e-4)
    x, words = found.kept
    assert len(x) == len(words) == found.keep.sum()
    commas = found.tokens[found.keep] == model.tokenizer.convert_tokens_to_ids(",")
    labelled = (words >> np.uint64(CONCEPTS.index("comma"))) & np.uint64(1) == 1
    prose = np.uint64(sum(1 << CONCEPTS.index(name) for name in ("string", "comment")))
    code = commas.numpy() & (words & prose == 0)
    assert code.sum() > 5
    assert labelled[code].all()


def test_text_that_is_not_python_has_labels_that_any_text_has(
    model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(f"No. {i}: neither this ( nor that parses. " * 20)
    found = held_out(model, 0, 100, context=32, source=str(tmp_path))
    assert found.names[: len(NAMES)] == NAMES
    assert 'the word "neither"' in found.names
    brackets = (found.labels >> np.uint64(NAMES.index("opening bracket"))) & np.uint64(1) == 1
    expected = torch.isin(found.tokens, torch.tensor(model.tokenizer.convert_tokens_to_ids(["(", "Ġ("])))
    assert brackets.any()
    assert (brackets == expected.numpy()).all()
    assert f"{tmp_path} is not read as Python: its tokens get labels that any text has" in capsys.readouterr().out
    held_out(model, 0, 100, context=32)
    assert not capsys.readouterr().out


def test_what_cannot_be_read_is_refused(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="layer is 9; embedded has 6 layers"):
        held_out(model, 9, 100)
    with pytest.raises(ValueError, match="tokens is 0; it is a whole number from 1"):
        held_out(model, 3, 0)
    with pytest.raises(ValueError, match="takes blocks of at most 256 tokens"):
        held_out(model, 0, 100, context=500)
