"""Two steps, one truth: the step by hand does what the plain one says, for each of its methods and every constraint."""

from __future__ import annotations

import pytest
import torch

from aligned.alignment import CONSTRAINTS
from aligned.methods import METHODS
from aligned.training import autograd, fused
from tests.training.test_training import Synthetic, new, spec

STEPS = 60


@pytest.mark.parametrize("constraint", list(CONSTRAINTS))
@pytest.mark.parametrize("activation", [name for name, kind in METHODS.items() if kind.by_hand])
def test_the_step_by_hand_is_the_plain_one(activation: str, constraint: str) -> None:
    sparsity = 4 if METHODS[activation].keeps != "all" else 0.05
    s, data = spec(activation=activation, sparsity=sparsity, constraint=constraint, soft=0.7), Synthetic()
    plain, fast = autograd.Trainer(new(s), s), fused.Trainer(new(s), s, bf16=False)
    for trainer in (plain, fast):  # with Adam's own eps a gradient of nothing but rounding moves a weight by a whole lr
        trainer.optimizer.param_groups[0]["eps"] = 1e-4
    near = 1e-3 if activation == "p_anneal" else 1e-4  # f^(p - 1) makes much of rounding where f is small
    for step in range(STEPS):
        x = data.batch(0, step, s.batch)
        expected, found = plain.update(x), fast.update(x)
        for name in ("loss", "l0", "fvu"):
            assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-3), (name, step)
    for name, value in plain.sae.state_dict().items():
        assert torch.allclose(fast.sae.state_dict()[name], value, atol=near), name


def test_a_weight_that_is_a_view_is_refused() -> None:
    s = spec(activation="topk", constraint="none")
    sae = new(s)
    sae.free = torch.nn.Parameter(torch.cat([sae.free.detach(), sae.free.detach()], dim=1)[:, : sae.d_in])
    with pytest.raises(ValueError, match="free of this SAE is a view of other memory"):
        fused.Trainer(sae, s)
