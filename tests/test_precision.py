"""bf16 where the processor has units for it: decided in one place, and said wherever it decides bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aligned.precision import autocast, dtype, precision
from aligned.provenance import provenance
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training.fused import Trainer

ROOT = Path(__file__).parents[1]
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


@pytest.mark.parametrize("asked", DTYPES)
def test_what_is_asked_for_is_what_everything_takes(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("ALIGNED_PRECISION", asked)
    spec = RunSpec(d_sae=16, sparsity=2)
    assert precision() == precision("cpu") == provenance()["precision"] == asked
    assert dtype("cpu") == Trainer(SAE(8, 16, "topk", 2), spec).pre.dtype == DTYPES[asked]
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == DTYPES[asked]


def test_another_value_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_PRECISION", "fp16")
    with pytest.raises(ValueError, match=r"ALIGNED_PRECISION is 'fp16'; it is one of bf16, float32, or not set$"):
        precision()


def test_it_is_no_part_of_a_specs_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for asked in DTYPES:
        monkeypatch.setenv("ALIGNED_PRECISION", asked)
        hashes.add(RunSpec().hash)
    assert len(hashes) == 1


def test_a_processor_without_bf16_units_takes_float32() -> None:
    """Told to leave out AVX-512, oneDNN is that of an older processor; where there is none, it is one already."""
    older = {k: v for k, v in os.environ.items() if k != "ALIGNED_PRECISION"} | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    told = subprocess.run(
        [sys.executable, "-c", "from aligned.precision import precision; print(precision('cpu'))"],
        env=older, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert told.strip() == "float32"


@pytest.mark.parametrize(("listed", "answer"), [({"avx512_bf16": False}, "float32"), ({}, "bf16")])
def test_avx512_without_bf16_instructions_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, listed: dict[str, bool], answer: str
) -> None:
    from aligned import precision as module

    monkeypatch.delenv("ALIGNED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: listed)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    module._has_units.cache_clear()
    assert precision("cpu") == answer
    module._has_units.cache_clear()
