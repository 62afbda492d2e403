"""The step's inner loops on a CPU, compiled by Numba: one pass over memory where single operations would take ten.

All work on a row of a weight matrix is done while the row is in the nearest cache. Each row is handled by one thread,
so results do not depend on the number of threads. `aligned/training/kernels_cuda.py` holds the same functions for a
GPU; `tests/training/test_kernels.py` compares both with plain dense ones.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from torch import Tensor

# Torch's own threads: two pools on the same cores would wait for each other.
numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]
ONE = np.float32(1)  # a plain 1 would turn the rest of a sum into float64
# The order of a sum is free, so that it can be vectorised. What Numba compiles and what it later finds in its cache may
# differ in that order, hence in bits: kernels with such sums are compiled by every process anew.
FAST = {"reassoc", "nsz"}


def _bits(x: Tensor) -> Any:
    """The bits of floating-point numbers as whole numbers: positive ones keep their order, all others are below 1."""
    return x.view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32).numpy()


def _groups(n: int, wanted: int) -> int:
    """How many groups to look at first, entry i being in group i % groups: 32 entries each if `wanted` allows it."""
    return n // next((size for size in (32, 16, 8, 4, 2) if n % size == 0 and n // size >= wanted), 1)


@njit(inline="always")
def _group_maxima(row, maxima):  # type: ignore[no-untyped-def]
    groups = len(maxima)
    maxima[:] = row[:groups]
    for start in range(groups, len(row), groups):
        part = row[start : start + groups]
        for group in range(groups):
            maxima[group] = max(maxima[group], part[group])


@njit(cache=True)
def _kth_largest(values, k):  # type: ignore[no-untyped-def]
    """The k-th largest of whole numbers, or 0 if fewer than k are over 0: by bisection, since counting is fast."""
    low, high = 0, max(0, values.max()) + 1
    while low + 1 < high:  # at least k values reach low, or it is 0; fewer than k reach high
        middle = (low + high) // 2
        if _reached(values, middle) >= k:
            low = middle
        else:
            high = middle
    return low


@njit(inline="always")
def _reached(values, bound):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(values)):
        count += values[i] >= bound
    return count


def topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Each row's k largest entries (those over 0; the rest is filled up with zeros) and their places, `[batch, k]`."""
    bits = _bits(pre)
    places, values = np.zeros((len(pre), k), dtype=np.int32), np.zeros((len(pre), k), dtype=bits.dtype)
    _topk(bits, _groups(pre.shape[1], 8 * k), values, places)
    return torch.from_numpy(values).view(pre.dtype).float(), torch.from_numpy(places)


@njit(parallel=True, cache=True)
def _topk(pre, groups, values, places):  # type: ignore[no-untyped-def]
    k = values.shape[1]
    for t in prange(len(pre)):
        row = pre[t]
        maxima, found = np.empty(groups, pre.dtype), np.empty(len(row), np.int32)
        _group_maxima(row, maxima)
        # The k largest entries lie in groups whose maxima reach the k-th largest of these: few entries are looked at.
        bound, count = max(1, _kth_largest(maxima, k)), 0
        for group in range(groups):
            if maxima[group] >= bound:
                for i in range(group, len(row), groups):
                    if row[i] >= bound:
                        found[count] = i
                        count += 1
        if count > k:
            bound = _kth_largest(row[found[:count]], k)
        ties, j = k, 0
        for i in found[:count]:
            ties -= row[i] > bound
        for i in found[:count]:
            if row[i] > bound or (row[i] == bound and ties > 0):
                ties -= row[i] == bound
                values[t, j], places[t, j] = row[i], i
                j += 1


def rectify(pre: Tensor) -> tuple[Tensor, Tensor]:
    """Set what is negative to 0, in place. Returns how many entries are left, and which columns have one."""
    counts, fired = np.empty(len(pre), np.int64), np.zeros(pre.shape[1], np.bool_)
    _rectify(_bits(pre), counts, fired)
    return torch.from_numpy(counts).sum(), torch.from_numpy(fired)


@njit(parallel=True, cache=True)
def _rectify(pre, counts, fired):  # type: ignore[no-untyped-def]
    for t in prange(len(pre)):
        row, count = pre[t], 0
        for i in range(len(row)):
            on = row[i] > 0
            count += on
            fired[i] |= on  # whichever thread comes first, they write the same
            row[i] = max(row[i], 0)
        counts[t] = count


