"""How the embedded language model was trained: `aligned pretrain` does it again, and says how the two compare.

A GPT-NeoX of Pythia-14M's shape (d_model 128, 6 layers, 4 heads; Biderman et al., arXiv 2304.01373) with a vocabulary
of its own, trained on the Python sources of the packages that this environment pins. The result is an ordinary Hugging
Face folder. Hidden matrices are trained by Muon, everything else by AdamW; products are in bf16 where the processor has
units for it (`aligned.precision`), weights in float32.
"""

from __future__ import annotations

import json
import lzma
import math
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from aligned import files
from aligned.language import text
from aligned.precision import autocast, dtype, precision
from aligned.progress import tqdm

END_OF_TEXT = "<|endoftext|>"
_SMALLEST_VOCABULARY = 257  # every byte, and the end of a text
_MOST_PARAMETERS = 10**9

# What may become one token: a run of newlines with the indentation after it; a word with a space or underscores before
# it; up to three digits; a run of punctuation; a run of blanks.
PRE_TOKENS = r"[ \t]*(?:\r?\n)+[ \t]*| ?\p{L}+| ?_+\p{L}*|\p{N}{1,3}| ?[^\s\p{L}\p{N}_]+|[ \t]+|\s+"


@dataclass(frozen=True)
class Pretraining:
    """Everything that decides the weights, beside the text itself. The defaults are those of the embedded model.

    Raises:
        ValueError: a number that will not do; the message names it and what is allowed.
    """

    d_model: int = 128
    layers: int = 6
    heads: int = 4
    vocabulary: int = 4096
    context: int = 256
    tokens: int = 43_991_040
    batch: int = 64  # blocks
    lr_muon: float = 0.02
    lr_adam: float = 4e-3
    warmup: float = 0.02  # share of the steps
    decay: float = 0.5  # share of the steps, at the end, linearly to 0
    seed: int = 0

    def __post_init__(self) -> None:
        for names, low, high in (
            ("d_model layers heads batch", 1, 2**16), ("vocabulary", _SMALLEST_VOCABULARY, 2**24),
            ("context", 2, 2**16), ("tokens", self.batch * self.context, 10**12), ("seed", 0, 2**32),
        ):  # fmt: skip
            for name in names.split():
                if not low <= getattr(self, name) <= high:
                    raise ValueError(f"{name} is {getattr(self, name)}; it lies between {low:,} and {high:,}")
        for name in ("lr_muon", "lr_adam", "warmup", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is over 0 and at most 1")
        if self.d_model % (8 * self.heads):
            raise ValueError(f"d_model is {self.d_model}; it is a multiple of 8 times heads, {8 * self.heads}")
        if (parameters := 2 * self.vocabulary * self.d_model + 12 * self.layers * self.d_model**2) > _MOST_PARAMETERS:
            raise ValueError(
                f"d_model {self.d_model}, layers {self.layers} and vocabulary {self.vocabulary} make {parameters:,} "
                f"parameters; at most {_MOST_PARAMETERS:,} are trained here"
            )

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.context)

    def lr_scale(self, step: int) -> float:
        """Trapezoid: up over `warmup`, level, down to 0 over `decay`."""
        done = (step + 1) / self.steps
        return min(1.0, done / self.warmup, (1 - done) / self.decay + 1 / (self.steps * self.decay))


def train_tokenizer(docs: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that keeps indentation in one piece."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=32,
        show_progress=False,
    )
    bpe.train_from_iterator(docs, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


@torch.compile(dynamic=True)
def _loss_and_gradient(
    logits: Float[Tensor, "n vocabulary"], target: Int[Tensor, "n 1"]
) -> tuple[Tensor, Float[Tensor, "n vocabulary"]]:
    given, logits = logits.dtype, logits.float()
    log_z = logits.logsumexp(1, keepdim=True)
    one_hot = torch.arange(logits.shape[1], device=logits.device) == target
    return (log_z - logits.gather(1, target)).sum(), ((logits - log_z).exp() - one_hot.float()).to(given)


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `softmax(h W^T)`, its gradient made along with it, a chunk of rows at a time.

    The logits of a whole batch never stand in memory, which on a CPU is most of the cost of a small model's loss.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Float[Tensor, "n d"], unembed: Float[Tensor, "vocabulary d"], target: Int[Tensor, " n"]
    ) -> Tensor:
        p = dtype(h.device)
        w, rows, total = unembed.to(p), h.to(p), torch.zeros((), device=h.device)
        dh, dw = torch.empty_like(rows), torch.zeros_like(unembed)
        for i in range(0, len(h), 2048):
            chunk = rows[i : i + 2048]
            loss, gradient = _loss_and_gradient(chunk @ w.T, target[i : i + 2048, None])
            total += loss
            dh[i : i + 2048] = gradient @ w
            dw += (gradient.T @ chunk).float()
        ctx.save_for_backward(dh.to(h.dtype) / len(h), dw / len(h))
        return total / len(h)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        dh, dw = ctx.saved_tensors
        return dh * upstream, dw * upstream, None


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float, **__: Any) -> Any:
    """Causal attention in float32: on a CPU its backward pass is twice as fast as bf16's."""
    with torch.autocast(query.device.type, enabled=False):
        out = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True, scale=scaling)
    return out.to(query.dtype).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("float32_causal", _attention)


