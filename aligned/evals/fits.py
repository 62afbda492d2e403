"""Does an SAE belong to a model, and do activations to an SAE?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aligned.checks import finite, said, whole
from aligned.language.model import LanguageModel
from aligned.sae import SAE


def check_sae(sae: SAE) -> None:
    """Raise a `TypeError` for what is no SAE, and a `ValueError` for one whose weights are not all finite, or not in
    float32: no measure of it means anything."""
    if not isinstance(sae, SAE):
        raise TypeError(
            f"an aligned.SAE is measured, and this is of type {type(sae).__name__}; aligned.formats.load reads others"
        )
    weights = {"W_enc": sae.W_enc, **dict(sae.named_parameters()), "threshold": sae.threshold}
    finite(weights, "nothing can be measured of it: train it again")
    if sae.W_dec.dtype != torch.float32:
        raise ValueError(f"this SAE is in {sae.W_dec.dtype}, and measures are in float32: give sae.float()")


def check_features(sae: SAE, features: Iterable[Any]) -> list[int]:
    """The features as whole numbers.

    Raises:
        TypeError: no list of numbers.
        ValueError: one that the SAE does not have.
    """
    return _numbers("features", features, range(sae.d_sae), "there is no feature {}; the SAE has {} to {}")


def check_counts(name: str, counts: Iterable[Any], sae: SAE) -> list[int]:
    """Numbers of features as whole numbers.

    Raises:
        TypeError: no list of numbers.
        ValueError: none of them, one under 1 or over d_sae.
    """
    given = f"{name} has {{}}; it is a list of numbers of features, {{}} to {{}} for this SAE"
    if not (found := _numbers(name, counts, range(1, sae.d_sae + 1), given)):
        raise ValueError(given.format("nothing", 1, sae.d_sae))
    return found


def _numbers(name: str, given: Iterable[Any], allowed: range, refused: str) -> list[int]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {said(given)}; it is a list of whole numbers, such as [1, 2]")
    given = given.tolist() if isinstance(given, Tensor) else list(given)
    # 2.0 is one, as tables give it; True is none, which would be of a mask
    if wrong := [i for i in given if isinstance(i, bool | np.bool_) or i not in allowed]:
        raise ValueError(refused.format(", ".join(map(said, wrong[:9])), allowed[0], allowed[-1]))
    return [int(i) for i in given]


def check_activations(sae: SAE, x: Tensor) -> None:
    """Raise a `TypeError` or `ValueError` unless x is `[n, d_in]`, of the SAE's width, and finite, as the SAE is."""
    if not isinstance(x, Tensor):
        raise TypeError(f"activations are a torch tensor, and these are of type {type(x).__name__}")
    check_sae(sae)
    if x.ndim != 2 or not len(x):
        raise ValueError(
            f"these activations have the shape {tuple(x.shape)}, and [n, {sae.d_in}] is needed: a row a token, as "
            "`HeldOut.kept` gives them"
        )
    if x.shape[1] != sae.d_in:
        raise ValueError(f"these activations have width {x.shape[1]}, and the SAE reads {sae.d_in}")
    if not x.is_floating_point():
        raise ValueError(f"these activations are {x.dtype}; they are floating-point numbers")
    if not x.isfinite().all():
        raise ValueError("some of these activations are not finite")


def layer_of(sae: SAE, model: LanguageModel, layer: int | None = None) -> int:
    """The layer whose residual stream an SAE reads: the one that is named, or else the one that it was trained on.

    Raises:
        TypeError: no SAE, no model or no layer.
        ValueError: an SAE of another model, of another width than the model's, of another place than the residual
            stream after a layer, or not finite; no layer known, or one that the model does not have.
    """
    check_sae(sae)
    if not isinstance(model, LanguageModel):
        raise TypeError(f"a LanguageModel is needed, such as LanguageModel('embedded'), and not {said(model)}")
    if sae.model is not None and _short(sae.model) != _short(model.name):
        raise ValueError(
            f"this SAE was trained on {sae.model}, and the model is {model.name}; where these are one and the same, "
            f"set sae.model = {model.name!r}"
        )
    if sae.d_in != model.d_in:
        raise ValueError(f"this SAE reads activations of width {sae.d_in}, and {model.name} has width {model.d_in}")
    if sae.hook is not None:
        raise ValueError(
            f"this SAE reads {sae.hook}, and what is measured with a model is the residual stream after a layer "
            "(hook_resid_post); its scores, and what is measured on activations of your own, can be had"
        )
    layer = sae.layer if layer is None else layer
    if layer is None:
        raise ValueError("this SAE does not say which layer it was trained on: give layer=...")
    model.hook(layer := whole("layer", layer))
    return layer


def _short(name: str) -> str:
    """A model's name without its owner or folder, which not everybody writes, and without the weights' dtype."""
    return name.removesuffix("+bfloat16").rstrip("/").rsplit("/", 1)[-1].lower()
