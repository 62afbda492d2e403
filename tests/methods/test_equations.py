"""Each method's equation on a few numbers, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aligned.methods import method
from aligned.methods.base import warmed
from aligned.methods.p_anneal import Annealed
from aligned.sae import SAE

CPU = torch.device("cpu")
STEPS = 24_414  # as many as `dictionary_learning`'s demo has


def with_codes(activation: str, sparsity: float, codes: Tensor, **options: object) -> tuple[SAE, Tensor]:
    """An SAE that writes down each coordinate, and activations whose codes before any are dropped are these."""
    width = codes.shape[1]
    sae = SAE(width, width, activation, sparsity, "none", options=options)
    with torch.no_grad():
        sae.free.copy_(torch.eye(width)), sae.W_dec.copy_(torch.eye(width))
    return sae, codes


def test_topk_keeps_k_of_each_token_and_batchtopk_k_times_batch_of_all() -> None:
    pre = torch.tensor([[5.0, 4, 3, 2], [1, 0.5, -1, -2]])
    for activation, kept in (
        ("topk", [[5, 4, 0, 0], [1, 0.5, 0, 0]]),
        ("batchtopk", [[5, 4, 3, 2], [0, 0, 0, 0]]),
    ):
        sae, x = with_codes(activation, 2, pre)
        assert sae.method.codes(sae, x).tolist() == kept


def test_batchtopks_threshold_is_a_running_mean_of_the_least_code() -> None:
    sae, _ = with_codes("batchtopk", 1, torch.zeros(1, 3))
    codes = torch.tensor([0.0, 0.5, 2.0])
    sae.method.observe(sae, codes, 1000 / STEPS)
    assert sae.threshold == -1  # not before step 1000 of the demo
    sae.method.observe(sae, codes, 1001 / STEPS)
    assert sae.threshold == 0.5
    sae.method.observe(sae, 3 * codes, 1)
    assert sae.threshold.item() == pytest.approx(0.999 * 0.5 + 0.001 * 1.5)
    sae.method.observe(sae, 0 * codes, 1)
    assert sae.threshold.item() == pytest.approx(0.999 * (0.999 * 0.5 + 0.001 * 1.5))


def test_a_coefficient_rises_over_the_warm_up() -> None:
    assert [warmed(2.0, step, STEPS) for step in (0, 1250, 5000, STEPS)] == [0, 0.5, 2, 2]


def test_relus_penalty_is_the_l1_norm_and_its_gradient() -> None:
    penalty = method("relu").penalty(0.5, STEPS, CPU)
    f = torch.tensor([[1.0, 0, 2], [0, 3, 0]])
    value, gradient = penalty(f, 2500, batch=2)  # half of the warm-up
    assert value.item() == pytest.approx(0.25 * 6 / 2)
    assert gradient.item() == pytest.approx(0.25 / 2)


def test_p_falls_in_ten_stages_and_the_penalty_keeps_its_value_there() -> None:
    penalty = method("p_anneal").penalty(0.5, STEPS, CPU)
    assert isinstance(penalty, Annealed)
    f = torch.tensor([4.0, 1, 0])
    assert (penalty.changes[0], penalty.changes[-1]) == (10_000, STEPS)
    assert [penalty.exponent(change + 1) for change in penalty.changes[:3]] == pytest.approx(
        [1, 1 - 0.8 / 9, 1 - 1.6 / 9]
    )
    assert penalty.exponent(5000) == penalty.exponent(10_000) == 1
    assert penalty.exponent(STEPS - 1) == pytest.approx(0.2 + 0.8 / 9)
    for step in range(10_001, penalty.changes[1] + 2):
        value, gradient = penalty(f, step, batch=1)
        assert value.item() == pytest.approx(0.5 * 5, rel=1e-5)
    p = 1 - 0.8 / 9  # and lambda is rescaled by 5 / (4^p + 1^p)
    assert penalty.exponent(penalty.changes[1] + 1) == pytest.approx(p)
    assert penalty.coefficient.item() == pytest.approx(0.5 * 5 / (4**p + 1))
    assert gradient.tolist() == pytest.approx([0.5 * 5 / (4**p + 1) * p * c for c in (4 ** (p - 1), 1, 0)])


def test_jumprelu_keeps_what_is_over_its_threshold_and_pays_for_their_number() -> None:
    sae, x = with_codes("jumprelu", 0.1, torch.tensor([[0.4, 0.51, 2.0]]), bandwidth=0.1, start=0.5)
    f = sae.method.codes(sae, x)
    assert f.tolist() == [[0, pytest.approx(0.51), 2]]
    theta = sae.get_parameter("theta")
    f.sum().backward()
    assert theta.grad.tolist() == pytest.approx([0, -0.5 / 0.1, 0])  # within half a bandwidth of the jump
    theta.grad = None
    cost = sae.method.loss(sae, x, f, 3.0)
    cost.backward()
    assert cost.item() == pytest.approx(3 * 2)
    assert theta.grad.tolist() == pytest.approx([0, -3 / 0.1, 0])
    with torch.no_grad():
        theta.copy_(torch.tensor([-1.0, 0.25, 0.5]))
    sae.method.project(sae)
    assert sae.threshold.tolist() == theta.tolist() == [0, 0.25, 0.5]


def test_gated_is_a_gate_and_a_magnitude_with_a_reconstruction_by_the_gate() -> None:
    sae, x = with_codes("gated", 0.1, torch.tensor([[1.0, 2.0, -1.0]]))
    with torch.no_grad():
        sae.b_enc.copy_(torch.tensor([-1.5, 0.5, 0.5]))
        sae.get_parameter("r_mag").fill_(0.6931472)  # exp of it is 2
        sae.get_parameter("b_mag").fill_(1.0)
    f = sae.method.codes(sae, x)
    assert f.tolist() == [pytest.approx([0, 5, 0])]
    found = sae.method.loss(sae, x, f, 3.0)
    assert found.item() == pytest.approx(3 * 2.5 + (1**2 + 0.5**2 + 1**2))  # the gate alone writes (0, 2.5, 0)
    found.backward()
    assert sae.W_dec.grad is None
    assert sae.b_dec.grad.tolist() == pytest.approx([0, -3 - 2 * 0.5, 0])  # through the encoder alone


def test_matryoshka_adds_the_error_of_each_prefix() -> None:
    sae, x = with_codes("matryoshka", 4, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), prefixes=(0.25, 0.5, 1.0))
    f = sae.method.codes(sae, x)
    assert f.tolist() == [[1, 2, 3, 4]]
    found = sae.method.loss(sae, x, f, 0.0)
    assert found == (2**2 + 3**2 + 4**2) + (3**2 + 4**2)
