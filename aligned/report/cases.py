"""Small examples with a known answer, for the pages on the measures: what a measure says of a good and of a bad case.

Each example is made in a moment, from chosen directions, codes and labels, so that the right answer is known. The
measures of `aligned.evals` then compute their answer, as they do for trained SAEs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

from aligned.alignment import Rows
from aligned.evals.spurious import Probe, Probes, Texts, mean_codes
from aligned.sae import SAE

if TYPE_CHECKING:
    from aligned.language.model import LanguageModel


def built(encoder: Rows, decoder: Rows, k: int | None = None) -> SAE:
    """An SAE with these directions, `[d_sae, d_in]` both, and no biases: ReLU, or TopK where a k is given."""
    d_sae, d_in = decoder.shape
    sae = SAE(d_in, d_sae, "topk" if k else "relu", k or 0.0, "none")
    with torch.no_grad():
        sae.free.copy_(encoder), sae.W_dec.copy_(decoder)
    return sae.requires_grad_(False)


def alignment(d_in: int = 64, d_sae: int = 2048) -> dict[str, SAE]:
    """SAEs whose features are of one kind or of two, by the angles between their encoders and decoders.

    `equal`: every encoder is its decoder. `two kinds`: half of the encoders are turned far away, to scores of about
    0.2. `two kinds that overlap`: half are turned a little, so that their scores run into those of the others.
    `one kind, skewed`: the features are all alike, and strongly turned encoders are rare.
    """
    rng = np.random.default_rng(0)
    half = d_sae // 2
    near, far = rng.normal(0.9, 0.03, half), rng.normal(0.2, 0.08, half)
    overlapping = rng.normal(0.82, 0.08, half)
    scores = {
        "equal": np.ones(d_sae),
        "two kinds": np.concatenate([near, far]),
        "two kinds that overlap": np.concatenate([near, overlapping]),
        "one kind, skewed": 1 - rng.gamma(2.0, 0.08, d_sae),
    }
    decoder = directions(d_sae, d_in)
    return {name: built(turned(decoder, torch.from_numpy(a).float()), decoder) for name, a in scores.items()}


def seeds(d_in: int = 64, d_sae: int = 20) -> dict[str, tuple[SAE, SAE]]:
    """Two dictionaries, as two seeds might find them.

    `the same`: the second has the first one's features in another order, with some noise. `one feature ten times`: as
    before, but ten of its features are near copies of one. `encoders exchanged`: the decoders are the same, and half of
    the encoders belong to other decoders. `nothing in common`: two random dictionaries.
    """
    rng = torch.Generator().manual_seed(0)
    first = directions(d_sae, d_in)
    order = torch.randperm(d_sae, generator=rng)
    again = noisy(first[order], 0.3)
    copied = first.clone()
    copied[1:10] = first[0]
    ten_times = noisy(copied[order], 0.3)
    exchanged = again.clone()
    exchanged[: d_sae // 2] = again[: d_sae // 2].roll(1, 0)
    other = directions(d_sae, d_in, seed=1)
    pairs = {
        "the same": (again, again),
        "one feature ten times": (ten_times, ten_times),
        "encoders exchanged": (exchanged, again),
        "nothing in common": (other, other),
    }
    a = built(first, first)
    return {name: (a, built(encoder, decoder)) for name, (encoder, decoder) in pairs.items()}


@dataclass(frozen=True)
class Labelled:
    """Tokens with known labels, and features of which we know how well they detect the labels.

    Attributes:
        sae: one whose codes are the activations.
        x: `[n, features]`.
        labels: bit i for concept i, `[n]`.
        names: of the concepts.
        features: their names.
    """

    sae: SAE
    x: Float[Tensor, "n features"]
    labels: UInt64[np.ndarray, " n"]
    names: tuple[str, ...]
    features: tuple[str, ...]


def concepts(tokens: int = 20_000) -> Labelled:
    """Five features and the concept `comment`, which holds in runs of ten tokens, a tenth of all.

    `exact` fires on these alone; `everywhere` on all tokens, most strongly on these; `elsewhere too` on these and on
    about as many other tokens; `half of it` on half of its tokens; `random` on a tenth of all.
    """
    rng = np.random.default_rng(0)
    comment = np.repeat(rng.random(tokens // 10) < 0.1, 10)
    string = np.repeat(rng.random(tokens // 5) < 0.05, 5)
    n = len(comment)
    size = rng.uniform(1, 2, (5, n))
    elsewhere = ~comment & (rng.random(n) < comment.mean() / (1 - comment.mean()))
    codes = {
        "exact": comment * size[0],
        "everywhere": np.where(comment, size[1], 0.4 * size[1]),
        "elsewhere too": (comment | elsewhere) * size[2],
        "half of it": (comment & (rng.random(n) < 0.5)) * size[3],
        "random": (rng.random(n) < 0.1) * size[4],
    }
    x = torch.from_numpy(np.stack(list(codes.values()), 1)).float()
    labels = comment.astype(np.uint64) | string.astype(np.uint64) << np.uint64(1)
    eye = torch.eye(len(codes))
    return Labelled(built(eye, eye), x, labels, ("comment", "string"), tuple(codes))


@dataclass(frozen=True)
class TwoAttributes:
    """Texts of one token and two dimensions, of which the first says whether a holds, and the second whether b does.

    Attributes:
        train, test: the texts.
        probes: of a, the first dimension; of b, the second; and the biased one, the direction in which a text moves
            where both hold.
        saes: by what their features are.
    """

    train: Texts
    test: Texts
    probes: Probes
    saes: dict[str, SAE]


def attributes(texts: int = 400) -> TwoAttributes:
    """Attribute a moves a text by +1 or -1 along the first axis, b by +1.3 or -1.3 along the second; with some noise.

    `a feature a value`: features for a, not a, b and not b, each of which fires where this holds. `mixed`: the same
    four, turned by 45 degrees, so that each is about both. `always on`: for b one feature alone, which fires on every
    text, the more where b holds.
    """
    moves = torch.tensor([1.0, 1.3])

    def some(seed: int) -> Texts:
        holds = torch.tensor([[True, True], [True, False], [False, True], [False, False]]).repeat(texts // 4, 1)
        x = (2.0 * holds - 1) * moves
        x += 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        return Texts(x[:, None], torch.ones(len(x), 1, dtype=torch.bool), holds[:, 0], holds[:, 1])

    axes = torch.eye(2)
    four = torch.cat([axes, -axes])
    mixed = four @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5
    three = torch.cat([axes, -axes[:1]])
    saes = {
        "a feature a value": built(four, four),
        "mixed": built(mixed, mixed),
        "always on": built(three, three),
    }
    saes["always on"].b_dec[1] = -4.0  # from where it reads
    a, b, biased = (Probe(weight, torch.tensor(0.0)) for weight in (axes[0], axes[1], moves))
    return TwoAttributes(some(0), some(1), Probes(a, b, biased), saes)


def without(of: TwoAttributes, sae: SAE, n: int) -> Float[Tensor, "texts d_in"]:
    """The test texts as `aligned.evals.scr` leaves them, when the n features that matter most for b are taken out."""
    f_train, f_test = (mean_codes(sae, texts, torch.ones_like(texts.a)) for texts in (of.train, of.test))
    holds = of.train.b.numpy()
    difference = torch.from_numpy(f_train[holds].mean(0) - f_train[~holds].mean(0))
    effect = difference.abs() * (sae.W_dec @ of.probes.b.weight).abs()
    top = effect.argsort(descending=True)[: min(n, int((effect > 0).sum()))]
    return of.test.mean - torch.from_numpy(f_test[:, top.numpy()] @ sae.W_dec[top].numpy())


def steering(model: LanguageModel, token: str) -> SAE:
    """Two features: the direction that, at the last layer, raises one token's logit more than all other logits, and a
    random one.

    Raises:
        ValueError: the word is not a single token of the model.
    """
    (*more, at) = model.tokenizer.encode(token, add_special_tokens=False)
    if more:
        raise ValueError(f"{token!r} is {len(more) + 1} tokens of {model.name}; give one")
    unembedding = model.bridge.original_model.get_output_embeddings().weight.detach().float().cpu()
    raises = unembedding[at] - unembedding.mean(0)
    decoder = torch.stack([raises / raises.norm(), directions(1, model.d_in)[0]])
    return built(decoder, decoder)


def error(d_in: int = 64, active: int = 4, tokens: int = 8192) -> tuple[Float[Tensor, "tokens d_in"], dict[str, SAE]]:
    """Activations that are a mean and the sum of some of `d_in` - 1 directions, orthogonal to it and to each other; and
    dictionaries, each with one fault or none.

    `no fault`: every direction is a feature, and the mean is the decoder's bias. `shrunk`: its codes are too small by a
    tenth. `one missing`: one of the features never fires. `fewer codes`: of each token's codes the larger half alone.
    `one dense`: the mean is a feature too, which fires on every token.
    """
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(d_in, d_in, generator=rng)).Q
    mean, rest = 3 * axes[0], axes[1:]
    which = torch.rand(tokens, d_in - 1, generator=rng).topk(active, dim=1).indices
    sizes = torch.zeros(tokens, d_in - 1).scatter(1, which, 0.5 + torch.rand(tokens, active, generator=rng))
    missing = rest.clone()
    missing[0] = 0
    saes = {
        "no fault": built(rest, rest, active),
        "shrunk": built(0.9 * rest, rest, active),
        "one missing": built(missing, rest, active),
        "fewer codes": built(rest, rest, active // 2),
        "one dense": built(axes, axes, active + 1),
    }
    for name, sae in saes.items():
        sae.b_dec += 0 if name == "one dense" else mean
    return mean + sizes @ rest, saes


def directions(n: int, d_in: int, seed: int = 0) -> Rows:
    """Random unit rows."""
    rows = torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def turned(rows: Rows, cosines: Float[Tensor, " n"]) -> Rows:
    """Unit rows turned, each towards a random side, until they have these cosines with what they were."""
    side = directions(len(rows), rows.shape[1], seed=1)
    side = side - (side * rows).sum(1, keepdim=True) * rows
    side = side / side.norm(dim=1, keepdim=True)
    a = cosines.clamp(-1, 1)[:, None]
    return a * rows + (1 - a.square()).sqrt() * side


def noisy(rows: Rows, size: float) -> Rows:
    """Unit rows plus noise of this norm or so, of norm 1 again."""
    found = rows + size * directions(len(rows), rows.shape[1], seed=2)
    return found / found.norm(dim=1, keepdim=True)