def new_model(spec: Pretraining) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.d_model,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.d_model,
        max_position_embeddings=spec.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(spec.seed)
    return GPTNeoXForCausalLM(config)


def train(spec: Pretraining, blocks: Int[Tensor, "n context"], work: Path, save_every: int = 200) -> GPTNeoXForCausalLM:
    """Train to the end, from the last checkpoint in `work` if there is one. The batch at a step depends on seed and
    step alone, so a run that was interrupted ends with the weights of one that was not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(spec).to(device)
    model.set_attn_implementation("float32_causal")
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "muon": torch.optim.Muon(hidden, lr=spec.lr_muon, weight_decay=0.01),
        "adam": torch.optim.AdamW(rest, lr=spec.lr_adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    }
    place, identity = work / "checkpoint.safetensors", asdict(spec)
    first, seconds = 0, 0.0
    if place.exists():
        tensors, meta = files.load(place, device)
        _check_same(place, meta["spec"], identity)
        files.check_precision(place, meta, precision(device))
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, optimizer in optimizers.items():
            files.restore_optimizer(optimizer, name, tensors)
        first, seconds = meta["step"], meta["seconds"]
    for layer in model.gpt_neox.layers:
        layer.compile()

    bar = tqdm(range(first, spec.steps), initial=first, total=spec.steps, unit="step", mininterval=5)
    log = work / "log.csv"
    mean, started = 0.0, time.perf_counter() - seconds
    for step in bar:
        for name, lr in (("muon", spec.lr_muon), ("adam", spec.lr_adam)):
            optimizers[name].param_groups[0]["lr"] = lr * spec.lr_scale(step)
        x = blocks[_rows(spec, len(blocks), step)].long().to(device)
        with autocast(device):
            h = model.gpt_neox(x).last_hidden_state[:, :-1].flatten(0, 1)
        loss = CrossEntropy.apply(h, model.get_output_embeddings().weight, x[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step}; the last checkpoint is kept in {place}")
        mean = value if step == first else 0.98 * mean + 0.02 * value
        bar.set_postfix_str(f"loss {mean:.3f} nats/token", refresh=False)
        if (step + 1) % save_every == 0 or step + 1 == spec.steps:
            seconds = time.perf_counter() - started
            tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
            for name, optimizer in optimizers.items():
                tensors |= files.optimizer_tensors(optimizer, name)
            facts = {"spec": identity, "precision": precision(device), "step": step + 1, "seconds": seconds}
            files.save(place, tensors, facts)
            with log.open("a") as file:
                file.write(f"{step + 1},{mean:.4f},{seconds:.0f}\n")
    return model


def _rows(spec: Pretraining, blocks: int, step: int) -> Int[Tensor, " batch"]:
    """The blocks of a step: each epoch is a permutation of its own."""
    at = torch.arange(step * spec.batch, (step + 1) * spec.batch)
    return torch.stack([_permutation(spec.seed, int(e), blocks)[int(i)] for e, i in zip(at // blocks, at % blocks)])


@lru_cache(maxsize=2)  # a step may end one epoch and begin the next
def _permutation(seed: int, epoch: int, blocks: int) -> Int[Tensor, " blocks"]:
    return torch.randperm(blocks, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))


@torch.no_grad()
def nats_per_token(model: GPTNeoXForCausalLM, blocks: Int[Tensor, "n context"]) -> float:
    """Mean cross-entropy of every token but BOS, in float32."""
    total = 0.0
    for x in tqdm(blocks.long().split(32), desc="held-out loss", mininterval=5):
        x = x.to(model.device)
        logits = model(x).logits[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum").item()
    return total / blocks[:, 1:].numel()


def bigram_nats_per_token(
    train: Int[Tensor, "n context"], held_out: Int[Tensor, "m context"], vocabulary: int
) -> float:
    """A bigram model with its counts smoothed towards the unigram's: p(b|a) = (c(ab) + 16 p(b)) / (c(a) + 16)."""
    pair = (train[:, :-1].long() * vocabulary + train[:, 1:]).flatten()
    joint = torch.bincount(pair, minlength=vocabulary**2).view(vocabulary, vocabulary).double()
    unigram = (joint.sum(0) + 1) / (joint.sum() + vocabulary)
    a, b = held_out[:, :-1].long().flatten(), held_out[:, 1:].long().flatten()
    return -((joint[a, b] + 16 * unigram[b]) / (joint.sum(1)[a] + 16)).log().mean().item()


