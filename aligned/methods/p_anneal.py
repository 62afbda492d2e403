"""ReLU with an L_p penalty whose p falls in training (arXiv 2408.00113).

    loss = |x - x_hat|^2 + lambda |f|_p^p,    p from 1 to 0.2 in ten stages

At each change of p, lambda is rescaled so that the penalty, on the last ten batches, keeps its value.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.methods.base import Method, Penalty, warmed
from aligned.methods.relu import total

ANNEAL_START = 10_000 / 24414  # of the steps of `dictionary_learning`'s demo
P_END, STAGES, MEMORY = 0.2, 10, 10


class Annealed(Penalty):
    """lambda |f|_p^p, with lambda rising over the warm-up and p falling thereafter."""

    def __init__(self, coefficient: float, steps: int, device: torch.device) -> None:
        super().__init__(coefficient, steps, device)
        self.p_values = torch.linspace(1, P_END, STAGES).tolist()
        self.changes = torch.linspace(round(ANNEAL_START * steps), steps, STAGES, dtype=torch.int).tolist()
        self.recent = torch.full((MEMORY, 2), torch.nan, device=device)  # the penalty's sum with this p and the next
        self.state = {"coefficient": self.coefficient, "recent": self.recent}

    def exponent(self, step: int) -> float:
        stage = self._stage(step)
        return self.p_values[stage - 1] if stage else 1.0

    def __call__(self, f: Float[Tensor, " *n"], step: int, batch: int) -> tuple[Tensor, Tensor]:
        p = self.exponent(step)
        scale = self.coefficient * warmed(1.0, step, self.steps)
        now = total(power(f, p)) / batch
        gradient = scale / batch if p == 1 else scale * (p / batch) * power(f, p - 1)
        if stage := self._stage(step):
            following = total(power(f, self.p_values[min(stage, STAGES - 1)])) / batch
            self.recent[step % MEMORY] = torch.stack([now, following]).detach()
            if step in self.changes:
                before, after = self.recent.nanmean(0)
                # both are 0 where no feature is active
                self.coefficient *= torch.where(after > 0, before / after, 1)
        return scale * now, gradient

    def _stage(self, step: int) -> int:
        return sum(step > change for change in self.changes)


def power(f: Tensor, p: float) -> Tensor:
    """f^p where f is over 0."""
    return f if p == 1 else torch.where(f > 0, f, 1).pow(p) * (f > 0)


class PAnneal(Method):
    """ReLU with an L_p penalty whose p falls in training."""

    name: ClassVar[str] = "p_anneal"
    by_hand: ClassVar[bool] = True

    def penalty(self, sparsity: float, steps: int, device: torch.device) -> Penalty:
        return Annealed(sparsity, steps, device)
