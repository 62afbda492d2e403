"""Checks of what a reader writes in the page "Write it yourself": each tries a function on a small example.

A check says "right", or names the mistake, where it is a common one, or shows the example with the answer and the
right one. Of a function that returns nothing it says that it is not written yet. It never raises for a wrong answer, so
a page with one runs to its end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from aligned import alignment
from aligned.evals.matching import match
from aligned.methods.topk import keep_topk


class Mistake(Exception):
    """What is wrong with an answer, in a line."""


Mistakes = list[tuple[Tensor, str]]  # what a wrong function gives, and what is wrong with it
SIGN = "the sign is the wrong way round"
SECONDS = 2  # of computing, within which any method but a trial of all pairings matches 20 rows
IN_TORCHS_WORDS = {  # what torch raises where a gradient cannot pass, and what is wrong then
    "numpy()": "no gradient passes through numpy: use torch's operations alone",
    "inplace operation": "a tensor that the gradient needs was changed in place, as by `+=`; make a new one instead",
}
RIGHT, NOTHING = "right", "the function returns nothing: is it written, and is there a `return`?"


def _says(check: Callable[[Callable[..., object]], None]) -> Callable[[Callable[..., object]], str]:
    """The check as the page calls it: it returns "right", or the line of the `Mistake` that it met."""

    @wraps(check)
    def says(answer: Callable[..., object]) -> str:
        try:
            check(answer)
        except Mistake as mistake:
            return str(mistake)
        return RIGHT

    return says


def yours_or_the_books(
    **functions: tuple[Callable[..., object], Callable[..., object]],
) -> tuple[SimpleNamespace, str]:
    """The reader's functions where their checks say "right", and the book's elsewhere; and a line on which is which.

    Args:
        functions: the reader's and the book's, by the name of the check.
    """
    taken: dict[str, list[str]] = {"yours": [], "the book's": []}
    used = SimpleNamespace()
    for name, (mine, the_books) in functions.items():
        is_right = False
        with suppress(Exception):  # whatever a function that is not right raises
            is_right = globals()[f"check_{name}"](mine) == RIGHT
        taken["yours" if is_right else "the book's"].append(name)
        setattr(used, name, mine if is_right else the_books)
    return used, "; ".join(f"{whose}: {', '.join(names) or 'none'}" for whose, names in taken.items())


@_says
def check_alignment_score(answer: Callable[..., object]) -> None:
    """Of `answer(W_enc, W_dec)`, with `W_enc [d_in, d_sae]` and `W_dec [d_sae, d_in]`: the scores, `[d_sae]`."""
    W_enc = torch.tensor([[1.0, 0.5, 2.0], [2.0, 1.0, -1.0]])
    W_dec = torch.tensor([[2.0, 1.0], [3.0, 1.0], [1.0, 3.0]])
    right = (W_enc.T * W_dec).sum(1)
    of_encoder, of_decoder = W_enc.norm(dim=0), W_dec.norm(dim=1)
    one_norm = "one of the two was divided by its norm; the score is the inner product, with no norm in it"
    every = "every encoder with every decoder; a score is of a feature's own two directions"
    mistakes = [
        (right / of_encoder / of_decoder, "these are cosines; the score is the inner product, with no norm in it"),
        (right / of_encoder, one_norm),
        (right / of_decoder, one_norm),
        (W_enc.T @ W_dec.T, every),
        (W_dec @ W_enc, every),
        (-right, SIGN),
        (right / len(W_enc), "this is a mean over d_in; an inner product is a sum"),
        ((W_enc.T * W_dec).sum(0), "the sum is over the features; an inner product sums over d_in"),
        (right.trunc(), "these are whole numbers; a score need not be one"),
        (right[:, None], "the shape is [3, 1] and should be [3]: leave `keepdim` out"),
    ]
    _check(answer, {"W_enc": W_enc, "W_dec": W_dec}, right, mistakes)


@_says
def check_projected(answer: Callable[..., object]) -> None:
    """Checks `answer(v, d)`, where v and d are rows of free vectors and of decoder directions, `[d_sae, d_in]`, which
    need not have norm 1. It should return the encoders nearest to v whose scores are 1
    (`aligned.alignment.projected`), by operations through which both gradients pass."""
    # Scores above 1, between 0 and 1, and below 0; rows of d longer and shorter than 1.
    v = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, -2.0, 1.0]])
    d = torch.tensor([[2.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.0], [1.0, 1.0, 0.0]])
    score, square, unit = alignment.dot(v, d), alignment.dot(d, d), normalize(d)
    step = d / square
    mistakes = [
        (v + (1 - score) * d, "this is right for rows of norm 1; for others the step along d is divided by |d|^2"),
        (v + (1 - score) * unit, "the step along d is divided by |d|, and should be by |d|^2"),
        (
            v + (1 - alignment.dot(v, unit)) * unit,
            "the inner product with d / |d| is 1, and that with d itself should be",
        ),
        (v + (score - 1) * step, f"{SIGN}: v moved away from the plane"),
        (v + (1 - score) / square * v, "the step is along v, and should be along d"),
        (alignment.rescaled(v, d), "the scores are 1, but v is divided by its score: not the nearest point"),
        (alignment.tied(v, d), "the scores are 1, but v plays no part: this is the tied encoder"),
        (v - score * step, "the scores are 0, and should be 1"),
        (v, "this is v itself; its scores are not 1"),
        (v + (1 - score).relu() * step, "only the rows with a score below 1 moved; those above have to move, too"),
        (v - (score - 1).relu() * step, "only the rows with a score above 1 moved; those below have to move, too"),
        (v + (1 - score).abs() * step, "the step is 1 - score with its sign: leave out `abs`"),
        (v - (1 - score).abs() * step, "the step is 1 - score with its sign: leave out `abs`"),
        (v + (1 - score.abs()) * step, "a score may be below 0: leave out `abs`"),
        (v + (1 - score.relu()) * step, "a score may be below 0: leave out `relu` or `clamp`"),
        (v + (1 - score) * d / square.clamp(min=1), "a row of d may be shorter than 1: leave out `clamp`"),
    ]
    _check(answer, {"v": v, "d": d}, alignment.projected(v, d), mistakes)
    # A function may be right for these rows alone.
    v, d = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    for one in ({"v": v[[row]], "d": d[[row]]} for row in range(len(v))):
        _check(answer, one, alignment.projected(**one), [])
    _check_gradients(answer, alignment.projected, {"v": v, "d": d})


@_says
def check_topk(answer: Callable[..., object]) -> None:
    """Of `answer(pre, k)`, with pre-activations `[batch, d_sae]`: ReLU, then each token's k largest, all others 0."""
    pre, k = torch.tensor([[2.0, 1.0, -2.5, 3.0, -1.0], [-1.0, 0.5, -3.0, -2.0, -0.5], [5.0, 9.0, 6.0, 8.0, 7.0]]), 2
    codes = pre.relu()
    right, batch = keep_topk(codes, k), codes.flatten()[None]
    whole = f"largest of the whole batch; TopK keeps {k} of each token"
    mistakes = [
        (keep_topk(pre, k), "a code is never negative: take the ReLU too"),
        (keep_topk(pre.abs(), k), "the largest are meant, not the largest in size"),
        (codes * (keep_topk(pre.abs(), k) > 0), "the largest are meant, not the largest in size: ReLU first"),
        (keep_topk(batch, k * len(pre)).view_as(pre), f"as BatchTopK does, this keeps the {k * len(pre)} {whole}"),
        (keep_topk(batch, k).view_as(pre), f"this keeps the {k} {whole}"),
        (keep_topk(codes.T.contiguous(), k).T, f"these are the {k} largest of each feature, over the batch"),
        (keep_topk(codes, k - 1), "each token has one code too few"),
        (keep_topk(codes, k + 1), "a token has one code too many"),
        ((right > 0).float(), "this says where the codes are; return the codes themselves"),
        (codes, "this keeps all that the ReLU keeps; keep the k largest of each token"),
    ]
    positions = "`argsort` gives the positions in sorted order, not each code's rank"
    for of in (pre, codes):
        mistakes.append((codes * (of.argsort(dim=1, descending=True) < k), positions))
        mistakes.append((codes * (of.argsort(dim=1) >= pre.shape[1] - k), positions))

    def with_k(k: int) -> Callable[[Tensor], object]:
        return lambda pre: answer(pre, k)

    _check(with_k(k), {"pre": pre}, right, mistakes, f"k = {k} and ")
    for other in (1, 3):
        _check(with_k(other), {"pre": pre}, keep_topk(codes, other), [], f"k = {other} and ")
    _check_gradients(with_k(k), lambda pre: keep_topk(pre.relu(), k), {"pre": pre})


