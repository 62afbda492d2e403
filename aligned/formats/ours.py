"""Our SAEs, in SAELens's inference format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from aligned.checks import finite, said
from aligned.files import in_one_move, write_json
from aligned.formats.folders import damage_named, file, json_object, part
from aligned.formats.weights import built, place_of
from aligned.language.model import named
from aligned.methods import options
from aligned.sae import SAE


def save_saelens(sae: SAE, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, which `sae_lens.SAE.load_from_disk` opens as a stock SAE.

    Args:
        sae: for raw activations (see `SAE.for_raw_activations`).
        folder: made if it is not there.
        metadata: goes into `cfg.json`: `hook_name`, `model_name`, `context_size`, ...

    Raises:
        TypeError, ValueError: no SAE; weights that are not finite; metadata that JSON does not hold, or that would take
            the place of what the SAE says of itself (`aligned_...`). Nothing is written then.
        NotADirectoryError: a file stands in the folder's place.
    """
    if not isinstance(sae, SAE) or not isinstance(metadata, Mapping):
        raise TypeError(f"an aligned.SAE and a mapping are saved, and not {said(sae)} and {said(metadata)}")
    if taken := [key for key in metadata if str(key).startswith("aligned_") or key == "sae_lens_version"]:
        raise ValueError(f"metadata has {', '.join(taken)}, which the SAE itself says; leave it out")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; an SAE is saved to a folder")
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    tensors |= {theirs: sae.get_parameter(ours) for ours, theirs in sae.method.saved.items()}
    config: dict[str, Any] = {
        "architecture": _architecture(sae),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _sae_lens_version(),
            "aligned_activation": sae.activation,
            "aligned_sparsity": sae.sparsity,
            **({"aligned_options": options(sae.method)} if options(sae.method) else {}),
            "aligned_model": sae.model,
            "aligned_layer": sae.layer,
            "hook_name": sae.hook or (None if sae.layer is None else f"blocks.{sae.layer}.hook_resid_post"),
            **_model_metadata(sae.model),
            **metadata,
        },
    }
    if config["architecture"] == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if config["architecture"] == "jumprelu":
        tensors["threshold"] = sae.threshold.clamp_min(0).expand(sae.d_sae)
    finite(tensors | {"threshold": sae.threshold}, "it is not saved: train it again")
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata is {said(metadata)}; it holds what JSON does ({error})") from None
    folder.mkdir(parents=True, exist_ok=True)
    with in_one_move(folder / "sae_weights.safetensors") as place:
        save_file({k: v.detach().cpu().float().contiguous() for k, v in tensors.items()}, place)
    write_json(folder / "cfg.json", config)


def load_saelens(folder: Path) -> SAE:
    """Read an SAE that `save_saelens` wrote.

    Raises:
        NotFound: the folder holds no `cfg.json` or no weights.
        ValueError: a damaged file, or an SAE that this project did not write; names the folder.
    """
    with damage_named(folder):
        config = json_object(folder, "cfg.json")
        metadata, place = part(config, "metadata", folder / "cfg.json"), file(folder, "sae_weights.safetensors")
        if "aligned_activation" not in metadata:
            raise ValueError(f"{folder} was not written by this project; aligned.formats.load reads other SAEs")
        tensors = load_file(place)
        for name, size in zip(("d_sae", "d_in"), tensors["W_dec"].shape):
            if config[name] != size:
                raise ValueError(f"cfg.json says {name} {said(config[name])}, and the weights are of {size}")
        if config["architecture"] == "jumprelu" and "threshold" not in tensors:
            raise ValueError("cfg.json says jumprelu, and the weights have no threshold")
        model = metadata.get("aligned_model", metadata.get("model_name"))
        activation, sparsity, layer = (metadata[f"aligned_{of}"] for of in ("activation", "sparsity", "layer"))
        where = (layer, None) if layer is not None else place_of(metadata.get("hook_name"))
        return built(activation, sparsity, tensors, True, model, where, metadata.get("aligned_options"))


def _architecture(sae: SAE) -> str:
    """What SAELens calls an SAE that encodes as this one does: one that has no threshold yet keeps the k largest."""
    if sae.has_threshold:
        return "jumprelu"
    return "topk" if sae.keeps_k else sae.method.architecture


def _model_metadata(name: str | None) -> dict[str, Any]:
    """A model as SAELens names it, which loads `model_name` with `model_from_pretrained_kwargs`."""
    if name is None:
        return {"model_name": None}
    of, revision, dtype = named(name)
    more = {"revision": revision, "dtype": None if dtype == torch.float32 else str(dtype).removeprefix("torch.")}
    return {"model_name": of, "model_from_pretrained_kwargs": {k: v for k, v in more.items() if v}}


def _sae_lens_version() -> str:
    try:
        return version("sae-lens")
    except PackageNotFoundError:
        return "6.54.12"  # the format's version
