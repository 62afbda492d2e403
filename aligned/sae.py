"""The sparse autoencoder: `f = act((x - b_dec) W_enc + b_enc)`, `x_hat = f W_dec + b_dec`."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aligned.alignment import CONSTRAINTS, Constraint, householder_free, projected

Activation = Literal["relu", "p_anneal", "topk", "batchtopk"]
Init = Literal["unit", "small"]


class SAE(nn.Module):
    """A sparse autoencoder whose encoder is a constraint's function of a free parameter and the decoder.

    Args:
        d_in: width of the activations.
        d_sae: number of features.
        activation: `relu`; `p_anneal`, a ReLU trained with another penalty (`aligned.training.penalty`); `topk` keeps
            the k largest pre-activations of each token; `batchtopk` the k x batch largest of a batch in training, and
            those over a learned threshold afterwards (arXiv 2412.06410).
        sparsity: k for `topk` and `batchtopk`; for the others the penalty's coefficient (used in training only).
        constraint: one of `aligned.alignment.CONSTRAINTS`.
        init: `unit`: tied rows of norm 1, no bias; `small`: tied rows of norm 0.1 and an encoder bias uniform in
            +-1/sqrt(d_in), as the paper's stack starts its ReLU SAEs (the bias is torch's default for a linear map).
        seed: of the initial directions.

    Raises:
        ValueError: a value that is not allowed; the message names the field and what is.
    """

    threshold: Tensor

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        activation: Activation = "topk",
        sparsity: float = 32,
        constraint: Constraint = "projected",
        init: Init = "unit",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_architecture(d_in, d_sae, activation, sparsity, constraint, init)
        self.activation, self.sparsity, self.constraint = activation, sparsity, constraint
        # Whose residual stream it was trained on, where that is known.
        self.model: str | None = None
        self.layer: int | None = None
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(d_sae, d_in, generator=generator)
        rows *= (1.0 if init == "unit" else 0.1) / rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows.clone())
        bias = 0.0 if init == "unit" else d_in**-0.5
        self.b_enc = nn.Parameter(bias * (2 * torch.rand(d_sae, generator=generator) - 1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        # Of batchtopk; below 0 until training has set it. A JumpReLU SAE from elsewhere is relu with one a feature.
        self.register_buffer("threshold", torch.tensor(-1.0))
        if constraint == "householder":
            free = householder_free(rows / rows.square().sum(1, keepdim=True), rows)
            self.free = nn.Parameter(free.contiguous())  # a view would be stepped wrongly: see `training.fused`
        elif constraint != "tied":
            self.free = nn.Parameter(projected(rows, rows) if constraint == "post_step" else rows.clone())
        else:
            self.register_parameter("free", None)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def k(self) -> int:
        return int(self.sparsity)

    @property
    def encoder_rows(self) -> Float[Tensor, "d_sae d_in"]:
        """The effective encoder directions e_i, a function of the free parameter and the decoder."""
        return CONSTRAINTS[self.constraint](self.free, self.W_dec)

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """The effective encoder; for the hard constraints <W_enc[:, i], W_dec[i]> = 1."""
        return self.encoder_rows.T

    @property
    def has_threshold(self) -> bool:
        return bool((self.threshold >= 0).all())

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """relu((x - b_dec) W_enc + b_enc): the codes before any are dropped."""
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Sparse codes, non-negative. Where there is a threshold, it decides; before that `batchtopk` keeps k."""
        f = self.pre_activations(x)
        if self.has_threshold:
            return f * (f > self.threshold)
        return f if self.activation in ("relu", "p_anneal") else keep_topk(f, self.k)

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction of x."""
        return self.decode(self.encode(x))

    def for_raw_activations(self, scale: float, mean: Float[Tensor, " d_in"] | float = 0.0) -> SAE:
        """The same SAE for x where it was trained on (x - mean) scale, with the encoder written out.

        The encoder takes the scale and the decoder its inverse, so codes and alignment scores stay as they are.
        """
        raw = SAE(self.d_in, self.d_sae, self.activation, self.sparsity, "none")
        with torch.no_grad():
            raw.free.copy_(self.encoder_rows * scale)
            raw.W_dec.copy_(self.W_dec / scale)
            raw.b_enc.copy_(self.b_enc)
            raw.b_dec.copy_(self.b_dec / scale + mean)
            raw.threshold = self.threshold.clone()
        raw.model, raw.layer = self.model, self.layer
        return raw.requires_grad_(False)


def keep_topk(f: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Each token's k largest codes; all others 0."""
    top = f.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(f).scatter(-1, top.indices, top.values)


def check_architecture(d_in: int, d_sae: int, activation: str, sparsity: float, constraint: str, init: str) -> None:
    """Raise a `ValueError` that names the field, its value and what is allowed."""
    for name, value, allowed in (
        ("activation", activation, get_args(Activation)),
        ("constraint", constraint, get_args(Constraint)),
        ("init", init, get_args(Init)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")
    for name, size in (("d_in", d_in), ("d_sae", d_sae)):
        if size < 1:
            raise ValueError(f"{name} is {size}; it is a whole number of at least 1")
    if activation in ("relu", "p_anneal"):
        if not 0 <= sparsity < float("inf"):
            raise ValueError(f"sparsity is {sparsity}; for {activation} it is the penalty's coefficient, 0 or more")
    elif not (1 <= sparsity <= d_sae and sparsity == int(sparsity)):
        raise ValueError(f"sparsity is {sparsity}; for {activation} it is k, a whole number from 1 to d_sae = {d_sae}")
