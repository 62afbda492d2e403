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
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aligned import checks
from aligned.alignment import checked_rows
from aligned.checks import finite, said
from aligned.errors import NoAccess, NotFound, Unreachable, one_line
from aligned.files import in_one_move, sha256, write_json
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
    with _damage_named(folder):
        config = _object(folder, "cfg.json")
        metadata, place = _part(config, "metadata", folder / "cfg.json"), _file(folder, "sae_weights.safetensors")
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
        where = (layer, None) if layer is not None else _place(metadata.get("hook_name"))
        return _built(activation, sparsity, tensors, True, model, where, metadata.get("aligned_options"))


def _architecture(sae: SAE) -> str:
    """What SAELens calls an SAE that encodes as this one does: one that has no threshold yet keeps the k largest."""
    if sae.has_threshold:
        return "jumprelu"
    return "topk" if sae.keeps_k else sae.method.architecture


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
    if its decoder rows had norm 1 is converted to one whose rows have norm 1. Reconstructions do not change. An SAE of
    attention heads (`hook_z`) reads them side by side, `[..., n_heads * d_head]`. Where a run's folder has checksums,
    the files that are read are compared with them.

    Args:
        source: a SAELens folder (`cfg.json`, `sae_weights.safetensors`), a `dictionary_learning` folder (`ae.pt`,
            `config.json`), a `sparsify` folder (`cfg.json`, `sae.safetensors`), a Gemma Scope folder (`params.npz`,
            or `params.safetensors` and `config.json`), or the name of a release that SAELens knows, which is
            downloaded, or taken from the hub's cache.
        sae_id: which SAE of the release.

    Raises:
        NotFound: a folder that holds neither; a release, or an SAE of it, that SAELens does not know.
        TypeError: a source or an sae_id that is no name.
        ValueError: a damaged file, one that holds more than tensors, or an architecture that can't be written as an
            `SAE`, such as a transcoder; an activation that is not known, a TopK SAE whose k is not said, or is said
            twice and differs, a BatchTopK SAE without a threshold; weights that are not finite, or square and in the
            other one's layout; names the folder. An sae_id with a folder, which holds one SAE.
        NotInstalled: SAELens, for its folders and releases; for a folder that this project wrote it is not needed.
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
        if (folder / "sae.safetensors").exists():
            return _from_sparsify(folder, config)
        _check_sums(folder)
        ours = "aligned_activation" in _part(config, "metadata", folder / "cfg.json")
        return load_saelens(folder) if ours else _from_saelens(folder, config)
    if (folder / "ae.pt").exists():
        return _from_dictionary_learning(folder)
    if (folder / "params.npz").exists() or (folder / "params.safetensors").exists():
        return _from_gemma_scope(folder)
    raise NotFound(
        f"{folder} holds no SAE that can be read: a SAELens or sparsify folder has a cfg.json, "
        "a dictionary_learning folder an ae.pt, a Gemma Scope folder a params.npz or params.safetensors"
    )


def _check_sums(folder: Path) -> None:
    """Raise a `ValueError` for a file that is not what the folder's provenance says was written."""
    if not (folder / "provenance.json").is_file():
        return
    sums = _part(_object(folder, "provenance.json"), "checksums", folder / "provenance.json")
    for name in ("cfg.json", "sae_weights.safetensors"):
        if name in sums and sums[name] != sha256(_file(folder, name)):
            raise ValueError(f"{folder / name} is not what was written (its checksum differs): {_TAMPERED}")


