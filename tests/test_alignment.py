"""The constraints: <e, d> = 1, whatever v and d are."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aligned import alignment
from aligned.alignment import CONSTRAINTS, HARD
from aligned.sae import SAE, Init


def rows(seed: int, n: int, d_in: int, length: float = 1.0) -> Tensor:
    x = torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return length * x / x.norm(dim=1, keepdim=True)


shapes = {"seed": st.integers(0, 10_000), "n": st.integers(1, 40), "d_in": st.integers(2, 64)}


@pytest.mark.parametrize("constraint", HARD)
@given(**shapes, length=st.floats(0.1, 10), decoder=st.floats(0.05, 20))
@settings(deadline=None, max_examples=60)
def test_score_is_one_for_any_free_vector_and_any_decoder(
    constraint: str, seed: int, n: int, d_in: int, length: float, decoder: float
) -> None:
    d = rows(seed + 1, n, d_in, decoder)
    v = rows(seed, n, d_in - (constraint == "householder"), length)
    if constraint == "rescaled":
        assume(alignment.dot(v / length, d / decoder).abs().min() > 1e-3)  # its pole
    e = CONSTRAINTS[constraint](v, d)
    assert torch.allclose(alignment.dot(e, d), torch.ones(n, 1, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize(
    ("constraint", "e"),
    [
        ("none", [1, 1]),
        ("soft", [1, 1]),
        ("post_step", [1, 1]),
        ("projected", [0.5, 1]),
        ("detached", [0.5, 1]),
        ("rescaled", [0.5, 0.5]),
        ("tied", [0.5, 0]),
    ],
)
def test_each_constraint_is_its_equation(constraint: str, e: list[float]) -> None:
    """Worked out by hand for v = (1, 1) and d = (2, 0): <v, d> = 2 and |d|^2 = 4."""
    v, d = torch.tensor([[1.0, 1]]), torch.tensor([[2.0, 0]])
    assert CONSTRAINTS[constraint](v, d).tolist() == [e]


@pytest.mark.parametrize(("d", "e"), [([2.0, 0], [0.5, -1.5]), ([-2.0, 0], [-0.5, -1.5])])
def test_householder_is_its_equation(d: list[float], e: list[float]) -> None:
    """Worked out by hand for u = 3; at d = (-2, 0) nothing is reflected."""
    assert alignment.householder(torch.tensor([[3.0]]), torch.tensor([d])).tolist() == [e]


@given(**shapes)
@settings(deadline=None, max_examples=40)
def test_projected_is_the_nearest_point_of_the_hyperplane(seed: int, n: int, d_in: int) -> None:
    v, d = rows(seed, n, d_in, 2.0), rows(seed + 1, n, d_in, 1.5)
    for i in range(n):  # an independent solution: the least change x of v with <v + x, d> = 1
        least = torch.linalg.lstsq(d[i : i + 1], (1 - v[i] @ d[i]).view(1, 1)).solution.flatten()
        assert torch.allclose(alignment.projected(v, d)[i], v[i] + least, atol=1e-9)


def test_projected_leaves_what_is_aligned_as_it_is() -> None:
    v, d = rows(1, 8, 5), rows(0, 8, 5, 3.0)
    e = alignment.projected(v, d)
    assert torch.allclose(alignment.projected(e, d), e)


@given(**shapes)
@settings(deadline=None, max_examples=40)
def test_householder_reaches_every_encoder_that_projected_reaches(seed: int, n: int, d_in: int) -> None:
    v, d = rows(seed, n, d_in, 2.0), rows(seed + 1, n, d_in, 0.7)
    assume((d[:, 0] / 0.7).min() > -0.999)
    e = alignment.projected(v, d)
    assert torch.allclose(alignment.householder(alignment.householder_free(e, d), d), e, atol=1e-7)


def test_householder_is_a_reflection_that_takes_the_first_axis_to_minus_d() -> None:
    d = rows(3, 6, 7)
    axis = torch.zeros(6, 7, dtype=torch.float64)
    axis[:, 0] = 1
    assert torch.allclose(alignment._reflect(axis, d), -d)
    x = rows(4, 6, 7, 3.0)
    assert torch.allclose(alignment._reflect(x, d).norm(dim=1), x.norm(dim=1))


def test_detached_sends_no_gradient_to_the_decoder() -> None:
    for constraint, reaches in (("projected", True), ("detached", False)):
        v, d = rows(0, 4, 6, 2.0).requires_grad_(), rows(1, 4, 6).requires_grad_()
        CONSTRAINTS[constraint](v, d).square().sum().backward()
        assert (d.grad is not None and bool(d.grad.abs().sum() > 0)) is reaches
        assert v.grad is not None


def test_projected_has_no_gradient_along_the_decoder() -> None:
    v, d = rows(0, 4, 6, 2.0).requires_grad_(), rows(1, 4, 6)
    (alignment.projected(v, d) * rows(2, 4, 6)).sum().backward()
    assert torch.allclose(alignment.dot(v.grad, d), torch.zeros(4, 1, dtype=torch.float64), atol=1e-12)


def test_no_gradient_is_cut_on_its_way() -> None:
    for constraint in ("projected", "rescaled", "tied"):
        v, d = rows(0, 3, 4, 1.2).requires_grad_(), (rows(0, 3, 4) + 0.1).requires_grad_()
        assert torch.autograd.gradcheck(CONSTRAINTS[constraint], (v, d))
    u, d = rows(2, 3, 3).requires_grad_(), rows(1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(alignment.householder, (u, d))


@pytest.mark.parametrize("constraint", HARD)
@pytest.mark.parametrize("init", get_args(Init))
def test_a_new_sae_is_aligned_and_tied_in_direction(constraint: str, init: str) -> None:
    sae = SAE(d_in=32, d_sae=100, constraint=constraint, init=init, sparsity=4, seed=5)  # type: ignore[arg-type]
    assert (alignment.alignment_score(sae) - 1).abs().max() < 1e-5
    cosine = torch.cosine_similarity(sae.W_enc.T, sae.W_dec, dim=1)
    assert (cosine - 1).abs().max() < 1e-5


def test_score_is_the_diagonal_of_the_product() -> None:
    sae = SAE(d_in=8, d_sae=20, constraint="none", sparsity=2)
    with torch.no_grad():
        sae.free.add_(0.3 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(alignment.alignment_score(sae), torch.diag(sae.W_dec @ sae.W_enc), atol=1e-6)


def test_penalty_is_zero_exactly_when_all_scores_are_one() -> None:
    d = rows(1, 5, 6)
    assert alignment.alignment_penalty(alignment.projected(rows(0, 5, 6), d), d).item() == pytest.approx(0, abs=1e-12)
    assert alignment.alignment_penalty(0.5 * d, d).item() == pytest.approx(0.25)


def test_penalty_pulls_every_score_towards_one() -> None:
    d = rows(1, 5, 6)
    e = (0.5 * d).requires_grad_()
    alignment.alignment_penalty(e, d).backward()
    assert torch.allclose(e.grad, 2 * (0.5 - 1) * d / 5)
