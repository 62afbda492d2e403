"""How much of the language model's work survives when the SAE's reconstruction takes the activations' place."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned.evals.fits import layer_of
from aligned.model import LanguageModel
from aligned.sae import SAE


def recovery(
    sae: SAE, model: LanguageModel, tokens: Int[Tensor, "n context"], layer: int | None = None, batch: int = 8
) -> dict[str, float]:
    """CE recovered, L0, fraction of variance unexplained and alive features on held-out text.

    Special tokens (BOS, separators) are neither reconstructed nor counted. With CE in nats per token,

        CE recovered = (CE_zero - CE_sae) / (CE_zero - CE_clean),

    where CE_zero has the residual stream zeroed at all positions;

        FVU        = sum |x - x_hat|^2 / sum |x - mean x|^2,       both sums over all tokens,
        FVU legacy = mean of |x - x_hat|^2 / |x - mean x|^2 over tokens, the mean being the batch's,

    the second as SAEBench publishes it (as 1 - FVU). L0 is the mean number of non-zero features of a token; alive is
    the share of features that are non-zero on at least one of the tokens, whose number is in `eval_tokens`.

    Args:
        sae: for raw activations.
        model: the language model.
        tokens: blocks of held-out text, BOS first.
        layer: whose residual stream is replaced; by default the one that the SAE was trained on.
        batch: blocks at once.

    Raises:
        ValueError: an SAE of another model, or no layer known; no tokens, or blocks longer than the model takes.
    """
    return recoveries([sae], model, tokens, layer, batch)[0]


@torch.no_grad()
def recoveries(
    saes: Sequence[SAE],
    model: LanguageModel,
    tokens: Int[Tensor, "n context"],
    layer: int | None = None,
    batch: int = 8,
) -> list[dict[str, float]]:
    """`recovery` of several SAEs of one layer; what the model does before that layer is computed once.

    Raises:
        ValueError: as `recovery`; no SAEs, or SAEs of several layers.
    """
    layers = {layer_of(sae, model, layer) for sae in saes}
    if len(layers) != 1:
        raise ValueError(f"SAEs of one layer are needed, and these are of {sorted(layers) or 'none'}")
    layer = layers.pop()
    if tokens.ndim != 2 or tokens.shape[1] < 2 or model.is_special(tokens)[:, :-1].all():
        raise ValueError(f"blocks of tokens, [n, context], are needed, and these have the shape {tuple(tokens.shape)}")
    model.check_context(tokens.shape[1])
    # the caller's SAEs stay where they are
    sums = [_Sums(sae if sae.b_dec.device == model.device else deepcopy(sae).to(model.device)) for sae in saes]
    spliced: list[list[Tensor]] = [[] for _ in saes]
    for x in tokens.split(batch):
        resid, keep = model.residual(x, layer), ~model.is_special(x.to(model.device))
        for sums_of, of_sae in zip(sums, spliced):
            of_sae.append(model.token_loss(x, layer, sums_of.splice(resid, keep)).cpu())
    counted = ~model.is_special(tokens)[:, :-1].cpu()
    baselines = model.clean_and_zero_loss(tokens, layer, batch)
    ce_clean, ce_zero = (loss[counted].double().mean().item() for loss in baselines)
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
            }
        )
    return results


class _Sums:
    """Running sums over the tokens that pass through a splice."""

    def __init__(self, sae: SAE) -> None:
        self.sae = sae
        self.n, self.active, self.error, self.square, self.ratio = 0, 0.0, 0.0, 0.0, 0.0
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
        self.ratio += (error / (x - x.mean(0)).square().sum(1)).double().sum().item()
        out = resid.clone()
        out[keep] = x_hat
        return out

    def result(self) -> dict[str, float]:
        variance = self.square - (self.sum.square().sum() / self.n).item()
        return {
            "l0": self.active / self.n,
            "fvu": self.error / variance,
            "fvu_legacy": self.ratio / self.n,
            "alive": self.fired.float().mean().item(),
            "eval_tokens": self.n,
        }