def _from_release(release: str, sae_id: str | None) -> SAE:
    if not sae_id:
        raise NotFound(f"there is no folder {release!r}; of a SAELens release give the sae_id too")
    checks.installed("sae_lens", "interop")
    import sae_lens
    from huggingface_hub.errors import GatedRepoError
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    name = f"{release}, {sae_id}"
    listed = get_pretrained_saes_directory().get(release)
    what = f"{listed.conversion_func} {listed.saes_map.get(sae_id)}" if listed else ""
    if other := next((kind for kind in _OTHERS if kind in what), None):  # before gigabytes are fetched
        raise ValueError(f"{name} is no SAE: {_OTHERS[other]}")
    fetched = False

    def fetch(**asked: Any) -> Any:
        nonlocal fetched
        kind = loaders.get_conversion_loader_name(release)
        config, *rest = loaders.NAMED_PRETRAINED_SAE_LOADERS[kind](**asked)
        fetched = True
        return config | (_said_clearly(config, name) if kind == "sae_lens" else {}), *rest

    try:
        theirs = sae_lens.SAE.from_pretrained(release, sae_id, converter=fetch)
    except GatedRepoError as error:
        raise NoAccess(f"the release {release!r} needs a login: ask for access, then run `hf auth login`") from error
    except ValueError as error:
        if fetched:
            raise
        # SAELens's own list has no such release, or no such SAE in it
        raise NotFound(f"SAELens knows no SAE {sae_id!r} of a release {release!r}: {error}") from error
    except Exception as error:  # SAELens and the hub library raise many kinds; the reader needs one sentence
        if fetched or isinstance(error, KeyError | SafetensorError | UnpicklingError):
            why = " ".join(str(error).split())
            raise ValueError(f"{name} is damaged, or of a shape that SAELens does not read ({why})") from error
        raise Unreachable(
            f"the SAE {sae_id!r} of the release {release!r} could not be fetched ({one_line(error)}). Without "
            "a network give a local folder"
        ) from error
    return _translated(theirs, name)


# What a loader of SAELens's registry, or a path in it, says of what is no SAE.
_OTHERS = {
    "transcoder": "a transcoder maps one activation to another",
    "clt": "a cross-layer transcoder maps one activation to others",
    "temporal": "a temporal SAE's reconstruction depends on earlier tokens",
}


def _from_saelens(folder: Path, config: dict[str, Any]) -> SAE:
    _file(folder, "sae_weights.safetensors")
    checks.installed("sae_lens", "interop")
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    for name in {"d_in", "d_sae"} & config.keys():
        checks.whole(name, config[name], 1, LARGEST)
    said_clearly = _said_clearly(config, str(folder))
    try:
        theirs = sae_lens.SAE.load_from_disk(
            folder, converter=lambda path, device, cfg_overrides: sae_lens_disk_loader(path, device, said_clearly)
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, FileNotFoundError) as error:
        raise ValueError(f"{folder} is damaged, or no SAE of a kind that SAELens knows ({one_line(error)})") from error
    return _translated(theirs, str(folder))


def _said_clearly(config: dict[str, Any], name: str) -> dict[str, Any]:
    """What is put into a SAELens config before SAELens reads it. By itself it takes an activation that it does not
    know, and a TopK SAE whose k stands elsewhere than it looks, for ReLU SAEs, and 100 for a k that is missing."""
    place = Path(name, "cfg.json")
    kind = config.get("architecture") or "standard"
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    _check_kind(kind, name)
    if activation not in ("relu", "topk"):
        raise ValueError(f"{name} has the activation {said(activation)}; relu and topk can be read")
    clear = {"architecture": kind, "metadata": _part(config, "metadata", place)}
    usual = {"dtype": "float32", "apply_b_dec_to_input": True, "normalize_activations": "none"}
    clear |= {key: value for key, value in usual.items() if config.get(key) is None}
    if "topk" in (kind, activation):
        more = _part(config, "activation_fn_kwargs", place)
        if unknown := [key for key, value in more.items() if key != "k" and value]:
            raise ValueError(f"{name} is a TopK SAE with {', '.join(unknown)}, which can't be read")
        k = _k(name, {"cfg.json": config.get("k"), "its activation_fn_kwargs": more.get("k")})
        clear |= {"k": k, "activation_fn_kwargs": {"k": k}}
    return clear