@_says
def check_ce_recovered(answer: Callable[..., object]) -> None:
    """Checks `answer(clean, sae, zero)`. It should return the share of the layer's worth that a reconstruction keeps.
    The arguments are the language model's losses: without a change, with the reconstruction, and with zeros in its
    place."""
    clean, sae, zero = 3.0, 3.5, 8.0
    right = (zero - sae) / (zero - clean)
    ratio = "a ratio of losses; nothing says yet what zeroing the layer costs"
    mistakes = [
        (1 - right, "this is the share that is lost"),
        (-right, SIGN),
        (100 * right, "this is in percent; return a share, such as 0.9"),
        (clean / sae, ratio),
        (sae / clean, ratio),
        ((zero - sae) / zero, "divide by what the layer is worth: the loss with zeros minus the clean one"),
        (zero - sae / zero - clean, "brackets are missing: division comes before subtraction"),
    ]
    _check_share(answer, (clean, sae, zero), right, mistakes)
    worse = "a reconstruction can be worse than zeros; then the answer is below 0"
    _check_share(answer, (2.0, 7.0, 6.0), -0.25, [(0.0, worse), (0.25, worse)])
    better = "a reconstruction can be better than the model itself; then the answer is above 1"
    _check_share(answer, (2.0, 1.75, 6.0), 1.0625, [(1.0, better), (1.06, "the answer is rounded")])


