"""The autoencoder: its codes, its errors, and the same SAE for raw activations."""

from __future__ import annotations

import pytest
import torch

from aligned.alignment import alignment_score
from aligned.methods.topk import keep_topk
from aligned.sae import SAE
from tests.plain import keep_batch_topk


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


def test_it_says_what_it_is() -> None:
    sae = SAE(8, 16, activation="topk", sparsity=4, constraint="tied")
    assert repr(sae) == "SAE(16 features of 8 numbers, topk 4, tied)"
    sae.model, sae.layer = "embedded", 3
    assert repr(sae).endswith("tied, of embedded, layer 3)")
    assert repr(sae.for_raw_activations(2.0)) == "SAE(16 features of 8 numbers, topk 4, of embedded, layer 3)"
    sae = SAE(8, 16, activation="jumprelu", sparsity=0.1, options={"bandwidth": 0.002})
    assert repr(sae) == "SAE(16 features of 8 numbers, jumprelu 0.1, bandwidth 0.002, projected)"


def test_relu_is_the_equation(x: torch.Tensor) -> None:
    sae = SAE(d_in=16, d_sae=40, activation="relu", sparsity=0.1)
    with torch.no_grad():
        sae.b_enc.fill_(0.1), sae.b_dec.fill_(0.2)
    expected = torch.clamp((x - 0.2) @ sae.W_enc + 0.1, min=0)
    assert torch.allclose(sae.encode(x), expected, atol=1e-6)
    assert torch.allclose(sae(x), expected @ sae.W_dec + 0.2, atol=1e-6)


def test_topk_keeps_the_k_largest_of_each_token(x: torch.Tensor) -> None:
    f = x.relu()
    kept = keep_topk(f, 3)
    for before, after in zip(f, kept):
        largest = before.sort(descending=True).values[:3]
        assert torch.equal(after.sort(descending=True).values[:3], largest)
        assert (after > 0).sum() <= 3


def test_batchtopk_keeps_the_largest_of_the_batch(x: torch.Tensor) -> None:
    sae = SAE(d_in=16, d_sae=40, activation="batchtopk", sparsity=2)
    f, kept = sae.pre_activations(x), sae.method.codes(sae, x)
    assert torch.equal(kept, keep_batch_topk(f, 2))
    assert (kept > 0).sum() == 2 * len(x)
    assert kept[kept > 0].min() >= f[kept == 0].max()
    assert (kept > 0).sum(1).unique().numel() > 1  # of one token more, of another fewer


def test_batchtopk_uses_its_threshold_once_it_has_one(x: torch.Tensor) -> None:
    sae = SAE(d_in=16, d_sae=40, activation="batchtopk", sparsity=4)
    assert (sae.encode(x) > 0).sum(1).max() <= 4
    sae.threshold.fill_(0.8)
    f = sae.pre_activations(x)
    assert torch.equal(sae.encode(x), torch.where(f > 0.8, f, 0.0))


@pytest.mark.parametrize("constraint", ["none", "projected", "householder", "tied"])
@pytest.mark.parametrize("activation", ["relu", "topk", "batchtopk"])
def test_for_raw_activations_is_the_same_sae(x: torch.Tensor, activation: str, constraint: str) -> None:
    sae = SAE(16, 40, activation, 4, constraint, seed=1)  # type: ignore[arg-type]
    with torch.no_grad():
        sae.b_enc.add_(0.05), sae.b_dec.add_(0.1), sae.threshold.fill_(0.3)
    mean = torch.linspace(-9, 9, 16)
    raw = sae.for_raw_activations(0.01, mean)
    assert torch.allclose(raw.encode(100 * x + mean), sae.encode(x), atol=1e-5)
    assert torch.allclose(raw(100 * x + mean), 100 * sae(x) + mean, rtol=1e-4, atol=1e-4)
    assert torch.allclose(alignment_score(raw), alignment_score(sae), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("d_sae", 0, "d_sae is 0"),
        ("d_in", -1, "d_in is -1"),
        ("sparsity", 0, "from 1 to d_sae = 40"),
        ("sparsity", 41, "from 1 to d_sae = 40"),
        ("sparsity", 2.5, "whole number"),
        ("activation", "gelu", "activation is .gelu.; it is one of batchtopk, gated, jumprelu"),
        ("constraint", "aligned", "none, projected, householder"),
        ("init", "big", "unit, small"),
    ],
)
def test_what_is_not_allowed_is_named(field: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SAE(**{"d_in": 16, "d_sae": 40, "sparsity": 4, field: value})


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sparsity is -0\.1"):
        SAE(16, 40, "relu", -0.1)


def test_rows_and_biases_start_as_init_says() -> None:
    unit, small = (SAE(16, 1000, "relu", 0.1, "none", init) for init in ("unit", "small"))  # type: ignore[arg-type]
    for sae, norm in ((unit, 1), (small, 0.1)):
        assert torch.equal(sae.W_enc.T, sae.W_dec)
        assert torch.allclose(sae.W_dec.norm(dim=1), torch.full((1000,), float(norm)))
    assert not unit.b_enc.any()
    assert 0.24 < small.b_enc.max() <= 16**-0.5  # of 1000 numbers, uniform up to 1/4, the largest
    assert -0.24 > small.b_enc.min() >= -(16**-0.5)
    assert abs(small.b_enc.mean()) < 0.02


def test_the_small_start_makes_an_aligned_encoder_long_and_unit_decoder_rows_do_not() -> None:
    of = {init: SAE(16, 1000, "relu", 0.1, "projected", init) for init in ("small", "small_encoder")}  # type: ignore[arg-type]
    lengths = {init: sae.W_enc.norm(dim=0) for init, sae in of.items()}
    assert torch.allclose(lengths["small"], torch.full((1000,), 10.0), rtol=1e-4)
    assert torch.allclose(lengths["small_encoder"], torch.ones(1000), rtol=1e-4)
    small, other = of.values()
    assert torch.equal(small.free, other.free)
    assert torch.equal(small.b_enc, other.b_enc)
    assert torch.allclose(other.W_dec, 10 * small.W_dec)
    standard = SAE(16, 1000, "relu", 0.1, "none", "small_encoder")
    assert torch.allclose(torch.diag(standard.W_dec @ standard.W_enc), torch.full((1000,), 0.1), rtol=1e-4)


def test_seeds_differ_and_repeat() -> None:
    assert torch.equal(SAE(16, 40, sparsity=4, seed=3).W_dec, SAE(16, 40, sparsity=4, seed=3).W_dec)
    assert not torch.equal(SAE(16, 40, sparsity=4, seed=3).W_dec, SAE(16, 40, sparsity=4, seed=4).W_dec)
