"""JumpReLU: codes over a threshold that is learned for each feature (arXiv 2407.14435, equations 3, 9, 11 and 12).

    z = relu((x - b_dec) W_enc + b_enc),   f = z H(z - theta)
    loss = |x - x_hat|^2 + lambda |f|_0,   |f|_0 = sum_i H(z_i - theta_i)

The step H has no useful derivative by theta. A straight-through estimator stands in for it, within `bandwidth` of the
jump: dH/dtheta = -K/bandwidth and df/dtheta = -theta K/bandwidth, with K = 1 where |z - theta| < bandwidth/2.

The paper trains log theta. Here theta itself is trained and kept at 0 or above, as both peers do: Adam moves a
parameter by about lr a step, which for a logarithm is next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aligned.methods.base import Autoencoder, Method


@dataclass(frozen=True)
class JumpReLU(Method):
    """Codes over a threshold that is learned for each feature, with a penalty on their number."""

    name: ClassVar[str] = "jumprelu"
    architecture: ClassVar[str] = "jumprelu"
    saved: ClassVar[Mapping[str, str]] = {"b_enc": "b_enc", "theta": "threshold"}
    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)

    bandwidth: float = 0.001
    start: float = 0.001  # theta before training

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and self.start >= 0):
            raise ValueError(f"bandwidth is {self.bandwidth} and start {self.start}; they are over 0, and 0 or more")

    def build(self, sae: Autoencoder) -> None:
        sae.register_parameter("theta", nn.Parameter(torch.full((sae.d_sae,), self.start)))
        sae.threshold = torch.full((sae.d_sae,), self.start)

    def codes(self, sae: Autoencoder, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        z, theta = sae.pre_activations(x), sae.get_parameter("theta")
        return z * (z > theta) + theta.detach() * self._kernel(z, theta) * (theta.detach() - theta)

    def loss(
        self, sae: Autoencoder, x: Float[Tensor, "batch d_in"], f: Float[Tensor, "batch d_sae"], coefficient: float
    ) -> Tensor:
        z, theta = sae.pre_activations(x), sae.get_parameter("theta")
        step = (z > theta) + self._kernel(z, theta) * (theta.detach() - theta)
        return coefficient * step.sum(1).mean()

    @torch.no_grad()
    def _kernel(self, z: Tensor, theta: Tensor) -> Tensor:
        return ((z - theta).abs() < self.bandwidth / 2) / self.bandwidth

    @torch.no_grad()
    def project(self, sae: Autoencoder) -> None:
        sae.threshold.copy_(sae.get_parameter("theta").clamp_(min=0))