def _check_share(
    answer: Callable[..., object], losses: tuple[float, float, float], right: float, mistakes: list[tuple[float, str]]
) -> None:
    clean, sae, zero = losses
    example = f"losses of {clean:g} (clean), {sae:g} (SAE), {zero:g} (zero)"
    values = [(torch.tensor(value), what) for value, what in mistakes]
    _compare(_number(answer(*losses)), torch.tensor(right), example, values)


@_says
def check_pw_mcc(answer: Callable[..., object]) -> None:
    """Of `answer(a, b)`, the decoder rows of two dictionaries, `[n, d_in]`: the mean cosine of the best one-to-one
    matching (arXiv 2505.20254), found in little time."""
    # Each mistake below gives another number here; and the best matching is not its own inverse, and n is not d_in.
    a = torch.tensor([[3.0, 3.0, -3.0], [2.0, -1.0, 2.0], [-2.0, 3.0, 2.0], [-1.0, -3.0, 1.0]])
    b = torch.tensor([[0.0, -3.0, 3.0], [2.0, -1.0, -3.0], [1.0, 0.0, -1.0], [1.0, 1.0, -2.0]])
    cosines, inner = normalize(a) @ normalize(b).T, a @ b.T
    partners, by_inner = _partners(cosines), _partners(inner)
    rows = torch.arange(len(a))
    best = "took its best partner; in a matching a partner is taken once"
    lengths = "the pairs were chosen by inner products or distances of rows of any length; choose them by cosines"
    distances = "the sum of the distances is least in these pairs; the greatest sum of cosines needs others"
    products = "these are inner products; a cosine has norms of 1"
    one_norm = "the rows of one of the two dictionaries have no norm of 1; a cosine needs both"
    mistakes = [
        (cosines.amax(1).mean(), f"each row of a {best}"),
        (cosines.amax(0).mean(), f"each row of b {best}"),
        (cosines.diagonal().mean(), "the rows were compared in their order; seeds put features in any order"),
        (_greedy(cosines), "the greatest cosine was taken first; the greatest sum may need other pairs"),
        (_row_by_row(cosines), "the rows chose one after the other; the greatest sum may need other pairs"),
        (cosines[partners, rows].mean(), "the pairs are the wrong way round: `rows` belongs to a, `partners` to b"),
        (cosines[rows, by_inner].mean(), lengths),
        (cosines[rows, _partners(-torch.cdist(a, b))].mean(), lengths),
        (cosines[rows, _partners(-torch.cdist(normalize(a), normalize(b)))].mean(), distances),
        (
            cosines[rows, _partners(cosines.abs())].mean(),
            "the pairs were chosen by the size of the cosine, without its sign",
        ),
        (inner.amax(1).mean(), products),
        (inner[rows, by_inner].mean(), products),
        (inner[rows, partners].mean(), products),
        (_best(normalize(a) @ b.T), one_norm),
        (_best(a @ normalize(b).T), one_norm),
        (_best(normalize(a).T @ normalize(b)), "the columns were compared; a feature is a row"),
        (_best(normalize(a.T) @ normalize(b.T).T), "the columns were compared; a feature is a row"),
        (_best(normalize(a.T).T @ normalize(b.T)), "the columns have norm 1; a feature is a row"),
        (_best(cosines.abs()), "a cosine below 0 was taken for one above 0"),
        (-_best(-cosines), "this is the matching with the smallest sum: pass `maximize=True`"),
        (cosines[rows, partners].sum(), "this is the sum of the cosines; return their mean"),
    ]

    given = {"a": a, "b": b}
    _compare(_number(_call(answer, given)), torch.tensor(match(a, b).mean), _said(given), mistakes)
    # The seed is one of 400 that were tried: exchanging partners two by two, as long as that helps, misses the best
    # matching of these rows, from the greedy ones, from the rows in their order, and from 999 of 1000 random ones.
    a, b = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(22))
    with _stopped_after(
        SECONDS, f"right for {len(rows)} rows, but {len(a)} rows take over {SECONDS} seconds; exercise 6 has 80"
    ):
        found = _number(_call(answer, {"a": a, "b": b}))
    example = f"{len(a)} random rows, where exchanging partners two by two is not enough,"
    _compare(found, torch.tensor(match(a, b).mean), example, [])


