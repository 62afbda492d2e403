"""Local Hugging Face folders with small random weights, in the shapes of the families that the field works on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from aligned.language.model import EMBEDDED_FOLDER

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2", "gemma3", "qwen2")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def make(family: str, folder: Path, seed: int = 0) -> Path:
    """A model of this family, with the embedded model's tokenizer; what `from_pretrained` takes.

    The weights are random, and so large that the model's predictions depend on its layers.
    """
    import transformers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_inner=64, n_positions=256, **common)
    elif family == "gpt_neo":
        layers = {"num_layers": 3, "attention_types": [[["global"], 3]]}
        config = transformers.GPTNeoConfig(
            hidden_size=32, num_heads=4, intermediate_size=64, max_position_embeddings=256, **layers, **common
        )
    else:
        names = {"gpt_neox": "GPTNeoX", "gemma3": "Gemma3Text"}
        grouped = {} if family == "gpt_neox" else {"num_key_value_heads": 2}
        own: dict[str, Any] = {} if family in ("gpt_neox", "llama", "qwen2") else {"head_dim": 8}
        if family == "gemma3":  # blocks of both kinds
            own |= {"layer_types": [f"{kind}_attention" for kind in ("sliding", "full", "sliding")]}
            own |= {"sliding_window": 16}
        config = getattr(transformers, f"{names.get(family, family.title())}Config")(
            max_position_embeddings=256, **SHAPE, **grouped, **common, **own
        )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
