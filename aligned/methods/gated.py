"""Gated: one half of the encoder says which features are active, the other how strongly (arXiv 2404.16014, eqs. 5-9).

    gate = (x - b_dec) W_enc + b_gate,   magnitude = (x - b_dec) W_enc exp(r_mag) + b_mag
    f = H(gate) relu(magnitude)
    loss = |x - x_hat|^2 + lambda |relu(gate)|_1 + |x - (relu(gate) W_dec + b_dec)|^2

In the last term, the auxiliary reconstruction, W_dec and b_dec are frozen: it trains the gate alone. The halves share
W_enc, whose rows the alignment score is taken of; `b_enc` is the gate's bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aligned.methods.base import Autoencoder, Method


class Gated(Method):
    """One half of the encoder says which features are active, the other how strongly."""

    name: ClassVar[str] = "gated"
    architecture: ClassVar[str] = "gated"
    saved: ClassVar[Mapping[str, str]] = {"b_enc": "b_gate", "r_mag": "r_mag", "b_mag": "b_mag"}
    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)

    def build(self, sae: Autoencoder) -> None:
        sae.register_parameter("r_mag", nn.Parameter(torch.zeros(sae.d_sae)))
        sae.register_parameter("b_mag", nn.Parameter(torch.zeros(sae.d_sae)))

    def pre_activations(
        self, sae: Autoencoder, product: Float[Tensor, "*batch d_sae"]
    ) -> Float[Tensor, "*batch d_sae"]:
        r_mag, b_mag = sae.get_parameter("r_mag"), sae.get_parameter("b_mag")
        return (product + sae.b_enc > 0) * (product * r_mag.exp() + b_mag).relu()

    def loss(
        self, sae: Autoencoder, x: Float[Tensor, "batch d_in"], f: Float[Tensor, "batch d_sae"], coefficient: float
    ) -> Tensor:
        gate = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
        off = x - (gate @ sae.W_dec.detach() + sae.b_dec.detach())
        return coefficient * gate.sum(1).mean() + off.square().sum(1).mean()
