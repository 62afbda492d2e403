"""A feature to look at: the contexts in which it is strongest, what it detects, its alignment score."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned.alignment import alignment_score
from aligned.evals.codes import by_feature
from aligned.evals.fits import check_features
from aligned.sae import SAE

BEFORE, AFTER = 12, 6  # tokens shown around the strongest one


@dataclass(frozen=True)
class Context:
    """Some tokens in a row, as text, with the feature's activation on each; `at` is the place among them of the one
    that the context was taken for. (A larger activation may stand beside it, if an earlier context shows that one.)"""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    at: int


@dataclass(frozen=True)
class Page:
    """One feature.

    Attributes:
        feature: its index.
        score: alignment score.
        density: share of the tokens on which it is active.
        contexts: the strongest first; none for a feature that never fires.
        concept, f1: of `aligned.evals.concepts`, where they are known.
    """

    feature: int
    score: float
    density: float
    contexts: tuple[Context, ...]
    concept: str | None = None
    f1: float | None = None

    @property
    def title(self) -> str:
        known = f"; {self.concept}, F1 {self.f1:.2f}" if self.concept and self.f1 is not None else ""
        return f"feature {self.feature}: alignment score {self.score:.3f}, active on {self.density:.3%}{known}"

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Page:
        """The page that a `record` was made of."""
        contexts = (Context(tuple(c["tokens"]), tuple(c["values"]), c["at"]) for c in record["contexts"])
        return cls(**{**record, "contexts": tuple(contexts)})

    @property
    def record(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON; activations to three digits."""
        record = asdict(self)
        for context in record["contexts"]:
            context["values"] = [float(f"{v:.3g}") if v else 0 for v in context["values"]]
            context["tokens"] = list(context["tokens"])
        return {**record, "contexts": list(record["contexts"])}

    def text(self) -> str:
        """Readable without colour: active tokens stand in [brackets], the strongest of a context in [[two]]."""
        return "\n".join([self.title, *("  " + _plain(context) for context in self.contexts or ())])

    def html(self) -> str:
        """A piece of HTML that stands for itself: the darker a token's ground, the larger the activation."""
        return f"<div class='feature'><p><strong>{html.escape(self.title)}</strong></p>{self.contexts_html()}</div>"

    def contexts_html(self) -> str:
        """The contexts alone."""
        most = max((max(context.values) for context in self.contexts), default=1.0)
        return "".join(
            f"<pre style='margin:.3em 0;white-space:pre-wrap;overflow-wrap:anywhere'>{_coloured(c, most)}</pre>"
            for c in self.contexts
        )


def pages(
    sae: SAE,
    features: Sequence[int],
    tokens: Int[Tensor, "blocks context"],
    x: Float[Tensor, "blocks context d_in"],
    keep: Bool[Tensor, "blocks context"],
    vocabulary: Sequence[str],
    contexts: int = 8,
) -> list[Page]:
    """The pages of some features.

    Args:
        sae: for raw activations.
        features: which.
        tokens: blocks of text.
        x: their raw activations.
        keep: False at special tokens.
        vocabulary: the text of every token id (`tokenizer.batch_decode` of all ids).
        contexts: how many of the strongest, no two of which overlap.

    Raises:
        ValueError: a feature that the SAE does not have, activations of another width than the SAE's or of other
            tokens, or no context asked for.
    """
    if x.shape != (*tokens.shape, sae.d_in) or keep.shape != tokens.shape:
        raise ValueError(
            f"tokens {tuple(tokens.shape)}, x {tuple(x.shape)} and keep {tuple(keep.shape)} are not of one set of "
            f"blocks, or the activations are not of the SAE's width, {sae.d_in}"
        )
    if contexts < 1:
        raise ValueError(f"contexts is {contexts}; it is at least 1")
    features = check_features(sae, features)
    if keep.dtype != torch.bool or not keep.any():
        raise ValueError(
            f"keep is a mask, bool, that keeps at least one token; it is {keep.dtype}, {int(keep.sum())} kept"
        )
    if len(vocabulary) <= (highest := int(tokens.max())):
        raise ValueError(f"the vocabulary has {len(vocabulary)} tokens, and token {highest} is among these blocks")
    scores = alignment_score(sae)
    found: list[Page] = []
    for f in by_feature(sae, x[keep], torch.tensor(features)):
        for column in range(f.shape[1]):
            values = np.zeros(tokens.shape, dtype=np.float32)
            values[keep.numpy()] = f[:, [column]].toarray().ravel()
            shown = tuple(_context(vocabulary, tokens[b], values[b], at) for b, at in _peaks(values, contexts))
            feature = features[len(found)]
            density = f.indptr[column + 1] - f.indptr[column]
            found.append(Page(feature, scores[feature].item(), float(density / f.shape[0]), shown))
    return found


def _peaks(values: Float[np.ndarray, "blocks context"], count: int) -> list[tuple[int, int]]:
    """Where the largest values stand, no two of them within one context."""
    peaks: list[tuple[int, int]] = []
    candidates = np.argsort(values, axis=None)[::-1]
    for flat in candidates[: (values > 0).sum()]:
        block, at = divmod(int(flat), values.shape[1])
        if all(block != b or abs(at - p) > BEFORE + AFTER for b, p in peaks):
            peaks.append((block, at))
            if len(peaks) == count:
                break
    return peaks


def _context(
    vocabulary: Sequence[str], block: Int[Tensor, " context"], values: Float[np.ndarray, " context"], at: int
) -> Context:
    here = slice(max(0, at - BEFORE), at + AFTER + 1)
    words = tuple(vocabulary[t] for t in block[here].tolist())
    return Context(words, tuple(map(float, values[here])), at - here.start)


def _plain(context: Context) -> str:
    most = max(context.values)
    marks = [("[[", "]]") if v == most else ("[", "]") if v > 0 else ("", "") for v in context.values]
    return "".join(a + word + b for word, (a, b) in zip(context.tokens, marks)).replace("\n", "\\n")


def _coloured(context: Context, most: float) -> str:
    return "".join(_span(word, value, value / most) for word, value in zip(context.tokens, context.values))


def _span(word: str, value: float, depth: float) -> str:
    if value <= 0:
        return html.escape(word)
    # an orange on which the page's own text can be read, be it dark or light
    style = f"background:rgba(230,140,30,{0.75 * depth:.2f})"
    return f"<span title='{value:.3g}' style='{style}'>{html.escape(word)}</span>"
