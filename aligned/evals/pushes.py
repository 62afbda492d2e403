"""Does a feature cause what it detects? Its direction is added while the model writes, and its concept is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from aligned.checks import number, said, whole
from aligned.evals.fits import check_features, layer_of
from aligned.language.labels import PYTHON, Labelling
from aligned.language.model import LanguageModel
from aligned.language.text import Document
from aligned.sae import SAE

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
FLIPS = 10_000
STRONGEST = 1000  # norms of the residual stream, beyond which a model writes nothing that could be read
FEWEST = 5  # prompts: of 4, the changes of sign are too few for a p under 0.05
_TEXTS = 64  # written at once


def steering(
    sae: SAE,
    model: LanguageModel,
    features: Sequence[int],
    concepts: Sequence[str],
    prompts: Int[Tensor, "n context"],
    strength: float = 0.5,
    length: int = 64,
    layer: int | None = None,
    seed: int = 0,
    labelling: Labelling = PYTHON,
) -> pd.DataFrame:
    """Steer with features, one after the other, and count their concepts.

    While the model goes on from each prompt, strength x (the residual stream's root mean square norm) x d_i / |d_i| is
    added to the residual stream at all positions (the norm being that of tokens that are not special). What it writes
    is labelled (`Labelling.written`), and the share of its characters for which the feature's
    concept holds is compared with the same share in what the model writes without steering, from the same prompts and
    with the same random numbers. p is that of a one-sided permutation test over prompts, which swaps the steered and
    the unsteered text of a prompt.

    Args:
        sae: for raw activations.
        model: the language model.
        features: which to steer with.
        concepts: the concept that each feature detects (from `aligned.evals.concepts`). It must be one that can be told
            in text that is not whole: of Python's, one of `aligned.language.labels.LEXICAL`, since the written text
            need not parse.
        prompts: token blocks, BOS first, all of one length.
        strength: how far to push, in norms of the residual stream.
        length: tokens to write.
        layer: whose residual stream is steered; the one that the SAE was trained on by default.
        seed: of what is written.
        labelling: that the concepts are from.

    Returns:
        One row for each feature: `feature`, `concept`, `unsteered` and `steered` (shares of characters), `p`, `success`
        (p < 0.05), and `ce_unsteered`, `ce_steered`: the cross-entropy on the prompts, in nats per token, without the
        push and with it; the difference is what the push costs. (The cross-entropy of the written text is not used: it
        falls when a model repeats itself.)

    Raises:
        ValueError: a concept that cannot be counted, a feature that the SAE does not have, other numbers of features
            and concepts, fewer than 5 prompts, no layer known, an SAE of another model, or blocks that would grow
            longer than the model takes.
    """
    import pandas as pd

    layer = layer_of(sae, model, layer)
    features = check_features(sae, features)
    if isinstance(concepts, str) or not isinstance(concepts, Sequence) or len(features) != len(concepts):
        raise ValueError(
            f"there are {len(features)} features, and concepts is {said(concepts)}; give a list with one for each"
        )
    strength = number("strength", strength, -STRONGEST, STRONGEST)
    seed, length = whole("seed", seed), whole("length", length, 1)
    if not isinstance(prompts, Tensor) or prompts.ndim != 2 or len(prompts) < FEWEST:
        raise ValueError(
            f"a test at 5 % needs {FEWEST} prompts or more, blocks of token ids [n, context], and this is of type "
            f"{type(prompts).__name__} {tuple(getattr(prompts, 'shape', ()))}"
        )
    known = labelling.written or labelling
    if unknown := sorted(str(concept) for concept in concepts if concept not in known.names):
        raise ValueError(
            f"{', '.join(unknown)} cannot be counted in text that may not parse; there are {', '.join(known.names)}"
        )
    if lost := [str(i) for i in features if not sae.W_dec[i].any()]:
        raise ValueError(f"the decoder row of feature {', '.join(lost)} is 0, and has no direction to push in")
    model.check_context(prompts.shape[1] + length)
    counted = ~model.is_special(prompts[:_TEXTS])  # BOS is twice as long as the rest
    if not counted.any():
        raise ValueError("these prompts hold special tokens alone; give some text to go on from")
    norm = model.residual(prompts[:_TEXTS], layer)[counted.to(model.device)].square().sum(-1).mean().sqrt()
    plain = _write(model, prompts, length, seed)
    plain_labels, plain_ce = _labels(model, prompts, plain, known), _cross_entropy(model, prompts, layer)
    rows = []
    for feature, concept in zip(features, concepts):
        d = sae.W_dec[feature].to(model.device)
        push = strength * norm * d / d.norm()
        pushed = _write(model, prompts, length, seed, layer, push)
        bit = known.names.index(concept)
        before, after = (_shares(labels, bit) for labels in (plain_labels, _labels(model, prompts, pushed, known)))
        p = rises(after - before, seed)
        ce = _cross_entropy(model, prompts, layer, push)
        rows.append((feature, concept, before.mean(), after.mean(), p, p < SIGNIFICANT, plain_ce, ce))
    names = ["feature", "concept", "unsteered", "steered", "p", "success", "ce_unsteered", "ce_steered"]
    return pd.DataFrame(rows, columns=names)


def best_features(table: pd.DataFrame, m: int, labelling: Labelling = PYTHON) -> pd.DataFrame:
    """The m features that detect their concept best, among those whose concept can be counted in what a model writes.

    Args:
        table: of `aligned.evals.concepts`. Features are ranked by `f1_chosen`, of the half of the text on which their
            concepts were chosen, so that `f1` stays a measure of them.
        m: how many.
        labelling: that the concepts are from.

    Raises:
        TypeError, ValueError: m is no whole number of at least 1; fewer features with such a concept.
    """
    m = whole("m", m, 1)
    countable = table[table.concept.isin((labelling.written or labelling).names)]
    if len(countable) < m:
        raise ValueError(
            f"{m} features are to be steered with, and {len(countable)} have a concept that can be counted"
        )
    return countable.nlargest(m, "f1_chosen")


def success_rate(steered: pd.DataFrame) -> tuple[float, float, float]:
    """The share of features whose steering succeeded, with its 95 % interval (Wilson's). By chance it is 5 %."""
    from scipy.stats import binomtest

    if not len(steered):
        raise ValueError("the table of steered features is empty, and has no rate of success")
    if lost := int(steered.success.isna().sum()):
        raise ValueError(f"of {lost} of {len(steered)} features it is not known whether their steering succeeded")
    found = binomtest(int(steered.success.sum()), len(steered))
    low, high = found.proportion_ci(method="wilson")
    return found.statistic, low, high


def rises(differences: Float[np.ndarray, " n"], seed: int = 0) -> float:
    """p of a one-sided permutation test that paired differences are above 0: the test changes their signs, in 10,000
    random ways or, where there are fewer ways, in all of them.

    Raises:
        ValueError: fewer than 2 differences, or one that is not finite.
    """
    if len(differences) < 2 or not np.isfinite(differences).all():
        raise ValueError(f"2 differences or more are needed, all finite; these are {said(differences)}")
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=FLIPS, alternative="greater", rng=seed
    )
    return float(found.pvalue)


def _write(
    model: LanguageModel,
    prompts: Int[Tensor, "n context"],
    length: int,
    seed: int,
    layer: int = 0,
    push: Float[Tensor, " d_in"] | None = None,
) -> Int[Tensor, "n length"]:
    splice = None if push is None else lambda residual: residual + push
    parts = prompts.split(_TEXTS)
    return torch.cat([model.write(part, length, seed + i, layer, splice) for i, part in enumerate(parts)])


def _labels(
    model: LanguageModel, prompts: Int[Tensor, "n context"], written: Int[Tensor, "n length"], labelling: Labelling
) -> list[np.ndarray]:
    """The labels of the characters of what was written, in the light of the prompt that it follows."""
    found = []
    for prompt, more in zip(prompts[:, 1:], written):
        before = model.tokenizer.decode(prompt)
        whole = before + model.tokenizer.decode(more)
        found.append(labelling.of(Document("written", whole))[len(before) : len(whole)])
    return found


def _shares(labels: list[np.ndarray], bit: int) -> Float[np.ndarray, " n"]:
    return np.array([((w >> np.uint64(bit)) & np.uint64(1)).mean() if len(w) else 0.0 for w in labels])


def _cross_entropy(
    model: LanguageModel, prompts: Int[Tensor, "n context"], layer: int, push: Float[Tensor, " d_in"] | None = None
) -> float:
    losses = []
    for part in prompts.split(8):
        pushed = None if push is None else model.residual(part, layer) + push
        losses.append(model.token_loss(part, layer, pushed).cpu())
    return torch.cat(losses).mean().item()
