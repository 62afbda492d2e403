"""The sparse autoencoder: `f = act((x - b_dec) W_enc + b_enc)`, `x_hat = f W_dec + b_dec`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aligned.alignment import CONSTRAINTS, Constraint, householder_free, projected
from aligned.checks import number, said, whole
from aligned.methods import Method, method, options
from aligned.methods.topk import keep_topk

Init = Literal["unit", "small", "small_encoder"]
LARGEST = 2**27  # size, such as the number of features: the widest published SAEs have a quarter as many


class SAE(nn.Module):
    """A sparse autoencoder whose encoder is a constraint's function of a free parameter and the decoder.

    Args:
        d_in: width of the activations.
        d_sae: number of features.
        activation: the name of a method, a file in `aligned/methods/`: relu, p_anneal, topk, batchtopk, jumprelu,
            gated or matryoshka.
        sparsity: k for topk, batchtopk and matryoshka; for the others the penalty's coefficient (used in training
            only).
        constraint: one of `aligned.alignment.CONSTRAINTS`.
        init: `unit`: tied rows of norm 1, no bias; `small`: tied rows of norm 0.1 and an encoder bias uniform in
            +-1/sqrt(d_in), as the paper's stack starts its ReLU SAEs (the bias is torch's default for a linear map);
            `small_encoder`: the same, with decoder rows of norm 1, which they have after the first step anyway. The
            two differ for a constraint: with <e, d> = 1 and |d| = 0.1 an encoder row is 10 long at the first step.
        seed: of the initial directions.
        options: of the method, those that are not its defaults.

    Raises:
        TypeError, ValueError: a value that is not allowed; the message names the field and what is. An SAE that this
            machine's memory does not hold.
    """

    threshold: Tensor

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        activation: str = "topk",
        sparsity: float = 32,
        constraint: Constraint = "projected",
        init: Init = "unit",
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        d_in, d_sae, seed = whole("d_in", d_in, 1), whole("d_sae", d_sae, 1, LARGEST), whole("seed", seed)
        sparsity = number("sparsity", sparsity)
        self.method = check_architecture(d_sae, activation, sparsity, constraint, init, options)
        if constraint == "householder" and d_in < 2:
            raise ValueError("d_in is 1; householder reflects in a plane, and needs 2 or more")
        check_memory(d_in, d_sae)
        self.activation, self.sparsity, self.constraint = activation, sparsity, constraint
        # Whose residual stream it was trained on, where that is known; or the place that it reads, if that is another.
        self.model: str | None = None
        self.layer: int | None = None
        self.hook: str | None = None
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(d_sae, d_in, generator=generator)
        rows *= (1.0 if init == "unit" else 0.1) / rows.norm(dim=1, keepdim=True)
        decoder = 10 * rows if init == "small_encoder" else rows
        self.W_dec = nn.Parameter(decoder.clone())
        bias = 0.0 if init == "unit" else d_in**-0.5
        self.b_enc = nn.Parameter(bias * (2 * torch.rand(d_sae, generator=generator) - 1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        # Over which a code counts after training; below 0 where there is none. It may be one a feature.
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.method.build(self)
        if constraint == "householder":
            free = householder_free(decoder / decoder.square().sum(1, keepdim=True), decoder)
            self.free = nn.Parameter(free.contiguous())  # a view would be stepped wrongly: see `training.fused`
        elif constraint != "tied":
            self.free = nn.Parameter(projected(rows, decoder) if constraint == "post_step" else rows.clone())
        else:
            self.register_parameter("free", None)

    def extra_repr(self) -> str:
        said = [f"{self.d_sae} features of {self.d_in} numbers", f"{self.activation} {self.sparsity:g}"]
        said += [f"{name} {value}" for name, value in options(self.method).items()]
        if self.constraint != "none":  # an SAE for raw activations has it, whatever it was trained with
            said.append(self.constraint)
        if self.model:
            said += [f"of {self.model}", f"layer {self.layer}"]
        return ", ".join(said)

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

    @property
    def keeps_k(self) -> bool:
        """Whether each token's k largest codes are kept. This is so for `topk`, and for the other methods whose
        sparsity is k while they have no threshold."""
        return self.method.counts and not self.has_threshold

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The codes before any are dropped: relu((x - b_dec) W_enc + b_enc), unless the method says otherwise."""
        return self.method.pre_activations(self, (x - self.b_dec) @ self.W_enc)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Sparse, non-negative codes, computed as after training. If there is a threshold, the codes over it are kept;
        otherwise the k largest, if the method has a k.

        Raises:
            TypeError, ValueError: no torch tensor, or one whose last dimension is not d_in.
        """
        _check_last("activations", x, self.d_in)
        f = self.pre_activations(x)
        f = f * (f > self.threshold)  # all, where it is below 0
        return keep_topk(f, self.k) if self.keeps_k else f

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction from codes.

        Raises:
            TypeError, ValueError: no torch tensor, or one whose last dimension is not d_sae.
        """
        _check_last("codes", f, self.d_sae)
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction of x."""
        return self.decode(self.encode(x))

    def for_raw_activations(self, scale: float, mean: Float[Tensor, " d_in"] | float = 0.0) -> SAE:
        """The same SAE, changed so that it reads raw activations x: this one was trained on (x - mean) scale. The
        encoder of the result is a plain parameter.

        The encoder takes the scale and the decoder its inverse, so codes and alignment scores stay as they are.

        Raises:
            TypeError, ValueError: a scale that is not over 0; a mean that is not finite, or of another width.
        """
        scale, mean = number("scale", scale), torch.as_tensor(mean, dtype=self.b_dec.dtype, device=self.b_dec.device)
        if scale <= 0:
            raise ValueError(f"scale is {scale}; it is over 0: what the activations were multiplied by")
        if mean.shape not in ((), (self.d_in,)) or not mean.isfinite().all():
            raise ValueError(f"mean has the shape {tuple(mean.shape)}; it is finite, one number or [{self.d_in}]")
        raw = SAE(self.d_in, self.d_sae, self.activation, self.sparsity, "none", options=options(self.method))
        with torch.no_grad():
            raw.free.copy_(self.encoder_rows * scale)
            raw.W_dec.copy_(self.W_dec / scale)
            for name in self.method.saved:
                raw.get_parameter(name).copy_(self.get_parameter(name))
            raw.b_dec.copy_(self.b_dec / scale + mean)
            raw.threshold = self.threshold.clone()
        raw.model, raw.layer, raw.hook = self.model, self.layer, self.hook
        return raw.requires_grad_(False)


def check_architecture(
    d_sae: int,
    activation: str,
    sparsity: float,
    constraint: str,
    init: str,
    options: Mapping[str, Any] | None = None,
) -> Method:
    """The method. Raises a `ValueError` that names a field, its value and what is allowed."""
    found = method(activation, options)
    for name, value, allowed in (("constraint", constraint, get_args(Constraint)), ("init", init, get_args(Init))):
        if value not in allowed:
            raise ValueError(f"{name} is {said(value)}; it is one of {', '.join(allowed)}")
    found.check(sparsity, d_sae)
    return found


def check_memory(d_in: int, d_sae: int) -> None:
    """Raise a `ValueError` for an SAE whose weights this machine's memory does not hold: W_dec and the free parameter,
    in float32. (Training takes four times as much.)"""
    try:
        there: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # a system that does not say
        there = math.inf
    if (needed := 8 * d_in * d_sae) > there:
        raise ValueError(
            f"d_sae is {d_sae:,} and d_in {d_in:,}: such an SAE takes {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB; take a smaller d_sae"
        )


def _check_last(name: str, x: Any, width: int) -> None:
    """Raise an error unless x is a tensor whose last dimension has this width."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} are a torch tensor, and these are of type {type(x).__name__}")
    if x.shape[-1:] != (width,):
        raise ValueError(f"these {name} have the shape {tuple(x.shape)}; the SAE reads [..., {width}]")
