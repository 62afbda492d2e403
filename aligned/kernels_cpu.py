"""The step's inner loops on a CPU, compiled by Numba: one pass over memory where single operations would take ten.

A row of a weight matrix stays in the nearest cache while all that is to be done with it is done. Every row is one
thread's, so results do not depend on the number of threads. `aligned/kernels_cuda.py` holds the same functions for a
GPU; `tests/test_kernels.py` compares both with plain dense ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from torch import Tensor

numba.config.THREADING_LAYER = "omp"  # torch's own threads; two pools on the same cores would wait for each other
ONE = np.float32(1)  # a plain 1 would turn the rest of a sum into float64
FAST = {"reassoc", "contract", "nsz"}  # a sum over a row may be taken in any order, so that it can be vectorised


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of returning it page by page. Fresh pages cost
    more than what is done with them: without this a step of the larger shapes takes about twice as long."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:  # another C library: slower, and the same result
        return
    for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(option, 1 << 30)


def _bits(x: Tensor) -> Any:
    """The bits of floating-point numbers as whole numbers: positive ones keep their order, all others are below 1."""
    return x.view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32).numpy()


def _group_maxima(pre: Tensor, groups: int) -> Tensor:
    """The largest entry of each group; entry i is in group i % (number of groups). At least `groups` of them."""
    size = next(s for s in (32, 16, 8, 4, 2, 1) if pre.shape[1] % s == 0 and pre.shape[1] >= s * groups or s == 1)
    return pre.view(len(pre), size, -1).amax(1)


def topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Each row's k largest entries (those over 0; the rest is filled up with zeros) and their places, `[batch, k]`.

    The k largest lie in the k groups with the largest maxima: only those are looked into.
    """
    maxima = _group_maxima(pre, min(8 * k, pre.shape[1]))
    bound = maxima.topk(k, dim=1, sorted=False).values.amin(1)
    places = np.zeros((len(pre), k), dtype=np.int32)
    values = np.zeros((len(pre), k), dtype=_bits(pre).dtype)
    _topk(_bits(pre), _bits(maxima), _bits(bound), values, places)
    return torch.from_numpy(values).view(pre.dtype).float(), torch.from_numpy(places)


@njit(parallel=True, cache=True)
def _topk(pre, maxima, bound, values, places):  # type: ignore[no-untyped-def]
    groups, k = maxima.shape[1], values.shape[1]
    for t in prange(len(pre)):
        row, heap, at = pre[t], values[t], places[t]  # the least of the k largest so far stands first
        for group in range(groups):
            if maxima[t, group] < bound[t]:
                continue
            for i in range(group, len(row), groups):
                new = row[i]
                if new <= heap[0]:
                    continue
                j = 0
                while True:  # sift down
                    child = 2 * j + 1
                    if child >= k:
                        break
                    if child + 1 < k and heap[child + 1] < heap[child]:
                        child += 1
                    if heap[child] >= new:
                        break
                    heap[j], at[j] = heap[child], at[child]
                    j = child
                heap[j], at[j] = new, i