def _k(name: str, said_by: Mapping[str, Any]) -> int:
    """The k of an SAE, which may stand in more than one place."""
    found = {place: checks.whole("k", k, 1, LARGEST) for place, k in said_by.items() if k is not None}
    if not found:
        raise ValueError(f"{name} does not say its k, the number of codes that a token keeps: add it to the config")
    if len(set(found.values())) > 1:
        raise ValueError(f"{name} has more than one k: {', '.join(f'{k} in {place}' for place, k in found.items())}")
    return next(iter(found.values()))


def _check_kind(kind: object, name: str) -> None:
    """Raise a `ValueError` for an architecture of SAELens that can't be written as an `SAE`."""
    if kind not in _SAELENS:
        raise ValueError(
            f"{name} is of the architecture {said(kind)}; {', '.join(_SAELENS)} SAEs can be read (for a checkpoint of "
            "SAELens's training, `save_inference_model` writes one of these)"
        )


_SAELENS = ("standard", "topk", "jumprelu", "gated")


def _translated(theirs: Any, name: str) -> SAE:
    """A SAELens SAE as ours."""
    cfg = theirs.cfg
    kind, k = cfg.architecture(), getattr(cfg, "k", 0)
    _check_kind(kind, name)
    if cfg.normalize_activations != "none":
        raise ValueError(
            f"{name} normalizes its input ({cfg.normalize_activations}), which an aligned.SAE does not. Its scores can "
            "still be had: aligned.alignment_score takes SAELens's own object"
        )
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
    hook, model = getattr(cfg.metadata, "hook_name", None), getattr(cfg.metadata, "model_name", None)
    if (head := getattr(cfg.metadata, "hook_head_index", None)) is not None:
        hook = f"head {head} of {hook}"
    revision = (getattr(cfg.metadata, "model_from_pretrained_kwargs", None) or {}).get("revision")
    if model and revision:
        model = f"{model}@{revision}"
    return _built("topk" if kind == "topk" else "relu", k, weights, cfg.apply_b_dec_to_input, model, _place(hook))


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
    whole_config = _object(folder, "config.json")
    config = _part(whole_config, "trainer", folder / "config.json")
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
        if kind in ("AutoEncoder", "AutoEncoderNew") and (more := {"k", "threshold"} & w.keys()):
            raise ValueError(f"{folder / 'ae.pt'} is no {kind}: it has {', '.join(sorted(more))} too")
        if kind == "JumpReluAutoEncoder":
            w["threshold"]  # without one it would be read as a ReLU SAE
        activation, k = _DICTIONARY_LEARNING.get(kind, "relu"), 0
        if activation != "relu":
            k = _k(str(folder), {"config.json": config.get("k"), "ae.pt": int(w["k"]) if "k" in w else None})
        if activation == "topk":
            w.pop("threshold", None)  # it encodes by k
        if activation == "batchtopk" and ("threshold" not in w or (w["threshold"] < 0).any()):  # -1: none yet
            raise ValueError(
                f"{folder} holds a {kind} without a threshold: its training ended before there was one, or its file is "
                "older than they are. A token's codes then depend on the batch that it is in; take another"
            )
        where = _place_in_dictionary_learning(config, _part(whole_config, "buffer", folder / "config.json"))
        return _built(activation, k, w, subtracts, config.get("lm_name") or None, where)
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


