"""Does an SAE belong to a model, and do activations to an SAE?"""

from __future__ import annotations

from torch import Tensor

from aligned.language.model import LanguageModel
from aligned.sae import SAE


def check_activations(sae: SAE, x: Tensor) -> None:
    """Raise a `ValueError` unless x is `[n, d_in]`, of the SAE's width, and finite."""
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
        ValueError: an SAE of another model, or of another width than the model's; no layer known.
    """
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
