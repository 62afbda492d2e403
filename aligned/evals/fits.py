"""Does an SAE belong to a model?"""

from __future__ import annotations

from aligned.model import LanguageModel
from aligned.sae import SAE


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
    """A model's name without its owner or folder, which not everybody writes."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
