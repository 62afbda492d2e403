"""The precision of what costs most: bf16 where the processor has units for it, float32 elsewhere.

It is that of the SAE's dense products, of the forward passes that collect activations, and of pre-training. Weights,
optimizers, sums over codes and every evaluation are in float32 on every processor. Where there are no such units torch
emulates bf16 products, five to seven times slower than those in float32. `ALIGNED_PRECISION` forces either.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal, get_args

import torch

Precision = Literal["bf16", "float32"]


def precision(device: str | torch.device | None = None) -> Precision:
    """What `ALIGNED_PRECISION` says, or else what the device is faster in.

    Args:
        device: by default the GPU where there is one, else the CPU.

    Raises:
        ValueError: `ALIGNED_PRECISION` is neither `bf16` nor `float32`.
    """
    asked = os.environ.get("ALIGNED_PRECISION") or None
    if asked not in (None, *get_args(Precision)):
        raise ValueError(f"ALIGNED_PRECISION is {asked!r}; it is one of {', '.join(get_args(Precision))}, or not set")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return asked or ("bf16" if _has_units(torch.device(device).type) else "float32")  # type: ignore[return-value]


def dtype(device: str | torch.device | None = None) -> torch.dtype:
    """The same as torch names it."""
    return torch.bfloat16 if precision(device) == "bf16" else torch.float32


def autocast(device: str | torch.device) -> torch.autocast:
    """A context in which a model's products are in the precision of its device."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision(device) == "bf16")


@lru_cache
def _has_units(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # To oneDNN, AVX-512 without bf16 instructions is support, though it is slower there than in float32; but it alone
    # heeds ONEDNN_MAX_CPU_ISA. What torch lists of processors that are not x86 does not name AVX-512.
    listed = torch.cpu.get_capabilities().get("avx512_bf16", True)
    return bool(listed and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
