"""What every trainer keeps beside the SAE, and how it is put into a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aligned import files
from aligned.precision import Precision
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training.schedule import DEAD


class Training(ABC):
    """One SAE in training: what changes from step to step.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it.
        fused: whether the optimizer walks all weights in one pass.
    """

    def __init__(self, sae: SAE, spec: RunSpec, fused: bool) -> None:
        self.sae, self.spec, self.method = sae, spec, sae.method
        self.step = 0
        device = sae.b_dec.device
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=spec.lr, betas=self.method.betas, fused=fused)
        self.penalty = self.method.penalty(spec.sparsity, spec.steps, device)
        self.unfired = torch.zeros(sae.d_sae, dtype=torch.long, device=device)  # tokens since a feature fired
        self.patience = DEAD * spec.tokens  # so many, and it is dead
        self.failed = torch.tensor(-1, device=device)  # the first step whose loss was not finite

    @abstractmethod
    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step."""

    @property
    def precision(self) -> Precision:
        """Of the dense products."""
        return "float32"

    def _note(self, loss: Float[Tensor, ""], fired: Bool[Tensor, " d_sae"], batch: int) -> None:
        """End a step: count what did not fire, and note a loss that is not finite. Waits for no GPU."""
        self.unfired.add_(batch).masked_fill_(fired, 0)
        self.failed.masked_fill_((self.failed < 0) & ~loss.isfinite(), self.step)
        self.step += 1

    @torch.no_grad()
    def dead(self) -> float:
        """Share of features that have not fired for a fifth of the token budget (10M of the demo's 50M)."""
        return (self.unfired >= self.patience).float().mean().item()

    def tensors(self) -> dict[str, Tensor]:
        """All that a later step depends on."""
        state = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        state |= {"unfired": self.unfired, **self.penalty.state}
        return state | files.optimizer_tensors(self.optimizer, "adam")

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on where `tensors` were taken."""
        self.sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        files.restore_optimizer(self.optimizer, "adam", tensors)
        self.unfired.copy_(tensors["unfired"])
        for name, value in self.penalty.state.items():
            value.copy_(tensors[name])
        self.step = step
