"""Folders of SAELens, and its SAEs as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from aligned import checks
from aligned.checks import said
from aligned.errors import one_line
from aligned.formats.folders import file, part
from aligned.formats.weights import built, float32, jumprelu_of_gated, k_of, place_of
from aligned.sae import LARGEST, SAE


def from_folder(folder: Path, config: dict[str, Any]) -> SAE:
    """An SAE of SAELens, which reads it: `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`."""
    file(folder, "sae_weights.safetensors")
    checks.installed("sae_lens", "interop")
    import sae_lens
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    for name in {"d_in", "d_sae"} & config.keys():
        checks.whole(name, config[name], 1, LARGEST)
    clear = said_clearly(config, str(folder))
    try:
        theirs = sae_lens.SAE.load_from_disk(
            folder, converter=lambda path, device, cfg_overrides: sae_lens_disk_loader(path, device, clear)
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, FileNotFoundError) as error:
        raise ValueError(f"{folder} is damaged, or no SAE of a kind that SAELens knows ({one_line(error)})") from error
    return translated(theirs, str(folder))


def said_clearly(config: dict[str, Any], name: str) -> dict[str, Any]:
    """What is put into a SAELens config before SAELens reads it. By itself it takes an activation that it does not
    know, and a TopK SAE whose k stands elsewhere than it looks, for ReLU SAEs, and 100 for a k that is missing."""
    place = Path(name, "cfg.json")
    kind = config.get("architecture") or "standard"
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    _check_kind(kind, name)
    if activation not in ("relu", "topk"):
        raise ValueError(f"{name} has the activation {said(activation)}; relu and topk can be read")
    clear = {"architecture": kind, "metadata": part(config, "metadata", place)}
    usual = {"dtype": "float32", "apply_b_dec_to_input": True, "normalize_activations": "none"}
    clear |= {key: value for key, value in usual.items() if config.get(key) is None}
    if "topk" in (kind, activation):
        more = part(config, "activation_fn_kwargs", place)
        if unknown := [key for key, value in more.items() if key != "k" and value]:
            raise ValueError(f"{name} is a TopK SAE with {', '.join(unknown)}, which can't be read")
        k = k_of(name, {"cfg.json": config.get("k"), "its activation_fn_kwargs": more.get("k")})
        clear |= {"k": k, "activation_fn_kwargs": {"k": k}}
    return clear


def _check_kind(kind: object, name: str) -> None:
    """Raise a `ValueError` for an architecture of SAELens that can't be written as an `SAE`."""
    if kind not in _KINDS:
        raise ValueError(
            f"{name} is of the architecture {said(kind)}; {', '.join(_KINDS)} SAEs can be read (for a checkpoint of "
            "SAELens's training, `save_inference_model` writes one of these)"
        )


_KINDS = ("standard", "topk", "jumprelu", "gated")


def translated(theirs: Any, name: str) -> SAE:
    """A SAELens SAE as ours; errors call it by this name."""
    cfg = theirs.cfg
    kind, k = cfg.architecture(), getattr(cfg, "k", 0)
    _check_kind(kind, name)
    if cfg.normalize_activations != "none":
        raise ValueError(
            f"{name} normalizes its input ({cfg.normalize_activations}), which an aligned.SAE does not. Its scores can "
            "still be had: aligned.alignment_score takes SAELens's own object"
        )
    weights = {key: float32(key, value) for key, value in theirs.state_dict().items()}
    if kind == "topk" and cfg.rescale_acts_by_decoder_norm:  # codes are chosen as if the decoder's rows were unit
        norm = weights["W_dec"].norm(dim=1)
        weights |= {
            "W_enc": weights["W_enc"] * norm,
            "b_enc": weights["b_enc"] * norm,
            "W_dec": weights["W_dec"] / norm[:, None],
        }
    if kind == "gated":
        kind, weights = "jumprelu", jumprelu_of_gated(weights)
    hook, model = getattr(cfg.metadata, "hook_name", None), getattr(cfg.metadata, "model_name", None)
    if (head := getattr(cfg.metadata, "hook_head_index", None)) is not None:
        hook = f"head {head} of {hook}"
    revision = (getattr(cfg.metadata, "model_from_pretrained_kwargs", None) or {}).get("revision")
    if model and revision:
        model = f"{model}@{revision}"
    return built("topk" if kind == "topk" else "relu", k, weights, cfg.apply_b_dec_to_input, model, place_of(hook))
