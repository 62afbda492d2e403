"""Checks of what a reader writes in the page "Write it yourself": each tries a function on a small example.

A check says "right", or raises an `AssertionError` whose one line says what is wrong with which example.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from aligned import alignment
from aligned.evals.matching import match
from aligned.methods.topk import keep_topk


def check_alignment_score(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Of `answer(W_enc, W_dec)`, with `W_enc [d_in, d_sae]` and `W_dec [d_sae, d_in]`: the scores, `[d_sae]`."""
    W_enc, W_dec = _numbers(4, 3, seed=0), _numbers(3, 4, seed=1)
    right = (W_enc.T * W_dec).sum(1)
    cosines = right / W_enc.norm(dim=0) / W_dec.norm(dim=1)
    return _compare(
        answer(W_enc, W_dec),
        right,
        "W_enc of shape [4, 3] and W_dec of shape [3, 4]",
        [
            (cosines, "these are cosines; the score is the inner product, with no norm in it"),
            (
                W_enc.T @ W_dec.T,
                "every encoder with every decoder; a score is of a feature's own two directions",
            ),
        ],
    )


def check_projected(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Checks `answer(v, d)`, where v and d are rows of free vectors and of decoder directions, `[d_sae, d_in]`, which
    need not have norm 1. It should return the encoders nearest to v whose scores are 1
    (`aligned.alignment.projected`)."""
    v, d = _numbers(3, 4, seed=0), _numbers(3, 4, seed=1)
    unit = v + (1 - alignment.dot(v, d)) * d
    return _compare(
        answer(v, d),
        alignment.projected(v, d),
        "three free vectors and three decoder rows that do not have norm 1",
        [
            (unit, "this is right for rows of norm 1; for others the step along d is divided by |d|^2"),
            (
                alignment.rescaled(v, d),
                "the scores are 1, but v is divided by its score: not the nearest point",
            ),
            (alignment.tied(v, d), "the scores are 1, but v plays no part: this is the tied encoder"),
            (
                v - alignment.dot(v, d) * d / alignment.dot(d, d),
                "the scores are 0, and should be 1",
            ),
        ],
    )


def check_topk(answer: Callable[[Tensor, int], Tensor]) -> str:
    """Of `answer(pre, k)`, with pre-activations `[batch, d_sae]`: ReLU, then each token's k largest, all others 0."""
    pre = torch.tensor([[3.0, 1.0, -2.0, 2.0, -1.0], [-1.0, 0.5, -3.0, -2.0, -0.5], [9.0, 8.0, 7.0, 6.0, 5.0]])
    flat = keep_topk(pre.relu().flatten(), 6).view_as(pre)
    return _compare(
        answer(pre.clone(), 2),
        keep_topk(pre.relu(), 2),
        f"k = 2 and the pre-activations {pre.tolist()}",
        [
            (keep_topk(pre, 2), "a code is never negative: take the ReLU too"),
            (keep_topk(pre.abs(), 2), "the largest are meant, not the largest in size"),
            (flat, "these are the 6 largest of the whole batch, which is BatchTopK; TopK keeps 2 of each token"),
        ],
    )


def check_ce_recovered(answer: Callable[[float, float, float], float]) -> str:
    """Checks `answer(clean, sae, zero)`. It should return the share of the layer's worth that a reconstruction keeps.
    The arguments are the language model's losses: without a change, with the reconstruction, and with zeros in its
    place."""
    clean, sae, zero = 3.0, 3.5, 8.0
    return _compare(
        torch.as_tensor(answer(clean, sae, zero)),
        torch.tensor((zero - sae) / (zero - clean)),
        f"losses of {clean} (clean), {sae} (SAE) and {zero} (zero)",
        [
            (torch.tensor((sae - clean) / (zero - clean)), "this is the share that is lost"),
            (torch.tensor(clean / sae), "a ratio of losses; nothing says yet what zeroing the layer costs"),
            (
                torch.tensor((zero - sae) / zero),
                "divide by what the layer is worth: the loss with zeros minus the clean one",
            ),
        ],
    )


def check_pw_mcc(answer: Callable[[Tensor, Tensor], float]) -> str:
    """Of `answer(a, b)`, the decoder rows of two dictionaries, `[n, d_in]`: the mean cosine of the best one-to-one
    matching (arXiv 2505.20254)."""
    a = 3 * torch.tensor([[0.8, 0.75, 0.0], [0.72, 0.1, 0.69], [0.0, 0.0, 1.0]])
    b = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    cosines = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    greedy = cosines[2, 0] + cosines[0, 1] + cosines[1, 2]  # the greatest first, then the greatest of what is left
    return _compare(
        torch.as_tensor(answer(a, b)),
        torch.tensor(match(a, b).mean),
        f"the rows {a.tolist()} and {b.tolist()}",
        [
            (
                cosines.amax(1).mean(),
                "each row took its best partner; in a matching a partner is taken once",
            ),
            (cosines.diagonal().mean(), "the rows were compared in their order; seeds put features in any order"),
            (greedy / 3, "the greatest cosine was taken first; the greatest sum may need other pairs"),
            ((a @ b.T).amax(1).mean(), "these are inner products; a cosine has norms of 1"),
        ],
    )


def _numbers(*shape: int, seed: int) -> Float[Tensor, ...]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _compare(found: object, right: Tensor, example: str, mistakes: list[tuple[Tensor, str]]) -> str:
    """`right`, or an `AssertionError` that names the mistake, where it is one of those that are known."""
    assert isinstance(found, Tensor), f"the answer is a {type(found).__name__}; return a tensor, with `return`"
    for value, what in mistakes:
        if value.shape == found.shape and torch.allclose(found.float(), value, atol=1e-5):
            raise AssertionError(f"{what} (for {example})")
    assert found.shape == right.shape, f"the answer has the shape {list(found.shape)}, not {list(right.shape)}"
    difference = (found.float() - right).abs().max().item()
    assert difference < 1e-4, f"for {example} the answer is off by up to {difference:.3g}"
    return "right"
