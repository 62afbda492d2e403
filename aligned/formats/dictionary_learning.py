"""Folders of `dictionary_learning`, the library of the paper's stack."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from aligned.formats.folders import file, json_object, part
from aligned.formats.weights import built, float32, jumprelu_of_gated, k_of
from aligned.sae import SAE


def from_folder(folder: Path) -> SAE:
    """An SAE of `dictionary_learning`. Its weights are named `encoder.weight [d_sae, d_in]` and `decoder.weight [d_in,
    d_sae]`, or as in SAELens."""
    whole_config = json_object(folder, "config.json")
    config = part(whole_config, "trainer", folder / "config.json")
    try:
        found = torch.load(file(folder, "ae.pt"), map_location="cpu", weights_only=True)
        w = {key: float32(key, value) for key, value in found.items()}
    except (UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise ValueError(f"{folder / 'ae.pt'} is damaged, or holds more than tensors, and was not read") from error
    if "encoder.weight" in w:
        w |= {"W_enc": w["encoder.weight"].mT, "W_dec": w["decoder.weight"].mT}
    of_b_dec = next((key for key in ("b_dec", "bias", "decoder_bias", "decoder.bias") if key in w), "b_dec")
    kind = str(config.get("dict_class", ""))
    subtracts = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    try:
        w["b_dec"] = w[of_b_dec]
        if kind == "GatedAutoEncoder":
            w = jumprelu_of_gated(w | {"b_mag": w["mag_bias"], "b_gate": w["gate_bias"]})
        elif kind not in _CLASSES:
            allowed = ", ".join((*_CLASSES, "GatedAutoEncoder"))
            raise ValueError(f"{folder} holds a {kind or 'dictionary of no class'}; those that can be read: {allowed}")
        else:
            w["b_enc"] = w["b_enc" if "b_enc" in w else "encoder.bias"]
        if kind in ("AutoEncoder", "AutoEncoderNew") and (more := {"k", "threshold"} & w.keys()):
            raise ValueError(f"{folder / 'ae.pt'} is no {kind}: it has {', '.join(sorted(more))} too")
        if kind == "JumpReluAutoEncoder":
            w["threshold"]  # without one it would be read as a ReLU SAE
        activation, k = _CLASSES.get(kind, "relu"), 0
        if activation != "relu":
            k = k_of(str(folder), {"config.json": config.get("k"), "ae.pt": int(w["k"]) if "k" in w else None})
        if activation == "topk":
            w.pop("threshold", None)  # it encodes by k
        if activation == "batchtopk" and ("threshold" not in w or (w["threshold"] < 0).any()):  # -1: none yet
            raise ValueError(
                f"{folder} holds a {kind} without a threshold: its training ended before there was one, or its file is "
                "older than they are. A token's codes then depend on the batch that it is in; take another"
            )
        where = _place(config, part(whole_config, "buffer", folder / "config.json"))
        return built(activation, k, w, subtracts, config.get("lm_name") or None, where)
    except KeyError as error:
        raise ValueError(f"{folder / 'ae.pt'} is no {kind}: {error} is not in it") from error


# Its classes, and what they are when they encode.
_CLASSES: dict[str, str] = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "JumpReluAutoEncoder": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "batchtopk",
}


def _place(trainer: dict[str, Any], buffer: dict[str, Any]) -> tuple[Any, str | None]:
    """What it reads (see `place_of`), said by a layer, a module, and whether the module's input or output is read."""
    layer, module, side = trainer.get("layer"), str(trainer.get("submodule_name") or "resid_post"), buffer.get("io")
    if not module.startswith("resid_post"):
        return None, f"{module} of layer {layer}"
    if side not in (None, "out"):
        return None, f"{module} of layer {layer} ({side})"
    return layer, None
