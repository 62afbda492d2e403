"""What several test files need."""

from __future__ import annotations

import pytest
import torch

from aligned import text
from aligned.model import LanguageModel


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """The embedded language model."""
    return LanguageModel("embedded", device="cpu")


@pytest.fixture(scope="session")
def blocks(model: LanguageModel) -> torch.Tensor:
    """Some held-out text."""
    return text.token_blocks(text.documents("installed-python", "held_out"), model.tokenizer, 128, blocks=16)
