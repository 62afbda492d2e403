"""Folders of Gemma Scope and Gemma Scope 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from aligned.formats.folders import file, json_object
from aligned.formats.releases import NO_SAES
from aligned.formats.weights import built, place_of
from aligned.sae import SAE


def from_folder(folder: Path) -> SAE:
    """A JumpReLU SAE of Gemma Scope (arXiv 2408.05147), whose `params.npz` does not say of which layer it is, or of
    Gemma Scope 2, whose `config.json` does. The encoder does not subtract b_dec."""
    model, where = None, place_of(None)
    if (folder / "params.npz").exists():
        with np.load(file(folder, "params.npz")) as found:  # which loads no pickle
            w = {name: torch.from_numpy(found[name]) for name in found}
    else:
        w = load_file(file(folder, "params.safetensors"))
        config = json_object(folder, "config.json")
        reads, writes = (config.get(f"hf_hook_point_{side}") for side in ("in", "out"))
        if writes not in (None, reads):
            raise ValueError(f"{folder} is no SAE: {NO_SAES['transcoder']}, here {reads} to {writes}")
        model, where = _gemma(config.get("model_name")), place_of(str(reads or "").removesuffix(".output"))
    w = {name.replace("w_", "W_"): value for name, value in w.items()}
    if "threshold" not in w:
        raise ValueError(f"{folder} has no threshold, which a JumpReLU SAE has")
    return built("relu", 0, w, False, model, where)


def _gemma(name: Any) -> Any:
    """The hub's name of what Gemma Scope 2 calls `gemma-v3-270m-pt`; the model of that size has no `-pt` there."""
    name = str(name).removeprefix("google/").replace("-v3", "-3") if name else None
    return f"google/{name.replace('270m-pt', '270m')}" if name else None