@contextmanager
def _stopped_after(seconds: float, what: str) -> Iterator[None]:
    """Raises a `Mistake` within what has computed for so long. (This takes the main thread, where a notebook's cells
    run.)"""

    def stop(*_: object) -> None:
        raise Mistake(what)

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _partners(values: Tensor) -> Tensor:
    """For each row the column that the greatest sum gives it."""
    from scipy.optimize import linear_sum_assignment

    return torch.as_tensor(linear_sum_assignment(values, maximize=True)[1])


def _best(values: Tensor) -> Tensor:
    return values[torch.arange(len(values)), _partners(values)].mean()


def _greedy(values: Tensor) -> Tensor:
    """The mean of the greatest value, the greatest of what is left, and so on."""
    left, taken = values.clone(), []
    for _ in range(len(values)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        taken.append(values[row, column])
        left[row], left[:, column] = -torch.inf, -torch.inf
    return torch.stack(taken).mean()


def _row_by_row(values: Tensor) -> Tensor:
    """The mean of what the rows take, each in turn the greatest that is left."""
    left, taken = values.clone(), []
    for row in range(len(values)):
        column = int(left[row].argmax())
        taken.append(values[row, column])
        left[:, column] = -torch.inf
    return torch.stack(taken).mean()


def _call(answer: Callable[..., object], given: dict[str, Tensor]) -> object:
    """What the function returns, or a `Mistake` that says that it changed what it was given."""
    mine = {name: value.clone() for name, value in given.items()}
    found = answer(*mine.values())
    for name, value in given.items():
        if not torch.equal(mine[name], value):
            raise Mistake(f"the function changed its argument {name}; make a new tensor instead")
    return found


def _check(
    answer: Callable[..., object], given: dict[str, Tensor], right: Tensor, mistakes: Mistakes, where: str = ""
) -> None:
    found = _call(answer, given)
    if found is not None and not isinstance(found, Tensor):
        raise Mistake(f"the answer is of type {type(found).__name__}; return a torch tensor")
    _compare(found, right, where + _said(given), mistakes)


def _check_gradients(answer: Callable[..., Any], right: Callable[..., Tensor], given: dict[str, Tensor]) -> None:
    """Raises a `Mistake` that says which gradient does not pass through the answer, or is another one."""
    of = {}
    for function in (answer, right):
        leaves = [value.clone().requires_grad_() for value in given.values()]
        try:
            found = function(*leaves)
            if not found.requires_grad:
                raise Mistake("no gradient passes: use torch's operations alone, without `detach` or `no_grad`")
            weights = torch.arange(1.0, found.numel() + 1).view_as(found)
            of[function] = torch.autograd.grad((found * weights).sum(), leaves, allow_unused=True)
        except RuntimeError as error:  # torch's own words, of which some would advise `detach`
            for words, what in IN_TORCHS_WORDS.items():
                if words in str(error):
                    raise Mistake(what) from None
            raise
    for name, mine, other in zip(given, of[answer], of[right]):
        if mine is None:
            raise Mistake(f"no gradient reaches {name}: leave out `detach` and `no_grad`")
        if not torch.allclose(mine, other, atol=1e-4):
            raise Mistake(
                f"the values are right, but some of the gradient misses {name}: leave out `detach` and `no_grad`"
            )


def _number(found: object) -> Tensor | None:
    if found is None:
        return None
    try:
        value = torch.as_tensor(found, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"the answer is of type {type(found).__name__}; return a number") from None
    if value.numel() != 1:
        raise Mistake(f"the answer has the shape {list(value.shape)}; return one number")
    return value.detach().reshape(())


def _compare(found: Tensor | None, right: Tensor, example: str, mistakes: Mistakes) -> None:
    """Raises a `Mistake` if the answer is not right; it names the mistake, where it is one of those that are known."""
    if found is None:
        raise Mistake(NOTHING)
    found = found.detach().float()
    if found.shape == right.shape and torch.allclose(found, right, atol=1e-4):
        return
    for value, what in mistakes:
        if value.shape == found.shape and torch.allclose(found, value, atol=1e-4):
            raise Mistake(f"{what} (for {example})")
    mine = _text(found) if found.shape == right.shape else f"of shape {list(found.shape)}, not {list(right.shape)}"
    raise Mistake(f"for {example} the answer is {_text(right)}; yours is {mine}")


def _said(given: dict[str, Tensor]) -> str:
    return " and ".join(f"{name} = {_text(value)}" for name, value in given.items())


def _text(value: Tensor) -> str:
    """A number, a list or a list of lists, to three decimals."""
    if value.dim():
        return f"[{', '.join(map(_text, value))}]"
    return f"{value.item():.3f}".rstrip("0").rstrip(".")
