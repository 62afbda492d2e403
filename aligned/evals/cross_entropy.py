"""How much of the language model's work survives when the SAE's reconstruction takes the activations' place."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned import files
from aligned.checks import number, whole
from aligned.evals.fits import layer_of
from aligned.files import store
from aligned.language.model import LanguageModel
from aligned.progress import tqdm
from aligned.sae import SAE

_HELD = 2**28  # floats, 1 GB, of residuals that are kept for the SAEs that come next


def recovery(
    sae: SAE,
    model: LanguageModel,
    tokens: Int[Tensor, "n context"],
    layer: int | None = None,
    batch: int = 8,
    outliers: float = 0.0,
) -> dict[str, float]:
    """CE recovered, L0, fraction of variance unexplained and alive features on held-out text.

    Special tokens (BOS, separators) are neither reconstructed nor counted, and neither are outliers where a bound on
    their norm is given. With CE in nats per token,

        CE recovered = (CE_zero - CE_sae) / (CE_zero - CE_clean),

    where CE_zero has the residual stream zeroed at all positions;

        FVU        = sum |x - x_hat|^2 / sum |x - mean x|^2,       both sums over all tokens,
        FVU legacy = mean of |x - x_hat|^2 / |x - mean x|^2 over tokens, the mean being the batch's,

    the second as SAEBench publishes it (as 1 - FVU); a token that is alone in its batch has no such ratio. L0 is the
    mean number of non-zero features of a token; alive is the share of features that are non-zero on at least one of the
    tokens, whose number is in `eval_tokens`; `eval_outliers` is the number of those left out.

    What the model's own losses are is computed once for a model, a layer and a text, and kept in the store.

    Args:
        sae: for raw activations.
        model: the language model.
        tokens: blocks of held-out text, BOS first.
        layer: whose residual stream is replaced; by default the one that the SAE was trained on.
        batch: blocks at once.
        outliers: tokens whose activation's norm exceeds this many times the median norm are left as they are, and are
            not counted; 0 counts all.

    Raises:
        TypeError: what is no SAE or no tokens.
        ValueError: an SAE of another model, or not finite; no layer known; fewer than two tokens that are not special,
            or blocks longer than the model takes; outliers between 0 and 1.
    """
    return recoveries([sae], model, tokens, layer, batch, outliers)[0]


@torch.no_grad()
def recoveries(
    saes: Sequence[SAE],
    model: LanguageModel,
    tokens: Int[Tensor, "n context"],
    layer: int | None = None,
    batch: int = 8,
    outliers: float = 0.0,
) -> list[dict[str, float]]:
    """`recovery` of several SAEs of one layer; what the model does before that layer is computed once.

    Raises:
        ValueError: as `recovery`; no SAEs, or SAEs of several layers.
    """
    if not isinstance(saes, Sequence):
        raise TypeError(f"a list of SAEs is needed, and this is of type {type(saes).__name__}")
    layers = {layer_of(sae, model, layer) for sae in saes}
    if len(layers) != 1:
        raise ValueError(f"SAEs of one layer are needed, and these are of {sorted(layers) or 'none'}")
    layer = layers.pop()
    batch, outliers = whole("batch", batch, 1), number("outliers", outliers, 0, 1e9)
    if 0 < outliers <= 1:
        raise ValueError(f"outliers is {outliers}; it is more than 1 (times the median norm), or 0 to count all")
    if not isinstance(tokens, Tensor):
        raise TypeError(f"tokens are a torch tensor, [n, context], and these are of type {type(tokens).__name__}")
    if tokens.ndim != 2 or tokens.shape[1] < 2 or model.is_special(tokens)[:, :-1].all():
        raise ValueError(
            f"blocks of tokens, [n, context], with more than special tokens in them are needed, and these have the "
            f"shape {tuple(tokens.shape)}"
        )
    model.check_context(tokens.shape[1])
    # the caller's SAEs stay where they are
    sums = [_Sums(sae if sae.b_dec.device == model.device else deepcopy(sae).to(model.device)) for sae in saes]
    spliced: list[list[Tensor]] = [[] for _ in saes]
    clean, zero, norms = baselines(model, tokens, layer, batch)
    special = model.is_special(tokens).cpu()
    keep = ~special
    if outliers:
        keep &= norms <= outliers * norms[keep].median()
    if (n := int(keep.sum())) < 2:
        raise ValueError(
            f"the tokens to be measured, without special ones and outliers, are {n}; 2 or more are needed, for one has "
            "no variance to explain"
        )
    parts = _watched(tokens.split(batch), f"CE with {len(saes)} SAE{'s' * (len(saes) > 1)}")
    for x, resid, kept in zip(parts, _residuals(model, tokens, layer, batch), keep.split(batch)):
        resid, kept = resid.to(model.device), kept.to(model.device)
        for sums_of, of_sae in zip(sums, spliced):
            of_sae.append(model.token_loss(x, layer, sums_of.splice(resid, kept)).cpu())
    counted = keep[:, :-1]
    ce_clean, ce_zero = (loss[counted].double().mean().item() for loss in (clean, zero))
    results = []
    for sums_of, of_sae in zip(sums, spliced):
        ce_sae = torch.cat(of_sae)[counted].double().mean().item()
        results.append(
            {
                "ce_recovered": (ce_zero - ce_sae) / (ce_zero - ce_clean),
                "ce_clean": ce_clean,
                "ce_sae": ce_sae,
                "ce_zero": ce_zero,
                **sums_of.result(),
                "eval_outliers": int((~keep & ~special).sum()),
            }
        )
    return results


def baselines(
    model: LanguageModel, tokens: Int[Tensor, "n context"], layer: int, batch: int = 8
) -> tuple[Float[Tensor, "n context-1"], Float[Tensor, "n context-1"], Float[Tensor, "n context"]]:
    """What every SAE of a layer is measured against: the model's loss in nats per token, its loss with the residual
    stream zeroed at all positions, and the norms of the residual stream. They are computed once and kept in the store,
    in a file named after model, layer, text and precision, so that many processes share it. A damaged file is made
    again."""
    name = f"{model.fingerprint}-layer{layer}-{_digest(tokens)[:16]}-{str(model.dtype).removeprefix('torch.')}"
    place = store() / "losses" / f"{name}.safetensors"
    if place.exists():
        try:
            kept, _ = files.load(place)
            return kept["clean"], kept["zero"], kept["norms"]
        except (ValueError, KeyError) as error:
            warnings.warn(f"{error}. It is made again", stacklevel=2)
    parts = tokens.split(batch)
    clean = torch.cat([model.token_loss(x).cpu() for x in _watched(parts, "CE of the model")])
    zeros = _watched(parts, "CE with zeros")
    zero = torch.cat([model.token_loss(x, layer, torch.zeros(*x.shape, model.d_in)).cpu() for x in zeros])
    norms = torch.cat([x.norm(dim=2) for x in _residuals(model, tokens, layer, batch)])
    try:
        files.save(place, {"clean": clean, "zero": zero, "norms": norms}, {"model": model.name})
    except OSError as error:
        warnings.warn(f"the losses of {model.name} are not kept: {error}", stacklevel=2)
    return clean, zero, norms


def _watched(parts: Sequence[Tensor], what: str) -> Iterator[Tensor]:
    """The parts, with a bar if they take longer than ten seconds."""
    yield from tqdm(parts, desc=what, unit="part", delay=10, leave=False)


def _residuals(
    model: LanguageModel, tokens: Int[Tensor, "n context"], layer: int, batch: int
) -> Iterator[Float[Tensor, "b context d_in"]]:
    """The residual stream after a layer, some blocks at a time; kept in memory where it is small enough, because the
    next SAEs are measured on the same."""
    if tokens.numel() * model.d_in <= _HELD:
        yield from _residual(model, _Blocks(tokens), layer, batch).split(batch)
    else:
        yield from (model.residual(x, layer).cpu() for x in tokens.split(batch))


class _Blocks:
    """Tokens that are equal where their digests are, so that a cache finds them."""

    def __init__(self, tokens: Int[Tensor, "n context"]) -> None:
        self.tokens, self.digest = tokens, _digest(tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blocks) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=1)
def _residual(model: LanguageModel, blocks: _Blocks, layer: int, batch: int) -> Float[Tensor, "n context d_in"]:
    return torch.cat([model.residual(x, layer).cpu() for x in blocks.tokens.split(batch)])


def _digest(tokens: Int[Tensor, "n context"]) -> str:
    return hashlib.sha256(f"{tuple(tokens.shape)}".encode() + tokens.cpu().numpy().tobytes()).hexdigest()


class _Sums:
    """Running sums over the tokens that pass through a splice."""

    def __init__(self, sae: SAE) -> None:
        self.sae = sae
        self.n, self.active, self.error, self.square = 0, 0.0, 0.0, 0.0
        self.ratio, self.compared = 0.0, 0
        self.sum = torch.zeros(sae.d_in, dtype=torch.float64)
        self.fired = torch.zeros(sae.d_sae, dtype=torch.bool, device=sae.b_dec.device)

    def splice(
        self, resid: Float[Tensor, "b context d_in"], keep: Bool[Tensor, "b context"]
    ) -> Float[Tensor, "b context d_in"]:
        """Reconstructs the tokens to keep, and measures as it goes."""
        x = resid[keep]
        f = self.sae.encode(x)
        x_hat = self.sae.decode(f)
        error = (x - x_hat).square().sum(1)
        self.n += len(x)
        self.active += torch.count_nonzero(f).item()
        self.fired |= f.any(0)
        self.error += error.double().sum().item()
        self.square += x.double().square().sum().item()
        self.sum += x.double().sum(0).cpu()
        if len(x) > 1:
            self.ratio += (error / (x - x.mean(0)).square().sum(1)).double().sum().item()
            self.compared += len(x)
        out = resid.clone()
        out[keep] = x_hat
        return out

    def result(self) -> dict[str, float]:
        variance = self.square - (self.sum.square().sum() / self.n).item()
        return {
            "l0": self.active / self.n,
            "fvu": self.error / variance,
            "fvu_legacy": self.ratio / self.compared if self.compared else math.nan,
            "alive": self.fired.float().mean().item(),
            "eval_tokens": self.n,
        }
