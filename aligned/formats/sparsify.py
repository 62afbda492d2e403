"""Folders of `sparsify`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from aligned.checks import said
from aligned.formats.folders import file, json_object
from aligned.formats.weights import built, k_of, place_of
from aligned.sae import SAE


def from_folder(folder: Path, config: dict[str, Any]) -> SAE:
    """An SAE of `sparsify` (eai-sparsify 1.3), in a folder that is named after the module whose output it reads: a
    TopK SAE, `encoder.weight [d_sae, d_in]` and `W_dec [d_sae, d_in]`."""
    if (activation := config.get("activation") or "topk") != "topk":
        raise ValueError(f"{folder} has the activation {said(activation)}; of sparsify, topk can be read")
    if other := [name for name in ("transcode", "skip_connection") if config.get(name)]:
        raise ValueError(f"{folder} says {', '.join(other)} in its cfg.json: it is no autoencoder of one activation")
    w = load_file(file(folder, "sae.safetensors"))
    if more := w.keys() - {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}:
        raise ValueError(f"{folder / 'sae.safetensors'} has {', '.join(sorted(more))} too, which can't be read")
    w |= {"W_enc": w["encoder.weight"].mT, "b_enc": w["encoder.bias"]}
    its_own = re.search(r"(^|\.)(layers|h)\.\d|^embed", folder.name)
    above = folder.parent
    model = json_object(above, "config.json").get("model") if (above / "config.json").is_file() else None
    k = k_of(str(folder), {"cfg.json": config.get("k")})
    return built("topk", k, w, True, model, place_of(folder.name if its_own else None))
