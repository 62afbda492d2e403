"""`dictionary_learning` 0.1.0, the stack behind the paper, without the parts of it that need a language model."""

from __future__ import annotations

import sys
import types
from typing import Any

stub = types.ModuleType("nnsight")
stub.LanguageModel = object  # type: ignore[attr-defined]
sys.modules.setdefault("nnsight", stub)


def trainer(activation: str, steps: int, d_in: int, d_sae: int, sparsity: float, lr: float, device: str = "cpu") -> Any:
    """The peer's trainer, with this project's scaling of the demo's settings to `steps`."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.p_anneal import PAnnealTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    warmup = round(steps * 1000 / 24414)
    common = {"steps": steps, "activation_dim": d_in, "dict_size": d_sae, "layer": 0, "lm_name": "", "device": device,
              "lr": lr, "warmup_steps": warmup, "decay_start": round(0.8 * steps), "seed": 0}  # fmt: skip
    if activation == "relu":
        return StandardTrainer(**common, l1_penalty=sparsity, sparsity_warmup_steps=round(steps * 5000 / 24414))
    if activation == "p_anneal":
        return PAnnealTrainer(
            **common, initial_sparsity_penalty=sparsity, sparsity_function="Lp^p", p_end=0.2,
            sparsity_warmup_steps=round(steps * 5000 / 24414), anneal_start=round(steps * 10_000 / 24414),
        )  # fmt: skip
    kind = TopKTrainer if activation == "topk" else BatchTopKTrainer
    return kind(**common, k=int(sparsity), threshold_start_step=warmup)