def above(pre: Tensor, largest: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The positive entries row by row: values, places, and where each row starts, `[batch + 1]`; or, with `largest`,
    only that many of the largest of all."""
    bits = _bits(pre)
    wanted = 1 if largest is None else min(pre.shape[1], -(-4 * largest // len(pre)))
    maxima = np.empty((len(pre), _groups(pre.shape[1], wanted)), dtype=bits.dtype)
    _all_group_maxima(bits, maxima)
    bound = 1 if largest is None else max(1, _kth_largest(maxima.reshape(-1), largest))
    starts = np.zeros(len(pre) + 1, dtype=np.int32)
    _count(bits, maxima, bound, starts)
    starts = starts.cumsum(dtype=np.int32)
    places, values = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=bits.dtype)
    _take(bits, maxima, bound, starts, values, places)
    if largest is not None and len(values) > largest:
        bound = _kth_largest(values, largest)
        ties = np.flatnonzero(values == bound)[largest - np.count_nonzero(values > bound) :]
        kept = values >= bound
        kept[ties] = False
        starts = np.concatenate([[0], kept.cumsum()])[starts].astype(np.int32)
        values, places = values[kept], places[kept]
    return torch.from_numpy(values).view(pre.dtype).float(), torch.from_numpy(places), torch.from_numpy(starts)


@njit(parallel=True, cache=True)
def _all_group_maxima(pre, maxima):  # type: ignore[no-untyped-def]
    for t in prange(len(pre)):
        _group_maxima(pre[t], maxima[t])


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


@njit(fastmath=FAST)
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for c in range(len(a)):
        total += a[c] * b[c]
    return total


@njit(parallel=True)  # not cached: see FAST
def _reconstruct(values, features, starts, W_dec, b_dec, x, difference, dots):  # type: ignore[no-untyped-def]
    for t in prange(len(x)):
        row, token = difference[t], x[t]
        for c in range(len(row)):
            row[c] = b_dec[c] - token[c]
        last = starts[t + 1] - (starts[t + 1] - starts[t]) % 4
        for j in range(starts[t], last, 4):  # by fours, to spare the nearest cache
            f0, f1, f2, f3 = values[j], values[j + 1], values[j + 2], values[j + 3]
            d0, d1, d2, d3 = (W_dec[features[j]], W_dec[features[j + 1]], W_dec[features[j + 2]],
                              W_dec[features[j + 3]])  # fmt: skip
            for c in range(len(row)):
                row[c] += (f0 * d0[c] + f1 * d1[c]) + (f2 * d2[c] + f3 * d3[c])
        for j in range(last, starts[t + 1]):
            d, value = W_dec[features[j]], values[j]
            for c in range(len(row)):
                row[c] += value * d[c]
        for j in range(starts[t], starts[t + 1]):
            dots[j] = _dot(row, W_dec[features[j]])


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


@njit(fastmath=FAST)
def _with_decoder(g_e, g_d, v, d):  # type: ignore[no-untyped-def]
    """Inner products with d, in one pass: those of d itself, of g_d, g_e and v."""
    dd = gd = ed = vd = np.float32(0)
    for c in range(len(d)):
        dd += d[c] * d[c]
        gd += g_d[c] * d[c]
        ed += g_e[c] * d[c]
        vd += v[c] * d[c]
    return dd, gd, ed, vd


@njit(parallel=True)  # not cached: see FAST
def _pull_back(by_e, by_d, free, decoder, aligned, squares):  # type: ignore[no-untyped-def]
    for i in prange(len(decoder)):
        g_e, g_d, v, d = by_e[i], by_d[i], free[i], decoder[i]
        dd, gd, ed, vd = _with_decoder(g_e, g_d, v, d)
        along_e = along_v = np.float32(0)
        if aligned:  # e = v + (1 - <v, d>) d / <d, d>
            along_e, along_v = (ONE - vd) / dd, -ed / dd
            gd += along_e * ed + along_v * vd
        gd /= dd
        for c in range(len(d)):
            e = g_e[c]
            g_e[c] = e + along_v * d[c]
            g_d[c] = (g_d[c] - gd * d[c]) + (along_e * e + along_v * v[c])
        squares[i] = _dot(g_e, g_e) + _dot(g_d, g_d)


def pull_back(g_e: Tensor, g_d: Tensor, v: Tensor, d: Tensor, aligned: bool) -> Tensor:
    """Turn gradients with respect to e and d, in place, into those with respect to v and d, and remove from the latter
    what lies along d.

    Args:
        g_e, g_d, v, d: `[d_sae, d_in]`.
        aligned: e is `projected` (`aligned.alignment`); else e is v.

    Returns:
        Each feature's squared norm of both gradients, `[d_sae]`.
    """
    squares = torch.empty(len(d))
    arrays = [a.detach().numpy() for a in (g_e, g_d, v, d)]
    _pull_back(*arrays, aligned, squares.numpy())  # type: ignore[call-arg]
    return squares


@njit(fastmath=FAST)
def _rescale(d, over, v):  # type: ignore[no-untyped-def]
    """Multiply a row in place; in the same pass, its inner products with itself and with v."""
    dd = vd = np.float32(0)
    for c in range(len(d)):
        d[c] *= over
        dd += d[c] * d[c]
        vd += v[c] * d[c]
    return dd, vd


@njit(parallel=True)  # not cached: see FAST
def _encoder(free, decoder, aligned, normalise, bits, half):  # type: ignore[no-untyped-def]
    for i in prange(len(decoder)):
        v, d = free[i], decoder[i]
        dd, vd = _rescale(d, ONE / np.sqrt(_dot(d, d)) if normalise else ONE, v)
        along = (ONE - vd) / dd if aligned else np.float32(0)
        for c in range(len(d)):
            e = np.float32(v[c] + along * d[c]).view(np.uint32)
            if half:  # bf16 is the upper half of a float32, rounded to the nearest, ties to even
                e = (e + np.uint32(0x7FFF) + ((e >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            bits[i, c] = e


def encoder(v: Tensor, d: Tensor, aligned: bool, normalise: bool, out: Tensor) -> None:
    """Write e to the first columns of `out`, in its precision; if `normalise`, first scale the rows of d to norm 1, in
    place."""
    half = out.dtype == torch.bfloat16
    bits = out.view(torch.uint16 if half else torch.uint32).numpy()
    _encoder(v.detach().numpy(), d.detach().numpy(), aligned, normalise, bits, half)
