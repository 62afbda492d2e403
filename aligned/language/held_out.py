"""Text that nothing was trained on: its tokens, what they are, and a model's activations on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from aligned.checks import number, whole
from aligned.language import text
from aligned.language.any_text import labelling_of
from aligned.language.labels import Labelling, labelled_blocks
from aligned.language.model import LanguageModel

_BLOCKS = 8  # read at once


@dataclass(frozen=True)
class HeldOut:
    """Blocks of held-out text.

    Attributes:
        tokens: `[n, context]`, BOS first.
        labels: `[n, context]`, each token's labels, bit i for concept i (`aligned.language.labels`).
        labelling: that they are from.
        x: `[n, context, d_in]`, the residual stream after a layer.
        keep: `[n, context]`, False at special tokens, which are neither reconstructed nor measured, and at outliers
            where these were to be left out.
    """

    tokens: Int[Tensor, "n context"]
    labels: UInt64[np.ndarray, "n context"]
    labelling: Labelling
    x: Float[Tensor, "n context d_in"]
    keep: Bool[Tensor, "n context"]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the concepts."""
        return self.labelling.names

    @property
    def kept(self) -> tuple[Float[Tensor, "m d_in"], UInt64[np.ndarray, " m"]]:
        """Activations and labels of the tokens to keep, in their order."""
        return self.x[self.keep], self.labels[self.keep.numpy()]


def held_out(
    model: LanguageModel,
    layer: int,
    tokens: int,
    context: int = 256,
    source: str = text.INSTALLED,
    labelling: Labelling | None = None,
    outliers: float = 0.0,
) -> HeldOut:
    """Read held-out text.

    Args:
        model: the language model.
        layer: whose residual stream.
        tokens: how many, rounded up to whole blocks; fewer, where the text ends.
        context: tokens in a block, BOS included.
        source: as `aligned.language.text.documents` takes it.
        labelling: by default `aligned.language.any_text.labelling_of` the source.
        outliers: tokens whose activation's norm exceeds this many times the median norm are not kept; 0 keeps all.

    Raises:
        TypeError, ValueError: a layer that the model does not have, blocks that are too long for it, no tokens, or no
            text.
    """
    model.hook(layer)
    tokens, context = whole("tokens", tokens, 1), whole("context", context, 2)
    outliers = number("outliers", outliers, 0)
    model.check_context(context)
    labelling = labelling or labelling_of(source)
    docs = text.documents(source, "held_out")
    found = labelled_blocks(docs, model.tokenizer, context, -(-tokens // context), labelling)
    x = torch.cat([model.residual(part, layer).cpu() for part in found.tokens.split(_BLOCKS)])
    keep, norms = ~model.is_special(found.tokens), x.norm(dim=2)
    if outliers:
        keep &= norms <= outliers * norms[keep].median()
    return HeldOut(found.tokens, found.labels, labelling, x, keep)
