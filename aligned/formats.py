"""Files that the field shares: our SAEs are written in SAELens's inference format, and anyone's can be read.

Two kinds of file are read: safetensors, and torch files, of which only tensors are loaded (`weights_only`). A pickle
that could run code is never loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aligned import checks
from aligned.alignment import checked_rows
from aligned.checks import finite, said
from aligned.errors import NoAccess, NotFound, Unreachable
from aligned.files import in_one_move, write_json
from aligned.language.model import named
from aligned.methods import options
from aligned.sae import LARGEST, SAE

_TAMPERED = "it is damaged, or its training failed: take another"


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
        "architecture": "jumprelu" if sae.has_threshold else sae.method.architecture,
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
    with _damage_named(folder):
        config = _object(folder, "cfg.json")
        metadata, place = _part(config, "metadata", folder / "cfg.json"), _file(folder, "sae_weights.safetensors")
        if "aligned_activation" not in metadata:
            raise ValueError(f"{folder} was not written by this project; aligned.formats.load reads other SAEs")
        tensors = load_file(place)
        for name, size in zip(("d_sae", "d_in"), tensors["W_dec"].shape):
            if config[name] != size:
                raise ValueError(f"cfg.json says {name} {said(config[name])}, and the weights are of {size}")
        model = metadata.get("aligned_model", metadata.get("model_name"))
        activation, sparsity, layer = (metadata[f"aligned_{of}"] for of in ("activation", "sparsity", "layer"))
        return _built(activation, sparsity, tensors, True, model, layer, metadata.get("aligned_options"))


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Errors of a damaged folder, in one sentence that names it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{folder} is damaged: {error} is not in it") from error
    except (TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    except ValueError as error:
        if str(folder) in str(error):
            raise
        raise ValueError(f"{folder}: {error}") from error


def load(source: str | Path, sae_id: str | None = None) -> SAE:
    """Anyone's SAE, as it encodes and decodes raw activations.

    ReLU, TopK, BatchTopK, JumpReLU and gated SAEs are read. A gated SAE is converted to the JumpReLU SAE that is equal
    to it (arXiv 2404.16014), whose encoder is that of the gated SAE's magnitudes. A TopK SAE that chooses its codes as
    if its decoder rows had norm 1 is converted to one whose rows have norm 1. Reconstructions do not change.

    Args:
        source: a SAELens folder (`cfg.json`), a `dictionary_learning` folder (`ae.pt`, `config.json`), or the name of a
            release that SAELens knows, which is downloaded.
        sae_id: which SAE of the release.

    Raises:
        NotFound: a folder that holds neither; a release, or an SAE of it, that SAELens does not know.
        TypeError: a source or an sae_id that is no name.
        ValueError: a damaged file, one that holds more than tensors, or an architecture that can't be written as an
            `SAE`; weights that are not finite, or square and in the other one's layout; names the folder. An sae_id
            with a folder, which holds one SAE.
        NoAccess: a gated release, and no login.
        Unreachable: a release that can't be reached.
    """
    for name, value in (("source", source), ("sae_id", sae_id)):
        if not isinstance(value, str | Path) and not (name == "sae_id" and value is None):
            raise TypeError(f"{name} is {said(value)}; give a folder, or a release of SAELens and an sae_id")
    if not str(source).strip():
        raise NotFound("source is empty; give a folder, or a release of SAELens and an sae_id")
    folder = Path(source).expanduser()
    if folder.is_file():
        raise NotFound(f"{folder} is a file; give the folder that it stands in")
    if not folder.is_dir():
        if isinstance(source, Path) or source.startswith(("/", ".", "~")):
            raise NotFound(f"there is no folder {folder}")
        return _from_release(source, sae_id)
    if sae_id is not None:
        raise ValueError(f"{folder} is a folder, which holds one SAE: leave out the sae_id, {said(sae_id)}")
    with _damage_named(folder):
        return _from_folder(folder)


def _from_folder(folder: Path) -> SAE:
    if (folder / "cfg.json").exists():
        config = _object(folder, "cfg.json")
        ours = "aligned_activation" in _part(config, "metadata", folder / "cfg.json")
        return load_saelens(folder) if ours else _from_saelens(folder, config)
    if (folder / "ae.pt").exists():
        return _from_dictionary_learning(folder)
    raise NotFound(
        f"{folder} holds no SAE that can be read: a SAELens folder has a cfg.json, "
        "a dictionary_learning folder an ae.pt"
    )


def _from_release(release: str, sae_id: str | None) -> SAE:
    import sae_lens
    from huggingface_hub.errors import GatedRepoError

    if not sae_id:
        raise NotFound(f"there is no folder {release!r}; of a SAELens release give the sae_id too")
    try:
        theirs = sae_lens.SAE.from_pretrained(release, sae_id)
    except GatedRepoError as error:
        raise NoAccess(f"the release {release!r} needs a login: ask for access, then run `hf auth login`") from error
    except ValueError as error:  # SAELens's own list has no such release, or no such SAE in it
        raise NotFound(f"SAELens knows no SAE {sae_id!r} of a release {release!r}: {error}") from error
    except Exception as error:  # SAELens and the hub library raise many kinds; the reader needs one sentence
        raise Unreachable(
            f"the SAE {sae_id!r} of the release {release!r} could not be fetched ({error}). Without a network give a "
            "local folder"
        ) from error
    return _translated(theirs, f"{release}, {sae_id}")


def _from_saelens(folder: Path, config: dict[str, Any]) -> SAE:
    import sae_lens

    _file(folder, "sae_weights.safetensors")
    for name in {"d_in", "d_sae"} & config.keys():
        checks.whole(name, config[name], 1, LARGEST)
    try:
        theirs = sae_lens.SAE.load_from_disk(folder)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, FileNotFoundError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{folder} is damaged, or no SAE of a kind that SAELens knows ({why})") from error
    return _translated(theirs, str(folder))


def _translated(theirs: Any, name: str) -> SAE:
    """A SAELens SAE as ours."""
    cfg = theirs.cfg
    if cfg.normalize_activations != "none" or cfg.reshape_activations != "none":
        raise ValueError(
            f"{name} normalizes or reshapes its input ({cfg.normalize_activations}, {cfg.reshape_activations}), which "
            "an aligned.SAE does not. Its scores can still be had: aligned.alignment_score takes SAELens's own object"
        )
    kind, k = cfg.architecture(), getattr(cfg, "k", 0)
    weights = {key: _float32(key, value) for key, value in theirs.state_dict().items()}
    if kind == "topk" and cfg.rescale_acts_by_decoder_norm:  # codes are chosen as if the decoder's rows were unit
        norm = weights["W_dec"].norm(dim=1)
        weights |= {
            "W_enc": weights["W_enc"] * norm,
            "b_enc": weights["b_enc"] * norm,
            "W_dec": weights["W_dec"] / norm[:, None],
        }
    if kind == "gated":
        kind, weights = "jumprelu", _gated(weights)
    if kind not in ("standard", "topk", "jumprelu"):
        raise ValueError(f"{name} is of the architecture {kind!r}; standard, topk, jumprelu and gated SAEs can be read")
    hook, model = str(getattr(cfg.metadata, "hook_name", "")), getattr(cfg.metadata, "model_name", None)
    revision = (getattr(cfg.metadata, "model_from_pretrained_kwargs", None) or {}).get("revision")
    if model and revision:
        model = f"{model}@{revision}"
    return _built("topk" if kind == "topk" else "relu", k, weights, cfg.apply_b_dec_to_input, model, _layer(hook))


def _gated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
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


def _from_dictionary_learning(folder: Path) -> SAE:
    """An SAE of `dictionary_learning`. Its weights are named `encoder.weight [d_sae, d_in]` and `decoder.weight [d_in,
    d_sae]`, or as in SAELens."""
    from pickle import UnpicklingError

    config = _part(_object(folder, "config.json"), "trainer", folder / "config.json")
    try:
        found = torch.load(_file(folder, "ae.pt"), map_location="cpu", weights_only=True)
        w = {key: _float32(key, value) for key, value in found.items()}
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
            w = _gated(w | {"b_mag": w["mag_bias"], "b_gate": w["gate_bias"]})
        elif kind not in _DICTIONARY_LEARNING:
            allowed = ", ".join((*_DICTIONARY_LEARNING, "GatedAutoEncoder"))
            raise ValueError(f"{folder} holds a {kind or 'dictionary of no class'}; those that can be read: {allowed}")
        else:
            w["b_enc"] = w["b_enc" if "b_enc" in w else "encoder.bias"]
        if kind == "AutoEncoderTopK":
            w.pop("threshold", None)  # it encodes by k
        on_residual = str(config.get("submodule_name", "resid_post")).startswith("resid_post")
        where = config.get("lm_name") or None, config.get("layer") if on_residual else None
        k = w["k"].item() if "k" in w else 0.0
        return _built(_DICTIONARY_LEARNING.get(kind, "relu"), k, w, subtracts, *where)
    except KeyError as error:
        raise ValueError(f"{folder / 'ae.pt'} is no {kind}: {error} is not in it") from error


# Its classes, and what they are when they encode.
_DICTIONARY_LEARNING: dict[str, str] = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "JumpReluAutoEncoder": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "batchtopk",
}


def _built(
    activation: str,
    sparsity: float,
    weights: dict[str, Tensor],
    subtracts_b_dec: bool,
    model: Any,
    layer: Any,
    its: dict[str, Any] | None = None,
) -> SAE:
    """An SAE with these weights, and these options of its method."""
    if weights["W_dec"].ndim != 2:
        raise ValueError(f"W_dec is {tuple(weights['W_dec'].shape)}; it is [d_sae, d_in]")
    d_sae, d_in = weights["W_dec"].shape
    sae = SAE(d_in, d_sae, activation, sparsity, "none", options=its)
    weights = weights | {ours: weights[theirs] for ours, theirs in sae.method.saved.items() if theirs in weights}
    weights = {name: _float32(name, value) for name, value in weights.items()}
    for name, shape in (("W_enc", (d_in, d_sae)), ("b_enc", (d_sae,)), ("b_dec", (d_in,))):
        if weights[name].shape != shape:
            raise ValueError(f"{name} is {tuple(weights[name].shape)}, and with this decoder it is {shape}")
    if "threshold" in weights and weights["threshold"].shape not in ((), (d_sae,)):
        raise ValueError(f"threshold is {tuple(weights['threshold'].shape)}; it is one number, or one a feature")
    used = {"W_enc", "W_dec", "b_dec", "threshold", *sae.method.saved} & weights.keys()
    finite({name: weights[name] for name in used}, _TAMPERED)
    checked_rows(weights["W_enc"], weights["W_dec"])
    if layer is not None:
        layer = checks.whole("layer", layer)
    if model is not None:
        model = checks.name("model", model)
    sae.model, sae.layer = model, layer
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


def _model_metadata(name: str | None) -> dict[str, Any]:
    """A model as SAELens names it, which loads `model_name` with `model_from_pretrained_kwargs`."""
    if name is None:
        return {"model_name": None}
    of, revision, dtype = named(name)
    more = {"revision": revision, "dtype": None if dtype == torch.float32 else str(dtype).removeprefix("torch.")}
    return {"model_name": of, "model_from_pretrained_kwargs": {k: v for k, v in more.items() if v}}


def _layer(hook: str) -> int | None:
    """The layer after which a hook reads the residual stream: `hook_resid_pre` of layer n counts as layer n - 1."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook)
    if found is None:
        return None
    layer = int(found[1]) - (found[2] == "pre")
    return layer if layer >= 0 else None


def _file(folder: Path, name: str) -> Path:
    """A file in a folder; a folder or a pipe of its name is none."""
    place = folder / name
    if not place.exists():
        raise NotFound(f"{folder} holds no {name}, which such a folder has")
    if not place.is_file():
        raise ValueError(f"{place} is no file")
    return place


def _object(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file."""
    place = _file(folder, name)
    try:
        found = json.loads(place.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON ({error})") from error
    return _part({name: found}, name, place)


def _part(of: dict[str, Any], name: str, place: Path) -> dict[str, Any]:
    """An object in an object; an empty one where there is none."""
    if not isinstance(found := of.get(name, {}), dict):
        raise ValueError(f"{place} is damaged: {name} is {said(found)}, and an object {{...}} is needed")
    return found


def _float32(name: str, weights: Any) -> Tensor:
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise ValueError(f"{name} is of {getattr(weights, 'dtype', type(weights).__name__)}; it is a tensor of numbers")
    return weights.detach().float()


def _sae_lens_version() -> str:
    try:
        return version("sae-lens")
    except PackageNotFoundError:
        return "6.54.12"  # the format's version
