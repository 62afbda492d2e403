"""What several test files need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import aligned
from aligned.language import text
from aligned.language.model import LanguageModel
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import Run

SMALL = RunSpec(d_sae=64, sparsity=4, tokens=4096, batch=512, context=64, lr=1e-3)  # trained in a moment


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    """The embedded language model."""
    return LanguageModel("embedded", device="cpu")


@pytest.fixture(scope="session")
def blocks(model: LanguageModel) -> torch.Tensor:
    """Some held-out text."""
    return text.token_blocks(text.documents("installed-python", "held_out"), model.tokenizer, 128, blocks=16)


@pytest.fixture(scope="module", params=[("relu", 0.05), ("topk", 8), ("batchtopk", 8)], ids=lambda param: param[0])
def run(request: pytest.FixtureRequest) -> Run:
    """A run of each kind of SAE that other programs read, trained in seconds."""
    activation, sparsity = request.param
    return aligned.run(
        RunSpec(d_sae=256, activation=activation, sparsity=sparsity, tokens=65_536, batch=512, context=128, lr=2e-3)
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, with the tests' pool of activations."""
    pools = runs.store() / "pools"
    aligned.run(SMALL)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pools").symlink_to(pools)
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    return tmp_path / "store"