@torch.no_grad()
def completions(
    model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, new_tokens: int = 96
) -> Iterator[tuple[str, str]]:
    """Prompt and continuation, three times, sampled at temperature 0.7 from seeds 0, 1, 2: the first ones, unedited."""
    prompts = (
        "import numpy as np\n\n\ndef softmax(x, axis=-1):\n    ",
        'class Stack:\n    """A last-in, first-out container.',
        "def read_lines(path):\n    with open(",
    )
    for seed, prompt in enumerate(prompts):
        torch.manual_seed(seed)
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]], device=model.device)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.7, top_k=0,
            max_new_tokens=new_tokens, pad_token_id=0,
        )  # fmt: skip
        yield prompt, tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def evaluate(folder: Path, train_blocks: Tensor) -> dict[str, Any]:
    """What the model card tells: bits per byte on all the held-out packages, beside a bigram's and `xz -9e`'s."""
    model, tokenizer = GPTNeoXForCausalLM.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    docs = text.installed_python("held_out")
    blocks = text.token_blocks(docs, tokenizer, model.config.max_position_embeddings)
    body = "".join(tokenizer.batch_decode(blocks[:, 1:], skip_special_tokens=True)).encode()
    bits = blocks[:, 1:].numel() / len(body) / math.log(2)  # nats per token to bits per byte
    nats = nats_per_token(model, blocks)
    return {
        "held_out_packages": list(text.HELD_OUT_PACKAGES),
        "held_out_fingerprint": text.fingerprint(docs),
        "held_out_bytes": len(body),
        "held_out_tokens": blocks[:, 1:].numel(),
        "nats_per_token": nats,
        "bits_per_byte": nats * bits,
        "bigram_bits_per_byte": bigram_nats_per_token(train_blocks, blocks, model.config.vocab_size) * bits,
        "xz_9e_bits_per_byte": 8 * len(lzma.compress(body, preset=9 | lzma.PRESET_EXTREME)) / len(body),
        "completions": [{"prompt": p, "continuation": c} for p, c in completions(model, tokenizer)],
    }


CARD = """---
library_name: transformers
language: code
tags: [gpt_neox, python]
---
# The embedded language model

A GPT-NeoX of Pythia-14M's shape with a vocabulary of its own, trained by this project on the Python sources of the
packages that its environment pins. It is here so that the book runs with no download. It is a small model of Python
code and of nothing else: its numbers are not Pythia's.

| what | value |
|---|---|
| shape | {layers} layers, d_model {d_model}, {heads} heads, context {context}, {parameters:,} parameters |
| vocabulary | {vocabulary} byte-level BPE tokens, {bytes_per_token:.2f} bytes a token on held-out text |
| trained on | {tokens:,} tokens ({epochs:.2f} passes over {train_packages} packages), seed {seed} |
| training took | {minutes:.0f} minutes on {device} |
| held out | {held_out_list}: {held_out_bytes:,} bytes, never trained on |
| **held-out loss** | **{bits_per_byte:.3f} bits per byte** ({nats_per_token:.3f} nats per token) |
| a smoothed bigram model, same tokens | {bigram_bits_per_byte:.3f} bits per byte |
| `xz -9e`, same bytes in one stream | {xz_9e_bits_per_byte:.3f} bits per byte |

`provenance.json` beside this page has the fingerprints of the text and the versions. `{command}`
trains this model again, in a folder of its own, and says how the two compare.

## Three completions, unedited

Sampled at temperature 0.7 with seeds 0, 1 and 2; what stands before `▶` is the prompt.

{shown}
"""


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    shown = "\n\n".join(f"```text\n{c['prompt']}▶{c['continuation']}\n```" for c in facts["completions"])
    values = {
        **facts,
        **facts["spec"],
        "minutes": facts["seconds"] / 60,
        "bytes_per_token": facts["held_out_bytes"] / facts["held_out_tokens"],
        "train_packages": len(facts["train_packages"]),
        "held_out_list": ", ".join(facts["held_out_packages"]),
        "shown": shown,
        "command": " ".join(["aligned pretrain", *(f"-p {name} {value}" for name, value in changed(facts["spec"]))]),
    }
    files.write_text(folder / "README.md", CARD.format(**values))