def above(pre: Tensor, largest: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The positive entries row by row: values, places, and where each row starts, `[batch + 1]`. With `largest`, no
    fewer than that many of the largest of all (if so many are positive), and not all."""
    maxima = _group_maxima(pre, 1 if largest is None else min(pre.shape[1], -(-4 * largest // len(pre))))
    bits, tops, bound = _bits(pre), _bits(maxima), 1
    if largest is not None:
        bound = max(1, int(_bits(maxima.flatten().topk(largest, sorted=False).values.amin())))
    starts = np.zeros(len(pre) + 1, dtype=np.int32)
    _count(bits, tops, bound, starts)
    starts = starts.cumsum(dtype=np.int32)
    places, values = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=bits.dtype)
    _take(bits, tops, bound, starts, values, places)
    return torch.from_numpy(values).view(pre.dtype).float(), torch.from_numpy(places), torch.from_numpy(starts)


@njit(parallel=True, cache=True)
def _count(pre, maxima, bound, starts):  # type: ignore[no-untyped-def]
    groups = maxima.shape[1]
    for t in prange(len(pre)):
        row = pre[t]
        count = 0
        for group in range(groups):
            if maxima[t, group] >= bound:
                for i in range(group, len(row), groups):
                    count += row[i] >= bound
        starts[t + 1] = count


@njit(parallel=True, cache=True)
def _take(pre, maxima, bound, starts, values, places):  # type: ignore[no-untyped-def]
    groups = maxima.shape[1]
    for t in prange(len(pre)):
        row, j = pre[t], starts[t]
        for group in range(groups):
            if maxima[t, group] >= bound:
                for i in range(group, len(row), groups):
                    if row[i] >= bound:
                        values[j], places[j] = row[i], i
                        j += 1


@njit(parallel=True, fastmath=FAST, cache=True)
def _reconstruct(values, features, starts, W_dec, b_dec, x, difference, dots):  # type: ignore[no-untyped-def]
    d_in = x.shape[1]
    for t in prange(len(x)):
        row = difference[t]
        for c in range(d_in):
            row[c] = b_dec[c] - x[t, c]
        last = starts[t + 1] - (starts[t + 1] - starts[t]) % 4
        for j in range(starts[t], last, 4):  # by fours, to spare the nearest cache
            f0, f1, f2, f3 = values[j], values[j + 1], values[j + 2], values[j + 3]
            d0, d1, d2, d3 = (W_dec[features[j]], W_dec[features[j + 1]], W_dec[features[j + 2]],
                              W_dec[features[j + 3]])  # fmt: skip
            for c in range(d_in):
                row[c] += f0 * d0[c] + f1 * d1[c] + f2 * d2[c] + f3 * d3[c]
        for j in range(last, starts[t + 1]):
            d, value = W_dec[features[j]], values[j]
            for c in range(d_in):
                row[c] += value * d[c]
        for j in range(starts[t], starts[t + 1]):
            d, dot = W_dec[features[j]], np.float32(0)
            for c in range(d_in):
                dot += row[c] * d[c]
            dots[j] = dot


def reconstruct(
    values: Tensor, features: Tensor, starts: Tensor, W_dec: Tensor, b_dec: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """`x_hat - x` of every token, and at every code its inner product with the code's decoder row."""
    difference, dots = torch.empty_like(x), torch.empty_like(values)
    _reconstruct(*(a.detach().numpy() for a in (values, features, starts, W_dec, b_dec, x, difference, dots)))
    return difference, dots


def weighted_sums(starts: Tensor, rows: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """For each i the sum of `weights[j] x[rows[j]]` over j from starts[i] to starts[i + 1]."""
    return F.embedding_bag(rows, x, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)


@njit(fastmath=FAST, inline="always")
def _pull_back(g_e, g_d, v, d, aligned):  # type: ignore[no-untyped-def]
    """One feature's gradients by e and d, turned in place into those by v and d, what lies along d removed."""
    n = len(d)
    dd = ed = gd = vd = ve = np.float32(0)
    for c in range(n):
        dd += d[c] * d[c]
        gd += g_d[c] * d[c]
    if aligned:  # e = v + (1 - <v, d>) d / <d, d>
        for c in range(n):
            ed += g_e[c] * d[c]
            vd += v[c] * d[c]
        along_e, along_v = (ONE - vd) / dd, -ed / dd
        gd += along_e * ed + along_v * vd
    else:
        along_e = along_v = np.float32(0)
    gd /= dd
    for c in range(n):
        e = g_e[c]
        g_e[c] = new_v = e + along_v * d[c]
        g_d[c] = new_d = g_d[c] + along_e * e + along_v * v[c] - gd * d[c]
        ve += new_v * new_v + new_d * new_d
    return ve


@njit(parallel=True, fastmath=FAST, cache=True)
def _pull_back_rows(g_e, g_d, v, d, aligned, squares):  # type: ignore[no-untyped-def]
    for i in prange(len(d)):
        squares[i] = _pull_back(g_e[i], g_d[i], v[i], d[i], aligned)


def pull_back(g_e: Tensor, g_d: Tensor, v: Tensor, d: Tensor, aligned: bool) -> Tensor:
    """Gradients by e and d, turned in place into those by v and d, what lies along d removed.

    Args:
        g_e, g_d, v, d: `[d_sae, d_in]`.
        aligned: e is `projected` (`aligned.alignment`); else e is v.

    Returns:
        Each feature's squared norm of both gradients, `[d_sae]`.
    """
    squares = torch.empty(len(d))
    arrays = [a.detach().numpy() for a in (g_e, g_d, v, d)]
    _pull_back_rows(*arrays, aligned, squares.numpy())
    return squares


def _encoder_kernel(store: Callable[..., None]) -> Callable[..., None]:
    @njit(parallel=True, fastmath=FAST)
    def encoder(v, d, aligned, normalise, out):  # type: ignore[no-untyped-def]
        for i in prange(len(d)):
            row = d[i]
            if normalise:
                dd = np.float32(0)
                for c in range(d.shape[1]):
                    dd += row[c] * row[c]
                over = ONE / np.sqrt(dd)
                for c in range(d.shape[1]):
                    row[c] *= over
            dd = vd = along = np.float32(0)
            if aligned:
                for c in range(d.shape[1]):
                    dd += row[c] * row[c]
                    vd += row[c] * v[i, c]
                along = (ONE - vd) / dd
            for c in range(d.shape[1]):
                store(out, i, c, v[i, c] + along * row[c])

    return encoder


@njit(inline="always")
def _store_float(out, i, c, value):  # type: ignore[no-untyped-def]
    out[i, c] = value


@njit(inline="always")
def _store_bf16(out, i, c, value):  # type: ignore[no-untyped-def]
    """The upper half of a float32, rounded to the nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    out[i, c] = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


_ENCODERS = {torch.float32: _encoder_kernel(_store_float), torch.bfloat16: _encoder_kernel(_store_bf16)}


def encoder(v: Tensor, d: Tensor, aligned: bool, normalise: bool, out: Tensor) -> None:
    """`out` = e, in out's precision; `normalise` first rescales the rows of d to norm 1, in place."""
    bits = out.view(torch.uint16) if out.dtype == torch.bfloat16 else out
    _ENCODERS[out.dtype](v.detach().numpy(), d.detach().numpy(), aligned, normalise, bits.numpy())
