"""Does an SAE belong to a model, and do activations to an SAE?"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from aligned.language.model import LanguageModel
from aligned.sae import SAE


def check_finite(sae: SAE) -> None:
    """Raise a `ValueError` for an SAE whose weights are not all finite: no measure of it means anything."""
    weights = {"W_enc": sae.W_enc, **dict(sae.named_parameters()), "threshold": sae.threshold}
    if broken := sorted(name for name, value in weights.items() if not value.isfinite().all()):
        raise ValueError(
            f"{', '.join(broken)} of this SAE is not finite; nothing can be measured of it: train it again"
        )


def check_features(sae: SAE, features: Iterable[int]) -> list[int]:
    """The features as whole numbers. Raises a `ValueError` for one that the SAE does not have."""
    features = list(features)
    if wrong := [i for i in features if int(i) != i or not 0 <= i < sae.d_sae]:
        raise ValueError(f"there is no feature {', '.join(map(str, wrong))}; the SAE has 0 to {sae.d_sae - 1}")
    return [int(i) for i in features]


def check_activations(sae: SAE, x: Tensor) -> None:
    """Raise a `ValueError` unless x is `[n, d_in]`, of the SAE's width, and finite, as the SAE itself is."""
    if not isinstance(x, Tensor):
        raise TypeError(f"activations are a torch tensor, and these are of type {type(x).__name__}")
    check_finite(sae)
    if x.ndim != 2:
        raise ValueError(
            f"these activations have the shape {tuple(x.shape)}, and [n, {sae.d_in}] is needed: a row a token, as "
            "`HeldOut.kept` gives them"
        )
    if x.shape[1] != sae.d_in:
        raise ValueError(f"these activations have width {x.shape[1]}, and the SAE reads {sae.d_in}")
    if not x.isfinite().all():
        raise ValueError("some of these activations are not finite")


def layer_of(sae: SAE, model: LanguageModel, layer: int | None = None) -> int:
    """The layer whose residual stream an SAE reads: the one that is named, or else the one that it was trained on.

    Raises:
        ValueError: an SAE of another model, of another width than the model's, or not finite; no layer known.
    """
    check_finite(sae)
    if sae.model is not None and _short(sae.model) != _short(model.name):
        raise ValueError(
            f"this SAE was trained on {sae.model}, and the model is {model.name}; where these are one and the same, "
            f"set sae.model = {model.name!r}"
        )
    if sae.d_in != model.d_in:
        raise ValueError(f"this SAE reads activations of width {sae.d_in}, and {model.name} has width {model.d_in}")
    layer = sae.layer if layer is None else layer
    if layer is None:
        raise ValueError("this SAE does not say which layer it was trained on: give layer=...")
    return layer


def _short(name: str) -> str:
    """A model's name without its owner or folder, which not everybody writes, and without the weights' dtype."""
    return name.removesuffix("+bfloat16").rstrip("/").rsplit("/", 1)[-1].lower()
