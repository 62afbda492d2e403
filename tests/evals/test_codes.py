"""Sparse codes are the codes, however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aligned.evals import codes as module
from aligned.evals.codes import by_feature, codes
from aligned.sae import SAE


def sae(activation: str, threshold: float | torch.Tensor = -1.0) -> SAE:
    made = SAE(16, 300, activation, 0 if activation == "relu" else 5, "none")  # type: ignore[arg-type]
    made.threshold = torch.as_tensor(threshold)
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    ("activation", "threshold"),
    [("relu", -1.0), ("relu", torch.linspace(0, 1, 300)), ("topk", -1.0), ("batchtopk", -1.0), ("batchtopk", 0.4)],
)
def test_sparse_codes_are_the_codes(
    activation: str, threshold: float | torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = sae(activation, threshold), torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    expected = made.encode(x).numpy()
    monkeypatch.setattr(module, "_DENSE", 300 * 7)  # 7 tokens at a time
    found = codes(made, x)
    assert np.allclose(found.toarray(), expected, atol=1e-6)
    assert found.nnz == (expected > 0).sum()
    some = torch.tensor([7, 3, 250])
    assert np.allclose(codes(made, x, some).toarray(), expected[:, some], atol=1e-6)
    backwards = torch.arange(299, -1, -1)
    (turned,) = by_feature(made, x, backwards)
    assert np.allclose(turned.toarray(), expected[:, backwards], atol=1e-6)
    for room in (2**28, 200):
        monkeypatch.setattr(module, "_CODES", room)
        pieces = list(by_feature(made, x))
        assert (len(pieces) > 1) == (room == 200)
        assert np.allclose(np.concatenate([p.toarray() for p in pieces], axis=1), expected, atol=1e-6)
        assert all(p.has_sorted_indices for p in pieces)


def test_a_feature_that_never_fires_has_its_place() -> None:
    made = sae("relu")
    made.b_enc[:] = -1000
    found = codes(made, torch.randn(10, 16))
    assert found.shape == (10, 300)
    assert found.nnz == 0
    assert [p.shape for p in by_feature(made, torch.randn(10, 16))] == [(10, 300)]


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="width 8, and the SAE reads 16"):
        codes(sae("relu"), torch.randn(10, 8))
