"""The settings of the paper's stack (`dictionary_learning`'s demo), scaled to the token budget.

Adam with a linear warm-up and a linear decay over the last fifth; for a sparsity coefficient a warm-up of its own
(`aligned.methods.base`); decoder rows of norm 1: the gradient along a row is removed, and the row is rescaled after
the step.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.alignment import dot

# Of the demo's 24,414 steps (50M tokens): 1000 steps of warm-up, decay over the last 20 %; a feature is dead that has
# not fired for 10M tokens.
WARMUP, DECAY, DEAD = 1000 / 24414, 0.2, 0.2
CLIP = 1.0  # of the gradient's norm, for methods that keep k codes, as in the paper's stack


def learning_rate_scale(step: int, steps: int) -> float:
    """Up from 0 over the warm-up, level, down to 0 over the last fifth."""
    warmup, decay_start = round(WARMUP * steps), round((1 - DECAY) * steps)
    if step < warmup:
        return step / warmup
    return 1.0 if step < decay_start else (steps - step) / (steps - decay_start)


@torch.no_grad()
def remove_parallel_gradient(rows: Tensor) -> None:
    """Take from a gradient what would only change the length of a row."""
    assert rows.grad is not None
    unit = rows / rows.norm(dim=1, keepdim=True)
    rows.grad -= dot(rows.grad, unit) * unit


@torch.no_grad()
def geometric_median(x: Float[Tensor, "n d_in"], steps: int = 100, tolerance: float = 1e-5) -> Float[Tensor, " d_in"]:
    """The point with the least sum of distances to the rows of x, by Weiszfeld's iteration."""
    guess = x.mean(0)
    for _ in range(steps):
        weight = 1 / (x - guess).norm(dim=1, keepdim=True).clamp_min(1e-12)
        last, guess = guess, (weight * x).sum(0) / weight.sum()
        if (guess - last).norm() < tolerance:
            break
    return guess
