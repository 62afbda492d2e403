"""Files that the field shares: our SAEs are written in SAELens's inference format, and read back from it."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from aligned.alignment import Constraint
from aligned.checkpoint import in_one_move, write_json
from aligned.sae import SAE, Activation

# Our activation functions and SAELens's names for what they are after training.
_ARCHITECTURE: dict[Activation, str] = {
    "relu": "standard",
    "p_anneal": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",
}


def save_saelens(sae: SAE, folder: Path, metadata: dict[str, Any]) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, which `sae_lens.SAE.load_from_disk` opens as a stock SAE.

    Args:
        sae: for raw activations (see `SAE.for_raw_activations`).
        folder: made if it is not there.
        metadata: goes into `cfg.json`: `hook_name`, `model_name`, `context_size`, ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURE[sae.activation],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _sae_lens_version(), "aligned_activation": sae.activation,
                     "aligned_sparsity": sae.sparsity, "aligned_layer": sae.layer, **metadata},
    }  # fmt: skip
    if sae.activation == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if sae.activation == "batchtopk":
        tensors["threshold"] = sae.threshold.clamp_min(0).expand(sae.d_sae)
    with in_one_move(folder / "sae_weights.safetensors") as place:
        save_file({k: v.detach().cpu().float().contiguous() for k, v in tensors.items()}, place)
    write_json(folder / "cfg.json", config)


def load_saelens(folder: Path) -> SAE:
    """Read an SAE that `save_saelens` wrote.

    Raises:
        FileNotFoundError: the folder holds no `cfg.json` or no weights.
        ValueError: a damaged file, or an SAE that this project did not write.
    """
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds no {name}; a SAELens folder has one")
    try:
        config = json.loads((folder / "cfg.json").read_text())
        tensors = load_file(folder / "sae_weights.safetensors")
        activation, sparsity = config["metadata"]["aligned_activation"], config["metadata"]["aligned_sparsity"]
    except (json.JSONDecodeError, SafetensorError, KeyError) as error:
        raise ValueError(f"{folder} is damaged, or was not written by this project ({error})") from error
    inference: Constraint = "none"  # the encoder is written out
    sae = SAE(config["d_in"], config["d_sae"], activation, sparsity, inference)
    sae.layer = config["metadata"]["aligned_layer"]
    with torch.no_grad():
        sae.free.copy_(tensors["W_enc"].T)
        sae.W_dec.copy_(tensors["W_dec"])
        sae.b_enc.copy_(tensors["b_enc"])
        sae.b_dec.copy_(tensors["b_dec"])
        if "threshold" in tensors:
            sae.threshold.copy_(tensors["threshold"][0])
    return sae.requires_grad_(False)


def _sae_lens_version() -> str:
    try:
        return version("sae-lens")
    except PackageNotFoundError:
        return "6.54.12"  # the format's version
