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
from aligned.checks import tensors, whole
from aligned.evals.codes import by_feature
from aligned.evals.fits import check_features, check_sae
from aligned.sae import SAE

BEFORE, AFTER = 16, 8  # tokens around the strongest one: whole lines within them are shown
LINE = 24  # tokens of its own line that are shown to either side, where that is a longer one
NO_CONCEPT = 0.2  # F1 under which a feature is said to detect none


@dataclass(frozen=True)
class Context:
    """Some tokens in a row, as text, with the feature's activation on each; `at` is the index among them of the token
    for which the context was taken. Of a first token that spans several lines only the last line is shown; of such a
    last token only the first line."""

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
        known = "" if self.f1 is None else f"; {self.detects}, F1 {self.f1:.2f}"
        return f"feature {self.feature}: alignment score {self.score:.3f}, active on {self.density:.3%}{known}"

    @property
    def detects(self) -> str:
        """The concept, or "no concept" where its F1 is under 0.2, which a choice among many reaches by chance."""
        return self.concept if self.concept and (self.f1 or 0.0) >= NO_CONCEPT else "no concept"

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
        """A self-contained piece of HTML. The stronger the colour behind a token, the larger its activation. The number
        is written after each token that has at least half of its context's largest activation; for the others it is
        shown when the mouse points at them."""
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
        contexts: how many of the strongest, no two of which overlap. Each is a line, with the lines around it that lie
            within a few tokens.

    Raises:
        ValueError: a feature that the SAE does not have, activations of another width than the SAE's or of other
            tokens, or no context asked for.
    """
    check_sae(sae)
    tensors(tokens=tokens, x=x, keep=keep)
    if x.shape != (*tokens.shape, sae.d_in) or keep.shape != tokens.shape:
        raise ValueError(
            f"tokens {tuple(tokens.shape)}, x {tuple(x.shape)} and keep {tuple(keep.shape)} are not of one set of "
            f"blocks, or the activations are not of the SAE's width, {sae.d_in}"
        )
    contexts = whole("contexts", contexts, 1)
    features = check_features(sae, features)
    if keep.dtype != torch.bool or not keep.any():
        raise ValueError(
            f"keep is a mask, bool, that keeps at least one token; it is {keep.dtype}, {int(keep.sum())} kept"
        )
    if tokens.is_floating_point() or tokens.min() < 0:
        raise ValueError(f"tokens are ids, whole numbers from 0 on; these are {tokens.dtype}, from {tokens.min()} on")
    if len(vocabulary) <= (highest := int(tokens.max())):
        raise ValueError(f"the vocabulary has {len(vocabulary)} tokens, and token {highest} is among these blocks")
    scores = alignment_score(sae)
    breaks = np.array(["\n" in word for word in vocabulary])[tokens.numpy()]
    found: list[Page] = []
    for f in by_feature(sae, x[keep], torch.tensor(features)):
        for column in range(f.shape[1]):
            values = np.zeros(tokens.shape, dtype=np.float32)
            values[keep.numpy()] = f[:, [column]].toarray().ravel()
            peaks = _peaks(values, contexts, breaks)
            shown = tuple(_context(vocabulary, tokens[b], values[b], at, here) for b, at, here in peaks)
            feature = features[len(found)]
            density = f.indptr[column + 1] - f.indptr[column]
            found.append(Page(feature, scores[feature].item(), float(density / f.shape[0]), shown))
    return found


def _peaks(
    values: Float[np.ndarray, "blocks context"], count: int, breaks: Bool[np.ndarray, "blocks context"]
) -> list[tuple[int, int, slice]]:
    """Where the largest values stand, and the lines around them, of which no two overlap."""
    peaks: list[tuple[int, int, slice]] = []
    candidates = np.argsort(values, axis=None)[::-1]
    for flat in candidates[: (values > 0).sum()]:
        block, at = divmod(int(flat), values.shape[1])
        here = _lines(breaks[block], at)
        if all(block != b or here.start >= of.stop or of.start >= here.stop for b, _, of in peaks):
            peaks.append((block, at, here))
            if len(peaks) == count:
                break
    return peaks


def _lines(breaks: Bool[np.ndarray, " context"], at: int) -> slice:
    """The line that contains a token, and the nearby whole lines before and after it. A token with a line break ends
    its line; what follows the break in that token, the indentation, belongs to the next line. `breaks` says which
    tokens have a line break."""
    starts = np.flatnonzero(breaks[:at])  # of the lines up to this one
    ends = at + np.flatnonzero(breaks[at:]) + 1
    near = starts[starts >= at - BEFORE]
    start = near[0] if len(near) else max(starts[-1] if len(starts) else 0, at - LINE)
    near = ends[ends <= at + AFTER + 1]
    end = near[-1] if len(near) else min(ends[0] if len(ends) else len(breaks), at + LINE)
    return slice(int(start), int(end))


def _context(
    vocabulary: Sequence[str],
    block: Int[Tensor, " context"],
    values: Float[np.ndarray, " context"],
    at: int,
    here: slice,
) -> Context:
    words = tuple(vocabulary[t] for t in block[here].tolist())
    return Context(words, tuple(map(float, values[here])), at - here.start)


def _plain(context: Context) -> str:
    most = max(context.values)
    marks = [("[[", "]]") if v == most else ("[", "]") if v > 0 else ("", "") for v in context.values]
    return "".join(a + word + b for word, (a, b) in zip(_words(context), marks)).replace("\n", "\\n")


def _words(context: Context) -> list[str]:
    """The tokens as they are shown: without the parts of the first and the last token that belong to other lines, with
    a sign where the end of a line is active, and with dots where a line is not complete."""
    words, first, last = list(context.tokens), context.tokens[0], context.tokens[-1]
    words[-1] = last.partition("\n")[0]
    if len(words) > 1:
        words[0] = first.rpartition("\n")[2]
    for i, value in enumerate(context.values):
        if value > 0 and "\n" in context.tokens[i]:
            words[i] = f"{words[i]}⏎" if i == len(words) - 1 else words[i].replace("\n", "⏎\n", 1)
    before, after = ("" if "\n" in token else "…" for token in (first, last))
    return [before + words[0], *words[1:-1], words[-1] + after] if len(words) > 1 else [before + words[0] + after]


def _coloured(context: Context, most: float) -> str:
    told = max(context.values) / 2  # from here on the number is written out
    return "".join(_span(word, v, v / most, v >= told) for word, v in zip(_words(context), context.values))


def _span(word: str, value: float, depth: float, told: bool) -> str:
    if value <= 0:
        return html.escape(word)
    # an orange so faint that the page's own text can be read on it, be it dark or light (a contrast of 4.5)
    style = f"background:rgba(230,140,30,{0.38 * depth:.2f})"
    number = f"<sub style='opacity:.7'>{value:.2g}</sub>" if told else ""
    return f"<span title='{value:.3g}' style='{style}'>{html.escape(word)}</span>{number}"
