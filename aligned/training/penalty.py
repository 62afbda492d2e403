"""The sparsity penalty of ReLU SAEs: lambda |f|_1, or with p-annealing lambda |f|_p^p (arXiv 2408.00113)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Of the 24,414 steps of `dictionary_learning`'s demo: 5000 of warm-up; p falls from step 10,000 on, in ten stages.
WARMUP, ANNEAL_START = 5000 / 24414, 10_000 / 24414
P_END, STAGES, MEMORY = 0.2, 10, 10


class Penalty:
    """The penalty over the course of a training run.

    With p-annealing p goes down from 1 to 0.2. At each change of p the coefficient is rescaled so that the penalty, on
    the last ten batches, keeps its value.

    Args:
        coefficient: lambda; 0 for no penalty.
        steps: of the whole run.
        anneal: whether p is annealed.
        device: where the codes are.
    """

    def __init__(self, coefficient: float, steps: int, anneal: bool, device: torch.device) -> None:
        self.nothing = coefficient == 0
        self.warmup = max(1, round(WARMUP * steps))
        self.p_values = torch.linspace(1, P_END, STAGES).tolist() if anneal else []
        self.changes = torch.linspace(round(ANNEAL_START * steps), steps, STAGES, dtype=torch.int).tolist()
        self.coefficient = torch.tensor(coefficient, device=device)
        self.recent = torch.full((MEMORY, 2), torch.nan, device=device)  # the penalty's sum with this p and the next

    def p(self, step: int) -> tuple[float, float | None]:
        """The exponent at this step, and the one to come, if it is known yet."""
        stage = sum(step > change for change in self.changes) if self.p_values else 0
        if stage == 0:
            return 1.0, None
        return self.p_values[stage - 1], self.p_values[min(stage, STAGES - 1)]

    def __call__(self, f: Float[Tensor, " *n"], step: int, batch: int) -> tuple[Tensor, Tensor]:
        """The penalty of a batch, and its gradient by each code that is over 0.

        Args:
            f: the batch's codes, in any shape; those that are 0 may be left out.
            step: of training; what is remembered at each is needed later, so every step must be given.
            batch: how many tokens they belong to.
        """
        if self.nothing:
            return self.coefficient, self.coefficient  # 0, where the codes are
        p, following = self.p(step)
        scale = self.coefficient * min(1.0, step / self.warmup)
        total = _total(_power(f, p)) / batch
        gradient = scale / batch if p == 1 else scale * (p / batch) * _power(f, p - 1)
        if following is not None:
            now = torch.stack([total, _total(_power(f, following)) / batch]).detach()
            self.recent[step % MEMORY] = now
            if step in self.changes:
                now, then = self.recent.nanmean(0)
                self.coefficient *= torch.where(then > 0, now / then, 1)  # both are 0 where no feature is active
        return scale * total, gradient


def _power(f: Tensor, p: float) -> Tensor:
    if p == 1:
        return f
    return torch.where(f > 0, f, 1).pow(p) * (f > 0)


def _total(f: Tensor) -> Tensor:
    """The sum, as a product with 1, which in bf16 is far faster than a sum."""
    rows = f if f.ndim > 1 else f[:, None]
    return (rows.new_ones(len(rows)) @ rows).sum(dtype=torch.float32)
