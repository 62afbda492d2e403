"""Matryoshka: BatchTopK whose first features must also reconstruct by themselves (arXiv 2503.17547, equation 3).

    loss = sum over prefixes m of |x - (f[:m] W_dec[:m] + b_dec)|^2

The last prefix is the whole dictionary. By default the prefixes grow as in `dictionary_learning`'s demo; its trainer
divides the sum by the number of prefixes, twice, and SAELens takes it as it stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from aligned.methods.base import Autoencoder
from aligned.methods.batchtopk import BatchTopK


@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """BatchTopK whose first features must also reconstruct by themselves."""

    name: ClassVar[str] = "matryoshka"
    by_hand: ClassVar[bool] = False
    auxk: ClassVar[bool] = False

    prefixes: tuple[float, ...] = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # shares of d_sae

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(map(float, self.prefixes)))
        edges = (0.0, *self.prefixes)
        if edges[-1] != 1 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"prefixes are {self.prefixes}; they grow from over 0 to 1, each a share of d_sae")

    def loss(
        self, sae: Autoencoder, x: Float[Tensor, "batch d_in"], f: Float[Tensor, "batch d_sae"], coefficient: float
    ) -> Tensor | float:
        added: Tensor | float = 0.0
        off, start = x - sae.b_dec, 0
        for share in self.prefixes[:-1]:  # the whole is the squared error that every method has
            end = int(share * sae.d_sae)
            off = off - f[:, start:end] @ sae.W_dec[start:end]
            added, start = added + off.square().sum(1).mean(), end
        return added
