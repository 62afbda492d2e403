"""The language model: loaded from anywhere by one path, its residual stream, its loss with a splice in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned.checks import whole
from aligned.errors import NoAccess, NotFound, Unreachable, one_line
from aligned.language import text, wheels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "data" / "embedded"
_ALLOWED = (
    f"give {', '.join(map(repr, [EMBEDDED, *wheels.MODELS]))}, a local Hugging Face folder, "
    "or a hub id with its owner, such as 'EleutherAI/pythia-160m' or 'openai-community/gpt2'"
)
_TOKENIZERS = ("tokenizer.*", "*.model", "vocab.*")
_LOGITS = 2**27  # floats, 0.5 GB, that the logits may take; the loss needs as much again
Splice = Callable[[Float[Tensor, "batch context d_in"]], Float[Tensor, "batch context d_in"]]


class LanguageModel:
    """A causal language model, through TransformerLens's bridge.

    Args:
        name: `embedded`, `gemma-3-270m` or `smollm2-135m` (`aligned.language.wheels`), a local Hugging Face folder, or
            a hub id such as `EleutherAI/pythia-160m`; a hub id may be followed by a branch, tag or commit, as in
            `EleutherAI/pythia-160m@step143000`. The weights are read in float32, or in bfloat16 if the name ends with
            `+bfloat16`. (This is part of the name because the name decides what a run is.)
        device: `cuda` where there is one, else `cpu`.

    Raises:
        NotFound: a folder that is not there, or lacks a causal model, some of its weights or its tokenizer: nothing is
            made up in their place, and no code of a folder is run; a model whose wheels are not installed.
        NoAccess: a gated model, and no login.
        Unreachable: a hub id that cannot be reached, or does not exist.
        ValueError: a tokenizer with neither a BOS nor an EOS token, or whose special tokens the model does not embed.
    """

    def __init__(self, name: str = EMBEDDED, device: str | None = None) -> None:
        of, revision, self.dtype = named(name)
        where = _locate(of)
        _check_reachable(of, where, revision)
        from transformer_lens.model_bridge import TransformerBridge  # 6 s to import
        from transformers import AutoTokenizer

        self.name = name
        # Not the bridge's, which adds special tokens that the model was not trained with where its own has none.
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, revision=revision or "main", trust_remote_code=False
        )
        highest = max(text.special_tokens(self.tokenizer))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.bridge = TransformerBridge.boot_transformers(
            where, device=self.device, dtype=self.dtype, revision=revision, model_class=_Whole
        )
        self.bridge.eval().requires_grad_(False)
        self._rows = self.bridge.original_model.get_input_embeddings().weight.shape[0]
        if highest >= self._rows:
            raise ValueError(
                f"the tokenizer of {name} has the special token {highest}, and the model embeds 0 to {self._rows - 1}: "
                "they do not belong together"
            )

    def __repr__(self) -> str:
        shape = f"{self.n_layers} layers of width {self.d_in}"
        return f"<language model {self.name}: {shape}, on {self.device}, {str(self.dtype).removeprefix('torch.')}>"

    @property
    def n_layers(self) -> int:
        return int(self.bridge.cfg.n_layers)

    @property
    def d_in(self) -> int:
        """Width of the residual stream (d_model)."""
        return int(self.bridge.cfg.d_model)

    @property
    def context(self) -> int:
        """The longest block of tokens that the model takes."""
        return int(self.bridge.cfg.n_ctx)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, 16 digits."""
        total = hashlib.sha256()
        for key, value in sorted(self.bridge.original_model.state_dict().items()):
            total.update(key.rsplit(".", 1)[-1].encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()[:16]

    @cached_property
    def _beside(self) -> tuple[None, ...] | None:
        """Placeholders for what a block returns in addition to the residual stream; in most model families it returns
        nothing else."""
        given: list[Any] = []
        handle = self.bridge.blocks[0].original_component.register_forward_hook(lambda *call: given.append(call[2]))
        self.bridge(torch.zeros(1, 2, dtype=torch.long, device=self.device), prepend_bos=False)
        handle.remove()
        return (None,) * (len(given[0]) - 1) if isinstance(given[0], tuple) else None

    def hook(self, layer: int) -> str:
        """Name of the residual stream after a layer.

        Raises:
            TypeError, ValueError: a layer that the model does not have.
        """
        if whole("layer", layer) >= self.n_layers:
            raise ValueError(f"layer is {layer}; {self.name} has {self.n_layers} layers, 0 to {self.n_layers - 1}")
        return f"blocks.{layer}.hook_resid_post"

    def check_context(self, context: int) -> None:
        """Raise a `ValueError` for blocks longer than the model takes."""
        if context > self.context:
            raise ValueError(f"context is {context}; {self.name} takes blocks of at most {self.context} tokens")

    def _check_tokens(self, tokens: Int[Tensor, "batch context"]) -> None:
        """Raise a `ValueError` unless these are blocks of whole numbers that the model embeds."""
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens are whole numbers, [n, context]; these are {tokens.dtype} {tuple(tokens.shape)}")
        self.check_context(tokens.shape[1])
        if tokens.numel() and not (tokens.min() >= 0 and tokens.max() < self._rows):
            raise ValueError(
                f"the tokens run from {int(tokens.min())} to {int(tokens.max())}; {self.name} has 0 to {self._rows - 1}"
            )

    def is_special(self, tokens: Int[Tensor, "batch context"]) -> Bool[Tensor, "batch context"]:
        """True at BOS, at the separators between documents, and at every other special token."""
        ids = {*self.tokenizer.all_special_ids, *text.special_tokens(self.tokenizer)}
        return torch.isin(tokens, torch.tensor(sorted(ids), device=tokens.device))

    @torch.no_grad()
    def residual(self, tokens: Int[Tensor, "batch context"], layer: int) -> Float[Tensor, "batch context d_in"]:
        """The residual stream after `layer` (`hook_resid_post`), in float32."""
        name = self.hook(layer)
        self._check_tokens(tokens)
        tokens = tokens.to(self.device)
        _, cache = self.bridge.run_with_cache(tokens, names_filter=[name], stop_at_layer=layer + 1, prepend_bos=False)
        return cache[name].float()

    @torch.no_grad()
    def token_loss(
        self,
        tokens: Int[Tensor, "batch context"],
        layer: int = 0,
        resid: Float[Tensor, "batch context d_in"] | None = None,
    ) -> Float[Tensor, "batch context-1"]:
        """Cross-entropy, in nats, of each next token; with `resid` in the place of the residual stream after `layer`
        where it is given. What comes before that layer is not computed then. Logits are made for a few rows at a time:
        with a vocabulary of 262,144 those of one block of 256 tokens take 268 MB."""
        self.hook(layer)
        self._check_tokens(tokens)
        rows = max(1, _LOGITS // (tokens.shape[1] * self.bridge.cfg.d_vocab))
        if len(tokens) > rows:
            resids = [None] * len(tokens) if resid is None else resid.split(rows)
            return torch.cat([self.token_loss(x, layer, r) for x, r in zip(tokens.split(rows), resids)])
        tokens = tokens.to(self.device)
        with ExitStack() as stack:
            if resid is not None:
                resid = resid.to(self.device, self.dtype)
                given = resid if self._beside is None else (resid, *self._beside)
                for block in self.bridge.blocks[: layer + 1]:
                    stack.enter_context(patch.object(block.original_component, "forward", lambda *_, **__: given))
            logits = self.bridge(tokens, return_type="logits", prepend_bos=False)
        # the last position has nothing to predict; a target that is ignored is cheaper than logits without it, a copy
        target = torch.cat([tokens[:, 1:], tokens.new_full((len(tokens), 1), -100)], dim=1)
        loss = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none", ignore_index=-100)
        return loss.view(tokens.shape)[:, :-1]

    @torch.no_grad()
    def raised(self, directions: Float[Tensor, "n d_in"], count: int) -> Int[Tensor, "n count"]:
        """The tokens whose logits a direction raises most, by the unembedding alone: as if it were added to the last
        residual stream, with the final norm left out."""
        unembedding = self.bridge.original_model.get_output_embeddings().weight
        logits = directions.to(unembedding) @ unembedding.T
        return logits.topk(count, dim=1).indices.cpu()

    @torch.no_grad()
    def write(
        self,
        tokens: Int[Tensor, "batch context"],
        length: int,
        seed: int = 0,
        layer: int = 0,
        splice: Splice | None = None,
    ) -> Int[Tensor, "batch length"]:
        """What the model writes after the tokens, drawn at temperature 1; with `splice(residual)` in the place of the
        residual stream after `layer` where a splice is given. The same seed draws the same random numbers."""
        hooks = [] if splice is None else [(self.hook(layer), lambda value, hook: splice(value).to(value.dtype))]
        with torch.random.fork_rng(), self.bridge.hooks(fwd_hooks=hooks):
            torch.manual_seed(seed)
            written = self.bridge.generate(
                tokens.to(self.device),
                length,
                stop_at_eos=False,
                prepend_bos=False,
                return_type="tokens",
                verbose=False,
            )
        return written[:, tokens.shape[1] :].cpu()


class _Whole:
    """Loads a causal model, and refuses one that transformers would fill up with random weights."""

    @staticmethod
    def from_pretrained(where: str, **given: Any) -> Any:
        from transformers import AutoModelForCausalLM

        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                where, trust_remote_code=False, output_loading_info=True, **given
            )
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise NotFound(f"the weights in {where} have other shapes than its config.json says") from error
        if missing := sorted(report["missing_keys"]):
            raise NotFound(
                f"{where} lacks {len(missing)} of the weights that its config.json asks for, {missing[0]} among them; "
                "they would be random. Give the whole model, or its own config.json"
            )
        return model


def named(name: str) -> tuple[str, str | None, torch.dtype]:
    """What a model's name says: the folder or hub id, the revision, and the weights' dtype."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise NotFound(f"model is {name!r}; {_ALLOWED}")
    of = name.removesuffix("+bfloat16")
    dtype = torch.float32 if of == name else torch.bfloat16
    if Path(of).expanduser().is_dir():
        return of, None, dtype
    of, _, revision = of.partition("@")
    return of, revision or None, dtype


def check_there(name: str) -> None:
    """Raise a `NotFound` for a model that is not on this machine and can't be on the hub. Nothing is loaded, and the
    hub is not asked."""
    of, *_ = named(name)
    if of in wheels.MODELS:
        wheels.check_there(of)
    else:
        _locate(of)


def _locate(name: str) -> str:
    """The folder or hub id that a model is loaded from."""
    if name == EMBEDDED:
        return str(EMBEDDED_FOLDER)
    if name in wheels.MODELS:
        return str(wheels.folder(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise NotFound(f"the folder {folder} holds no config.json; a Hugging Face model folder has one")
        if not any(file for pattern in _TOKENIZERS for file in folder.glob(pattern)):
            raise NotFound(
                f"the folder {folder} holds no tokenizer ({', '.join(_TOKENIZERS)}): "
                "`tokenizer.save_pretrained(folder)` writes it"
            )
        return str(folder)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise NotFound(f"no model at {name!r}: {_ALLOWED}")


def _check_reachable(name: str, where: str, revision: str | None) -> None:
    """Ask for the small config first, so that what is wrong is said in one line before gigabytes are asked for."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    try:
        # without a word on code, transformers asks at a terminal whether to run the folder's
        config = AutoConfig.from_pretrained(where, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        causes: list[Any] = [error]
        while causes[-1].__cause__ or causes[-1].__context__:
            causes.append(causes[-1].__cause__ or causes[-1].__context__)
        if any(isinstance(cause, GatedRepoError) for cause in causes):
            raise NoAccess(
                f"the model {name!r} needs a login: ask for access on its page, then run `hf auth login`"
            ) from error
        if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
            raise Unreachable(
                f"the model {where!r} has no revision {revision!r}; without '@{revision}' its main branch is taken"
            ) from error
        if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
            raise Unreachable(
                f"the hub has no model {name!r}, or it is private and needs a login (`hf auth login`)"
            ) from error
        if Path(where).is_dir() or isinstance(error, ValueError):  # it was there to be read
            raise NotFound(f"{where} holds no model that transformers can read: {error}") from error
        raise Unreachable(
            f"the model {f'{name}@{revision}' if revision else name!r} could not be fetched and is not in the local "
            f"cache ({one_line(error)}). Without a network give a local Hugging Face folder, or {EMBEDDED!r}"
        ) from error
    is_causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())
    is_causal = (is_causal,) if isinstance(is_causal, str) else is_causal
    has = config.architectures or is_causal
    if not set(has) & set(is_causal):
        raise NotFound(f"{where} holds {', '.join(has) or config.model_type}, which is no causal language model")
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise NotFound(
            f"{where} holds a {config.model_type} that is no decoder: it sees the tokens that follow, and is no causal "
            "language model"
        )
