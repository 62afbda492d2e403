"""Weights become an SAE: what all formats have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aligned import checks
from aligned.alignment import checked_rows
from aligned.checks import finite
from aligned.formats.folders import TAMPERED
from aligned.sae import LARGEST, SAE


def built(
    activation: str,
    sparsity: float,
    weights: dict[str, Tensor],
    subtracts_b_dec: bool,
    model: Any,
    where: tuple[Any, str | None],
    its: dict[str, Any] | None = None,
) -> SAE:
    """An SAE with these weights, of this place (see `place_of`), and with these options of its method."""
    layer, hook = where
    if weights["W_dec"].ndim != 2:
        raise ValueError(f"W_dec is {tuple(weights['W_dec'].shape)}; it is [d_sae, d_in]")
    d_sae, d_in = weights["W_dec"].shape
    sae = SAE(d_in, d_sae, activation, sparsity, "none", options=its)
    weights = weights | {ours: weights[theirs] for ours, theirs in sae.method.saved.items() if theirs in weights}
    weights = {name: float32(name, value) for name, value in weights.items()}
    for name, shape in (("W_enc", (d_in, d_sae)), ("b_enc", (d_sae,)), ("b_dec", (d_in,))):
        if weights[name].shape != shape:
            raise ValueError(f"{name} is {tuple(weights[name].shape)}, and with this decoder it is {shape}")
    if "threshold" in weights and weights["threshold"].shape not in ((), (d_sae,)):
        raise ValueError(f"threshold is {tuple(weights['threshold'].shape)}; it is one number, or one a feature")
    used = {"W_enc", "W_dec", "b_dec", "threshold", *sae.method.saved} & weights.keys()
    finite({name: weights[name] for name in used}, TAMPERED)
    checked_rows(weights["W_enc"], weights["W_dec"])
    if layer is not None:
        layer = checks.whole("layer", layer)
    if model is not None:
        model = checks.name("model", model)
    sae.model, sae.layer, sae.hook = model, layer, hook
    with torch.no_grad():
        sae.free.copy_(weights["W_enc"].T)
        sae.W_dec.copy_(weights["W_dec"])
        sae.b_dec.copy_(weights["b_dec"])
        for name in sae.method.saved:
            sae.get_parameter(name).copy_(weights[name])
        # ours subtracts b_dec before it encodes; where theirs does not, the bias takes it back
        sae.b_enc.add_(0 if subtracts_b_dec else weights["b_dec"] @ weights["W_enc"])
        if "threshold" in weights:
            sae.threshold = weights["threshold"].clamp_min(0)
    return sae.requires_grad_(False)


def float32(name: str, weights: Any) -> Tensor:
    """A tensor of numbers, in float32."""
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise ValueError(f"{name} is of {getattr(weights, 'dtype', type(weights).__name__)}; it is a tensor of numbers")
    return weights.detach().float()


def k_of(name: str, said_by: Mapping[str, Any]) -> int:
    """The k of an SAE, which may stand in more than one place."""
    found = {place: checks.whole("k", k, 1, LARGEST) for place, k in said_by.items() if k is not None}
    if not found:
        raise ValueError(f"{name} does not say its k, the number of codes that a token keeps: add it to the config")
    if len(set(found.values())) > 1:
        raise ValueError(f"{name} has more than one k: {', '.join(f'{k} in {place}' for place, k in found.items())}")
    return next(iter(found.values()))


def jumprelu_of_gated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The JumpReLU SAE that is equal to a gated one. A gated SAE computes (x W + b_gate > 0) relu(x W exp(r) + b_mag),
    and the condition in its first factor is the same as x W exp(r) + b_mag > b_mag - b_gate exp(r)."""
    scale = weights["r_mag"].exp()
    return {
        "W_enc": weights["W_enc"] * scale,
        "b_enc": weights["b_mag"],
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
        "threshold": weights["b_mag"] - weights["b_gate"] * scale,
    }


def place_of(hook: Any) -> tuple[int | None, str | None]:
    """What a hook reads: the residual stream after a layer, or something else, and then the hook itself.
    `hook_resid_pre` of layer n is `hook_resid_post` of layer n - 1; a module such as `model.layers.3` is a layer."""
    hook = str(hook or "")
    if found := re.fullmatch(r"blocks\.(\d+)\.hook_resid_post|(?:\w+\.)*(?:layers|h)\.(\d+)", hook):
        return int(found[1] or found[2]), None
    if (found := re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", hook)) and int(found[1]):
        return int(found[1]) - 1, None
    return None, hook or None
