"""SCR: do features separate two attributes that came together? (SHIFT, arXiv 2403.19647, as SAEBench measures it.)

A linear probe is trained on texts in which attribute a always coincides with attribute b, so that it may lean on
either. The features that a probe of b alone points at are then taken out of the activations. If the biased probe gets
better at a where the two do not coincide, those features were about b, and about little else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aligned.checks import whole
from aligned.evals.codes import codes
from aligned.evals.fits import check_counts, check_sae
from aligned.evals.intervals import interval
from aligned.sae import SAE

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

ABLATED = (2, 5, 10, 20, 50, 100, 500)
# Of SAEBench's probes.
EPOCHS, BATCH, LR, L1 = 20, 16, 1e-3, 1e-3
_TEXTS = 512  # encoded at once


@dataclass(frozen=True)
class Texts:
    """Texts with two binary attributes, as activations.

    Attributes:
        x: `[texts, tokens, d_in]`, raw.
        keep: `[texts, tokens]`, False at special tokens.
        a, b: `[texts]`, whether each attribute holds. All four combinations occur.

    Raises:
        ValueError: activations that are not `[texts, tokens, d_in]` or not finite, masks that are not boolean or not of
            these shapes, no text, or one with nothing to keep.
    """

    x: Float[Tensor, "texts tokens d_in"]
    keep: Bool[Tensor, "texts tokens"]
    a: Bool[Tensor, " texts"]
    b: Bool[Tensor, " texts"]

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor) or self.x.ndim != 3 or not len(self.x):
            raise ValueError(
                "x holds the activations of some texts, a torch tensor [texts, tokens, d_in], and this is of type "
                f"{type(self.x).__name__} {tuple(getattr(self.x, 'shape', ()))}"
            )
        n = len(self.x)
        for name, shape in (("keep", self.x.shape[:2]), ("a", (n,)), ("b", (n,))):
            mask = torch.as_tensor(getattr(self, name))
            object.__setattr__(self, name, mask)
            if mask.dtype != torch.bool or mask.shape != shape:
                raise ValueError(f"{name} is {mask.dtype} {tuple(mask.shape)}; a mask, bool {tuple(shape)}, is needed")
        if not self.x.isfinite().all():
            raise ValueError("some of the activations of these texts are not finite")
        if empty := int((~self.keep.any(1)).sum()):
            raise ValueError(f"{empty} of {n} texts have no token to keep, and so no mean: leave them out")

    @property
    def mean(self) -> Float[Tensor, "texts d_in"]:
        """Mean activation of each text."""
        return _mean(self.x.float(), self.keep)

    @property
    def balanced(self) -> Bool[Tensor, " texts"]:
        """A mask that selects equally many texts of each of the four combinations: as many as the rarest one has."""
        return self._first(1, ((True, True), (True, False), (False, True), (False, False)))

    @property
    def coinciding(self) -> Bool[Tensor, " texts"]:
        """A mask that selects texts in which both a and b hold, and equally many in which neither holds. Where there
        are enough texts, it selects twice as many of each kind as `balanced` does, so that both sets have the same
        size."""
        return self._first(2, ((True, True), (False, False)))

    def _first(self, times: int, quadrants: Sequence[tuple[bool, bool]]) -> Bool[Tensor, " texts"]:
        places = {
            (a, b): ((self.a == a) & (self.b == b)).nonzero().squeeze(1) for a in (True, False) for b in (True, False)
        }
        rarest = min(map(len, places.values()))
        if rarest == 0:
            raise ValueError("SCR needs texts of all four combinations of the attributes, and one has none")
        count = min(times * rarest, *(len(places[q]) for q in quadrants))
        chosen = torch.zeros_like(self.a)
        for q in quadrants:
            chosen[places[q][:count]] = True
        return chosen


@dataclass(frozen=True)
class Probe:
    """A logistic probe of mean activations."""

    weight: Float[Tensor, " d_in"]
    bias: Float[Tensor, ""]

    def accuracy(self, x: Float[Tensor, "texts d_in"], y: Bool[Tensor, " texts"]) -> float:
        return ((x @ self.weight + self.bias > 0) == y).float().mean().item()


@dataclass(frozen=True)
class Probes:
    """What SCR needs of the activations alone, the same for every SAE: the probes of a, of b, and the biased one."""

    a: Probe
    b: Probe
    biased: Probe


def check_texts(*given: Any) -> None:
    """Raise a `TypeError` for what is no `Texts`."""
    if wrong := [type(texts).__name__ for texts in given if not isinstance(texts, Texts)]:
        raise TypeError(f"Texts are needed, and not {', '.join(wrong)}; `aligned.evals.attributes.pairs` makes them")


def train_probes(train: Texts, validation: Texts, seed: int = 0) -> Probes:
    """The three probes. The epoch of each is the one that is best on `validation`.

    SAEBench chooses it on its test texts: give those as `validation` to do the same.

    Raises:
        ValueError: texts that lack a combination of the attributes, or of two widths; a seed that torch does not take.
    """
    seed = whole("seed", seed)
    check_texts(train, validation)
    if train.x.shape[2] != validation.x.shape[2]:
        raise ValueError(f"these texts have activations of widths {train.x.shape[2]} and {validation.x.shape[2]}")
    sets = []
    for texts in (train, validation):
        sets.append((texts.mean, texts.balanced, texts.coinciding, texts.a, texts.b))
    (x, even, together, a, b), (vx, veven, vtogether, va, vb) = sets
    return Probes(
        fit(x[even], a[even], vx[veven], va[veven], seed),
        fit(x[even], b[even], vx[veven], vb[veven], seed),
        fit(x[together], a[together], vx[vtogether], va[vtogether], seed),
    )


def fit(
    x: Float[Tensor, "n d_in"],
    y: Bool[Tensor, " n"],
    held_out_x: Float[Tensor, "m d_in"],
    held_out_y: Bool[Tensor, " m"],
    seed: int = 0,
) -> Probe:
    """A logistic probe as SAEBench trains it: AdamW, 20 epochs in batches of 16, an L1 penalty, the best epoch kept."""
    generator = torch.Generator().manual_seed(seed)
    bound = x.shape[1] ** -0.5
    weight, bias = ((2 * torch.rand(n, generator=generator) - 1) * bound for n in (x.shape[1], 1))
    weight.requires_grad_(True), bias.requires_grad_(True)
    optimizer = torch.optim.AdamW([weight, bias], lr=LR, fused=True)
    best, kept = -1.0, Probe(weight.detach().clone(), bias.detach().clone()[0])
    target = y.float()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = F.binary_cross_entropy_with_logits(x[rows] @ weight + bias, target[rows]) + L1 * weight.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        now = Probe(weight.detach().clone(), bias.detach().clone()[0])
        if (accuracy := now.accuracy(held_out_x, held_out_y)) > best:
            best, kept = accuracy, now
    return kept


@torch.no_grad()
def scr(sae: SAE, probes: Probes, train: Texts, test: Texts, ablated: Sequence[int] = ABLATED) -> pd.DataFrame:
    """Spurious correlation removal, as SAEBench defines it.

    The effect of feature i on attribute b is |mean f_i where b holds - mean f_i where not| |<w_b, d_i>|, f_i being
    means over a text's tokens and w_b the weights of b's probe. The n features with the largest are set to 0; the SAE's
    error stays as it was. Decoding is linear, so the mean activation of a text, x, then becomes x - sum_i f_i d_i,
    where the sum is over these n features. With the biased probe's accuracies on a, over balanced test texts,

        SCR = (acc ablated - acc biased) / (acc of a's own probe - acc biased).

    Args:
        sae: for raw activations.
        probes: from `train_probes`.
        train: texts that the effects are measured on.
        test: texts that the accuracies are measured on.
        ablated: values of n.

    Returns:
        Rows of `removed` (`b`: a is measured, SAEBench's direction 1; `a`: b is measured, direction 2), `n`, `scr`, the
        accuracies `clean`, `biased` and `ablated`, and `harder`: True in the direction in which the biased probe is
        worse, which is the direction that SAEBench publishes. As in SAEBench, `scr` is 0 where less than 0.001 of
        accuracy can be gained.

    Raises:
        ValueError: activations or probes of another width than the SAE's; a value of n under 1 or over d_sae.
    """
    import pandas as pd

    check_sae(sae)
    ablated = check_counts("ablated", ablated, sae)
    check_texts(train, test)
    if not isinstance(probes, Probes):
        raise TypeError(f"probes is of type {type(probes).__name__}; `train_probes` makes them")
    if len(probes.b.weight) != sae.d_in:
        raise ValueError(f"these probes read activations of width {len(probes.b.weight)}, and the SAE reads {sae.d_in}")
    learn, even = train.balanced, test.balanced
    f_train, f_test = mean_codes(sae, train, learn), mean_codes(sae, test, even)
    x = test.mean[even]
    leaning = {kept: probes.biased.accuracy(x, getattr(test, kept)[even]) for kept in "ab"}
    harder = "b" if leaning["b"] < leaning["a"] else "a"
    rows = []
    for removed, kept in (("b", "a"), ("a", "b")):
        own: Probe = getattr(probes, kept)
        other: Probe = getattr(probes, removed)
        holds = getattr(train, removed)[learn]
        difference = f_train[holds.numpy()].mean(0) - f_train[~holds.numpy()].mean(0)
        effect = torch.from_numpy(difference).abs() * (sae.W_dec @ other.weight).abs()
        order = effect.argsort(descending=True)[: int((effect > 0).sum())]
        y = getattr(test, kept)[even]
        clean, biased = own.accuracy(x, y), leaning[kept]
        for n in ablated:
            top = order[:n]
            taken_out = torch.from_numpy(f_test[:, top.numpy()] @ sae.W_dec[top].numpy())
            accuracy = probes.biased.accuracy(x - taken_out, y)
            score = (accuracy - biased) / (clean - biased) if clean - biased >= 0.001 else 0.0
            rows.append((removed, n, score, clean, biased, accuracy, kept == harder))
    return pd.DataFrame(rows, columns=["removed", "n", "scr", "clean", "biased", "ablated", "harder"])


def intervals_over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """SCR of one kind of SAE, with intervals.

    Args:
        tables: from `scr`, one table for each SAE. A table may hold several pairs of attributes, one below the other.

    Returns:
        Rows of `direction` (`b`, `a`: which attribute was removed; `harder`: SAEBench's published choice; `both`) and
        `n`, with `scr`, the mean over SAEs of the mean over pairs, its 95 % interval `low`, `high` (NaN for one SAE
        alone), and `seeds`, the number of SAEs. The interval says what other seeds of the SAE would give, for these
        pairs.

    Raises:
        ValueError: no table.
    """
    import pandas as pd

    if not len(tables):
        raise ValueError("there is no table of `scr`, and so no interval over seeds")
    rows = []
    for direction in ("b", "a", "harder", "both"):
        means = []
        for table in tables:
            here = (
                table
                if direction == "both"
                else table[table.harder if direction == "harder" else table.removed == direction]
            )
            means.append(here.groupby("n").scr.mean())
        for n, scores in pd.concat(means, axis=1).iterrows():
            low = high = float("nan")
            if len(scores) > 1:
                found = interval(scores.to_numpy())
                low, high = found.low, found.high
            rows.append((direction, n, scores.mean(), low, high, len(scores)))
    return pd.DataFrame(rows, columns=["direction", "n", "scr", "low", "high", "seeds"])


def mean_codes(sae: SAE, texts: Texts, of: Bool[Tensor, " texts"]) -> csr_array:
    """The mean code of each of some texts, `[some, d_sae]`."""
    from scipy.sparse import csr_array, vstack

    means = []
    for x, keep in zip(texts.x[of].split(_TEXTS), texts.keep[of].split(_TEXTS)):
        weights = (keep.float() / keep.sum(1, keepdim=True))[keep].numpy()
        starts = torch.cat([torch.zeros(1, dtype=torch.long), keep.sum(1).cumsum(0)]).numpy()
        averages = csr_array((weights, np.arange(len(weights)), starts))  # [texts, their tokens]
        means.append(averages @ codes(sae, x[keep]))
    return vstack(means, format="csr")


def _mean(x: Float[Tensor, "texts tokens d"], keep: Bool[Tensor, "texts tokens"]) -> Float[Tensor, "texts d"]:
    weight = keep.float() / keep.sum(1, keepdim=True)
    return torch.einsum("btd,bt->bd", x, weight)