def _from_sparsify(folder: Path, config: dict[str, Any]) -> SAE:
    """An SAE of `sparsify` (eai-sparsify 1.3), in a folder that is named after the module whose output it reads: a
    TopK SAE, `encoder.weight [d_sae, d_in]` and `W_dec [d_sae, d_in]`."""
    if (activation := config.get("activation") or "topk") != "topk":
        raise ValueError(f"{folder} has the activation {said(activation)}; of sparsify, topk can be read")
    if other := [name for name in ("transcode", "skip_connection") if config.get(name)]:
        raise ValueError(f"{folder} says {', '.join(other)} in its cfg.json: it is no autoencoder of one activation")
    w = load_file(_file(folder, "sae.safetensors"))
    if more := w.keys() - {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}:
        raise ValueError(f"{folder / 'sae.safetensors'} has {', '.join(sorted(more))} too, which can't be read")
    w |= {"W_enc": w["encoder.weight"].mT, "b_enc": w["encoder.bias"]}
    its_own = re.search(r"(^|\.)(layers|h)\.\d|^embed", folder.name)
    model = _object(folder.parent, "config.json").get("model") if (folder.parent / "config.json").is_file() else None
    k = _k(str(folder), {"cfg.json": config.get("k")})
    return _built("topk", k, w, True, model, _place(folder.name if its_own else None))


def _from_gemma_scope(folder: Path) -> SAE:
    """A JumpReLU SAE of Gemma Scope (arXiv 2408.05147), whose `params.npz` does not say of which layer it is, or of
    Gemma Scope 2, whose `config.json` does. The encoder does not subtract b_dec."""
    model, where = None, _place(None)
    if (folder / "params.npz").exists():
        with np.load(_file(folder, "params.npz")) as found:  # which loads no pickle
            w = {name: torch.from_numpy(found[name]) for name in found}
    else:
        w = load_file(_file(folder, "params.safetensors"))
        config = _object(folder, "config.json")
        reads, writes = (config.get(f"hf_hook_point_{side}") for side in ("in", "out"))
        if writes not in (None, reads):
            raise ValueError(f"{folder} is no SAE: {_OTHERS['transcoder']}, here {reads} to {writes}")
        model, where = _gemma(config.get("model_name")), _place(str(reads or "").removesuffix(".output"))
    w = {name.replace("w_", "W_"): value for name, value in w.items()}
    if "threshold" not in w:
        raise ValueError(f"{folder} has no threshold, which a JumpReLU SAE has")
    return _built("relu", 0, w, False, model, where)


def _gemma(name: Any) -> Any:
    """The hub's name of what Gemma Scope 2 calls `gemma-v3-270m-pt`; the model of that size has no `-pt` there."""
    name = str(name).removeprefix("google/").replace("-v3", "-3") if name else None
    return f"google/{name.replace('270m-pt', '270m')}" if name else None


def _built(
    activation: str,
    sparsity: float,
    weights: dict[str, Tensor],
    subtracts_b_dec: bool,
    model: Any,
    where: tuple[Any, str | None],
    its: dict[str, Any] | None = None,
) -> SAE:
    """An SAE with these weights, of this place (see `_place`), and with these options of its method."""
    layer, hook = where
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
    sae.model, sae.layer, sae.hook = model, layer, hook
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


def _place(hook: Any) -> tuple[int | None, str | None]:
    """What a hook reads: the residual stream after a layer, or something else, and then the hook itself.
    `hook_resid_pre` of layer n is `hook_resid_post` of layer n - 1; a module such as `model.layers.3` is a layer."""
    hook = str(hook or "")
    if found := re.fullmatch(r"blocks\.(\d+)\.hook_resid_post|(?:\w+\.)*(?:layers|h)\.(\d+)", hook):
        return int(found[1] or found[2]), None
    if (found := re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", hook)) and int(found[1]):
        return int(found[1]) - 1, None
    return None, hook or None


def _place_in_dictionary_learning(trainer: dict[str, Any], buffer: dict[str, Any]) -> tuple[Any, str | None]:
    """`_place`, as `dictionary_learning` says it: a layer and a module, and whether its input or its output is read."""
    layer, module, side = trainer.get("layer"), str(trainer.get("submodule_name") or "resid_post"), buffer.get("io")
    if not module.startswith("resid_post"):
        return None, f"{module} of layer {layer}"
    if side not in (None, "out"):
        return None, f"{module} of layer {layer} ({side})"
    return layer, None


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
    """An object in an object; an empty one where there is none, or a null."""
    if not isinstance(found := {} if of.get(name) is None else of[name], dict):
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