def changed(spec: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The numbers of a training that are not the embedded model's."""
    return [(name, spec[name]) for name, value in asdict(Pretraining()).items() if spec[name] != value]


def place(spec: Pretraining) -> Path:
    """The folder in the store for what this makes: each training has its own."""
    return files.store() / "pretrained" / "-".join(["embedded", *(f"{n}{v}" for n, v in changed(asdict(spec)))])


def compared(made: Path, given: Path) -> str:
    """In a line or two, how a model that `pretrain` has made compares with another, as the embedded one: its loss, and
    whether the weights are the same; if not, what differed in the making.

    Args:
        made, given: their folders.
    """
    new, old = (json.loads((folder / "provenance.json").read_text()) for folder in (made, given))
    loss = f"Held-out loss: {new['bits_per_byte']:.3f} bits per byte; of the one in use, {old['bits_per_byte']:.3f}"
    if new["held_out_fingerprint"] != old["held_out_fingerprint"]:
        loss += ", on other text (the packages that are held out have other versions here)"
    weights, others = (load_file(folder / "model.safetensors") for folder in (made, given))
    if weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights):
        return f"{loss}. The weights are the same."
    differ = [f"{name} {value}, not {old['spec'][name]}" for name, value in new["spec"].items()
              if value != old["spec"].get(name)]  # fmt: skip
    if new["train_fingerprint"] != old["train_fingerprint"]:
        differ.append("another text, of other versions of the packages")
    for name in ("device", "precision"):
        if name in old and new[name] != old[name]:
            differ.append(f"{name} {new[name]}, not {old[name]}")
    differ += [f"{name} {new['versions'][name]}, not {version}" for name, version in old["versions"].items()
               if new["versions"].get(name) != version]  # fmt: skip
    return f"{loss}. The weights differ: {'; '.join(differ) or 'by rounding, since all that decides them is the same'}."


def _check_same(place: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where a folder of work is another training's."""
    if differ := [name for name, value in now.items() if then.get(name) != value]:
        listed = ", ".join(f"{name} {then.get(name)}, not {now[name]}" for name in differ)
        raise ValueError(f"{place} belongs to another training: {listed}; give another --work folder")


def _made_here(folder: Path) -> bool:
    """Whether `pretrain` has made a folder of a model."""
    try:
        return {"spec", "train_fingerprint"} <= set(json.loads((folder / "provenance.json").read_text()))
    except (OSError, ValueError, TypeError):
        return False


def _check_places(out: Path, work: Path) -> None:
    """Raise an error where something else stands, or nothing can be written."""
    for folder, option, own in (
        (out, "--out", _made_here(out)), (work, "--work", (work / "training.json").exists()),
    ):  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = any(folder.iterdir())
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                error.errno, f"{folder} can't be written ({error.strerror}): give another {option}"
            ) from error
        if there and not own:
            raise ValueError(f"{folder} holds files that `aligned pretrain` did not make: give another {option} folder")


def pretrain(spec: Pretraining, out: Path, work: Path) -> None:
    """Train the embedded language model, from its text to its card. One that was stopped goes on where it was.

    Args:
        spec: all that decides it.
        out: the Hugging Face folder to write, whole, when all is done.
        work: where the tokenizer and the checkpoints stand; of one training alone.

    Raises:
        ValueError: a folder holds what `pretrain` did not make, or another training's work.
        OSError: a folder can't be written.
    """
    _check_places(out, work)
    print(f"to {out}, when all is done; until then in {work}", flush=True)
    docs = text.installed_python("train")
    now = {**asdict(spec), "text": text.fingerprint(docs)}
    if (work / "training.json").exists():
        _check_same(work, json.loads((work / "training.json").read_text()), now)
    files.write_json(work / "training.json", now)
    if (work / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(work)
    else:
        print(f"tokenizer: {spec.vocabulary} tokens from a quarter of {len(docs):,} files", flush=True)
        tokenizer = train_tokenizer((doc.text for doc in docs[::4]), spec.vocabulary)
        tokenizer.model_max_length = spec.context
        tokenizer.save_pretrained(work)
    blocks = text.token_blocks(docs, tokenizer, spec.context).to(torch.int32)
    print(f"text: {blocks.numel():,} tokens; training for {spec.steps:,} steps", flush=True)
    model = train(spec, blocks, work)

    model.set_attn_implementation("sdpa")
    made = work / "model"
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    seconds = files.load(work / "checkpoint.safetensors")[1]["seconds"]
    facts: dict[str, Any] = {
        "spec": asdict(spec) | {"tokens": spec.steps * spec.batch * spec.context},
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": spec.steps * spec.batch / len(blocks),
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores",
        "precision": precision(),
        "train_packages": list(text.TRAIN_PACKAGES),
        "train_fingerprint": text.fingerprint(docs),
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("torch", "transformers", "tokenizers")},
        },
    }
    facts |= evaluate(made, blocks)
    files.write_json(made / "provenance.json", facts)
    write_card(made, facts)
    for file in sorted(made.iterdir(), key=lambda file: file.name != "provenance.json"):  # first whose folder it is
        with files.in_one_move(out / file.name) as beside:
            shutil.copyfile(file, beside)
