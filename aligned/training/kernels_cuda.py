"""The step's inner loops on a GPU, in Triton: the same functions as `aligned/training/kernels_cpu.py`, one program a
row.

Sums run in a fixed order and nothing is added atomically, so that a run can be repeated bit for bit. Without a GPU the
tests run these in Triton's interpreter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def rectify(pre: Tensor) -> tuple[Tensor, Tensor]:
    """Set what is negative to 0, in place. Returns how many entries are left, and which columns have one."""
    return pre.relu_().count_nonzero().float(), pre.amax(0) > 0


def topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and places of each row's k largest entries, in any order."""
    values, places = pre.topk(k, dim=1, sorted=False)
    return values, places


def above(pre: Tensor, largest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `largest` greatest entries of the whole matrix, row by row, with negative ones set to 0: values, places, and
    where each row starts, `[batch + 1]`."""
    batch, d_sae = pre.shape
    top = pre.flatten().topk(largest, sorted=False)
    places, order = top.indices.sort()
    starts = torch.searchsorted(places, torch.arange(batch + 1, device=pre.device) * d_sae, out_int32=True)
    return top.values[order].float().relu(), (places % d_sae).int(), starts


@triton.jit
def _reconstruct(values, features, starts, W_dec, b_dec, x, difference, dots, d_in, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    t = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < d_in
    first, last = tl.load(starts + t), tl.load(starts + t + 1)
    row = tl.load(b_dec + c, inside, 0.0) - tl.load(x + t * d_in + c, inside, 0.0)
    for j in range(first, last):
        d = tl.load(W_dec + tl.load(features + j).to(tl.int64) * d_in + c, inside, 0.0)
        row += tl.load(values + j) * d
    tl.store(difference + t * d_in + c, row, inside)
    for j in range(first, last):
        d = tl.load(W_dec + tl.load(features + j).to(tl.int64) * d_in + c, inside, 0.0)
        tl.store(dots + j, tl.sum(row * d))


def reconstruct(
    values: Tensor, features: Tensor, starts: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """`x_hat - x` of every token, and at every code its inner product with the code's decoder row."""
    difference, dots = torch.empty_like(x), torch.empty_like(values)
    batch, d_in = x.shape
    _reconstruct[(batch,)](values, features, starts, W_dec, b_dec, x, difference, dots, d_in, BLOCK=_block(d_in))
    return difference, dots


@triton.jit
def _weighted_sums(starts, rows, weights, x, out, d_in, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < d_in
    total = tl.zeros([BLOCK], tl.float32)
    for j in range(tl.load(starts + i), tl.load(starts + i + 1)):
        total += tl.load(weights + j) * tl.load(x + tl.load(rows + j).to(tl.int64) * d_in + c, inside, 0.0)
    tl.store(out + i * d_in + c, total, inside)


def weighted_sums(starts: Tensor, rows: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """For each i the sum of `weights[j] x[rows[j]]` over j from starts[i] to starts[i + 1]."""
    n, d_in = len(starts) - 1, x.shape[1]
    out = x.new_empty(n, d_in)
    _weighted_sums[(n,)](starts, rows, weights, x, out, d_in, BLOCK=_block(d_in))
    return out


@triton.jit
def _pull_back(g_e, g_d, v, d, squares, d_in, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside, at = c < d_in, i * d_in + c
    by_e, by_d = tl.load(g_e + at, inside, 0.0), tl.load(g_d + at, inside, 0.0)
    row = tl.load(d + at, inside, 0.0)
    dd = tl.sum(row * row)
    if ALIGNED:  # e = v + (1 - <v, d>) d / <d, d>
        free = tl.load(v + at, inside, 0.0)
        ed, vd = tl.sum(by_e * row), tl.sum(free * row)
        by_d += (1 - vd) / dd * by_e - ed / dd * free
        by_e -= ed / dd * row
    by_d -= tl.sum(by_d * row) / dd * row
    tl.store(g_e + at, by_e, inside)
    tl.store(g_d + at, by_d, inside)
    tl.store(squares + i, tl.sum(by_e * by_e) + tl.sum(by_d * by_d))


def pull_back(g_e: Tensor, g_d: Tensor, v: Tensor, d: Tensor, aligned: bool) -> Tensor:
    """Turn gradients with respect to e and d, in place, into those with respect to v and d, and remove from the latter
    what lies along d.

    Args:
        g_e, g_d, v, d: `[d_sae, d_in]`.
        aligned: e is `projected` (`aligned.alignment`); else e is v.

    Returns:
        Each feature's squared norm of both gradients, `[d_sae]`.
    """
    n, d_in = d.shape
    squares = d.new_empty(n)
    _pull_back[(n,)](g_e, g_d, v, d, squares, d_in, ALIGNED=aligned, BLOCK=_block(d_in))
    return squares


@triton.jit
def _encoder(v, d, out, d_in, width, ALIGNED: tl.constexpr, NORMALISE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside, at = c < d_in, i * d_in + c
    e, row = tl.load(v + at, inside, 0.0), tl.load(d + at, inside, 0.0)
    if NORMALISE:
        row /= tl.sqrt(tl.sum(row * row))
        tl.store(d + at, row, inside)
    if ALIGNED:
        e += (1 - tl.sum(e * row)) / tl.sum(row * row) * row
    tl.store(out + i * width + c, e, inside)


def encoder(v: Tensor, d: Tensor, aligned: bool, normalise: bool, out: Tensor) -> None:
    """Write e to the first columns of `out`, in its precision; if `normalise`, first scale the rows of d to norm 1, in
    place."""
    n, d_in = d.shape
    _encoder[(n,)](v, d, out, d_in, out.shape[1], ALIGNED=aligned, NORMALISE=normalise, BLOCK=_block(d_in))


def _block(d_in: int) -> int:
    return triton.next_power_of_2(d_in)
