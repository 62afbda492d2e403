"""Activations to train on: a shuffled pool on disk that every SAE shares, or a stream where the pool would not fit.

Both answer `batch(seed, step, size)`, and the answer depends on those three alone: a run can be resumed at any step
with no random state to restore, and seeds differ in the order of the data as well as in their initialisation.
Activations are multiplied by one scalar so that E|x|^2 = 1; special tokens (BOS, separators) are left out. In large
models a few more tokens, attention sinks among them, have norms so great that they would decide the scalar:
`without_outliers` leaves those out too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aligned import files
from aligned.language import contents, text
from aligned.language.model import EMBEDDED_FOLDER, LanguageModel, named
from aligned.precision import autocast, precision
from aligned.progress import tqdm

FORMAT = 1  # of a pool's folder
_ROWS = 8192  # of a pool that are read at once
_BLOCKS = 8  # blocks that go through the language model at once
_DISK_SHARE = 0.8  # of the free disk that a pool may take
_WINDOW = 250_000  # tokens of a stream that are shuffled together
_KEEP_EVERY = 30.0  # seconds of work that a pool in the making may lose
OUTLIER = 10  # times the median norm: what a pool's facts count as an outlier


class Activations(Protocol):
    """Where training gets its batches."""

    d_in: int
    scale: float  # raw activations times this have E|x|^2 = 1
    mean: Float[Tensor, " d_in"]  # of raw activations
    hook: str
    model_fingerprint: str
    text_fingerprint: str

    def batch(self, seed: int, step: int, size: int) -> Float[Tensor, "size d_in"]:
        """The scaled float32 activations of a training step."""
        ...


class Pool:
    """Activations in random order in one bf16 file, mapped into memory. Made by `collect`.

    Args:
        folder: of the pool.
        outliers: rows whose norm exceeds this many times the median norm are left out of batches, scale and mean; 0
            keeps all.
    """

    def __init__(self, folder: Path, outliers: float = 0.0) -> None:
        self.folder, self.outliers = folder.resolve(), outliers
        self.facts = json.loads((folder / "pool.json").read_text())
        self.scale: float = self.facts["scale"]
        self.mean = torch.tensor(self.facts["mean"])
        self.hook: str = self.facts["hook"]
        self.model_fingerprint: str = self.facts["model_fingerprint"]
        self.text_fingerprint: str = self.facts["text_fingerprint"]
        self.n, self.d_in = self.facts["shape"]
        data = torch.from_file(  # not shared: the file is opened to read, and nothing can be written to it
            str(folder / "activations.bf16"), shared=False, size=self.n * self.d_in, dtype=torch.bfloat16
        )
        self.rows = data.view(self.n, self.d_in)
        self.kept: Int[Tensor, " n"] | None = None  # which rows; all by default
        if outliers:
            norms = self.norms()
            self.kept = (norms <= outliers * norms.median()).nonzero()[:, 0].int()
            self.n = len(self.kept)
            square, total = 0.0, torch.zeros(self.d_in, dtype=torch.float64)
            for some in self.kept.split(_ROWS):
                x = self.rows[some].double()
                square += x.square().sum().item()
                total += x.sum(0)
            self.scale, self.mean = (self.n / square) ** 0.5, (total / self.n).float()
        self._permutation = lru_cache(maxsize=4)(self._permute)  # a few, for where threads train side by side
        self.without_outliers = lru_cache(maxsize=2)(self._without_outliers)  # finding them reads all rows

    def __reduce__(self) -> tuple[type[Pool], tuple[Path, float]]:
        return Pool, (self.folder, self.outliers)  # another process maps the same file

    def norms(self) -> Float[Tensor, " rows"]:
        """Of all rows, outliers among them."""
        return torch.cat([x.float().norm(dim=1) for x in self.rows.split(_ROWS)])

    def _without_outliers(self, times: float) -> Pool:
        return Pool(self.folder, times)

    def batch(self, seed: int, step: int, size: int) -> Float[Tensor, "size d_in"]:
        at = torch.arange(step * size, (step + 1) * size)
        epochs = at // self.n
        where = torch.cat([self._permutation(seed, int(e))[at[epochs == e] % self.n] for e in epochs.unique()])
        where = where if self.kept is None else self.kept[where]
        return self.rows[where].float() * self.scale

    def _permute(self, seed: int, epoch: int) -> Int[Tensor, " n"]:
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(_mix(seed, epoch)), dtype=torch.int32)


class Stream:
    """The same without the disk: the language model runs as training goes on.

    The blocks, in an order of the seed's own, fill one window of activations after another; each is shuffled and cut
    into batches. A window is made again from its blocks when it is asked for, so any step can be asked for.
    """

    def __init__(
        self, model: LanguageModel, layer: int, blocks: Int[Tensor, "n context"], window: int = _WINDOW,
        outliers: float = 0.0, facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.model, self.layer, self.blocks, self.d_in = model, layer, blocks, model.d_in
        self.outliers, self.facts = outliers, facts
        self.hook, self.model_fingerprint = model.hook(layer), model.fingerprint
        self.text_fingerprint = _fingerprint(blocks)
        self.window = window
        self._per_window = max(1, window // (blocks.shape[1] - 1))  # blocks
        self._held: tuple[tuple[int, int, int], Tensor] | None = None
        first = blocks[: self._per_window]
        rows = torch.cat([x for _, x in _residuals(model, layer, first)])
        # the first window's median stands for all windows'
        self.limit = outliers * rows.norm(dim=1).median().item() if outliers else float("inf")
        rows = rows[rows.norm(dim=1) <= self.limit]
        self.without_outliers = lru_cache(maxsize=2)(self._without_outliers)
        self.scale, self.mean = scale_of(rows), rows.mean(0)

    def batch(self, seed: int, step: int, size: int) -> Float[Tensor, "size d_in"]:
        per_window = max(1, self.window // size)
        rows = self._window(seed, step // per_window)
        start = (step % per_window) * size
        return rows[torch.arange(start, start + size) % len(rows)].float() * self.scale

    def _window(self, seed: int, number: int) -> Float[Tensor, "window d_in"]:
        first = number * self._per_window
        epoch = first // len(self.blocks)
        key = (seed, number, epoch)
        if self._held is None or self._held[0] != key:
            order = torch.randperm(len(self.blocks), generator=torch.Generator().manual_seed(_mix(seed, epoch)))
            chosen = self.blocks[order[torch.arange(first, first + self._per_window) % len(self.blocks)]]
            rows = torch.cat(
                [x[x.norm(dim=1) <= self.limit].bfloat16() for _, x in _residuals(self.model, self.layer, chosen)]
            )
            shuffle = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_mix(seed, number) + 1))
            self._held = (key, rows[shuffle])
        return self._held[1]

    def _without_outliers(self, times: float) -> Stream:
        return Stream(self.model, self.layer, self.blocks, self.window, times, self.facts)


Raw: TypeAlias = Pool | Stream


class Centred:
    """Activations less their mean, scaled so that E|x|^2 = 1 again: (x - mean) scale."""

    def __init__(self, raw: Activations) -> None:
        self.raw, self.d_in, self.mean, self.hook = raw, raw.d_in, raw.mean, raw.hook
        self.model_fingerprint, self.text_fingerprint = raw.model_fingerprint, raw.text_fingerprint
        self.scale = raw.scale / (1 - (raw.scale * raw.mean).square().sum().item()) ** 0.5

    def batch(self, seed: int, step: int, size: int) -> Float[Tensor, "size d_in"]:
        x = self.raw.batch(seed, step, size)
        return (x - self.raw.scale * self.mean) * (self.scale / self.raw.scale)


def collect(
    model: LanguageModel,
    layer: int,
    source: str,
    tokens: int,
    context: int,
    split: text.Split = "train",
    place: Path | None = None,
    spare: int = 0,
) -> Pool | Stream:
    """The pool of this model, layer, text and precision: made now, or found where it was made before.

    Args:
        model: the language model.
        layer: whose residual stream (`hook_resid_post`) is collected.
        source: text, as `aligned.language.text.documents` takes it.
        tokens: activations to collect; where the text has fewer, all that it has (training then goes over it again).
        context: tokens in a block, BOS included; at most the model's own.
        split: `train` or `held_out`.
        place: the folder of pools; `pools/` in the store by default.
        spare: bytes of the disk that a new pool leaves to what is trained on it.

    Returns:
        A `Pool`, or a `Stream` where the pool would take more than 80 % of the free disk; a line says so.

    Raises:
        ValueError: a layer or context that the model does not have; text shorter than one block.
        FloatingPointError: an activation that is not finite.
    """
    model.check_context(context)
    place = files.store() / "pools" if place is None else place
    name = {
        "format": FORMAT,
        "model_fingerprint": model.fingerprint,
        "hook": model.hook(layer),
        **asked_of(model.name, source, split, tokens, context),
    }
    if source in (text.INSTALLED, text.ENGLISH):  # other packages, another pool
        name["documents"] = text.fingerprint(text.installed_python(split))

    def folder_of(facts: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return place / f"{Path(model.name).name}-layer{layer}-{digest}"

    without = folder_of(name)  # of bf16; older pools in float32 have such names too
    name["precision"] = precision(model.device)
    folder = without if name["precision"] == "bf16" else folder_of(name)
    for there in (folder, without):
        if _whole(there, name):
            return Pool(there)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"{place} can't be written ({error.strerror}); name another place with ALIGNED_STORE"
        ) from error
    with FileLock(place / f"{folder.name}.lock"):  # of many that need it one makes it
        if _whole(folder, name):
            return Pool(folder)
        if folder.exists():
            aside = files.set_aside(folder, place / "damaged")
            warnings.warn(
                f"{folder} is not as it was written in {name['precision']}. It is set aside as {aside} and made again",
                stacklevel=2,
            )
        return _collect(model, layer, source, tokens, context, split, folder, name, spare)


def asked_of(model: str, source: str, split: text.Split, tokens: int, context: int) -> dict[str, Any]:
    """The part of a pool's facts that says what was asked for, as far as it is known without the language model. Local
    files are identified by their path and their content; the embedded model, which comes with this code, by its
    name."""
    texts, folder = contents.local_text(source), contents.local_model(model)
    asked: dict[str, Any] = {
        "model": model, "text": source if texts is None else str(texts), "split": split, "tokens": tokens,
        "context": context,
    }  # fmt: skip
    if texts is not None:
        asked["documents"] = contents.of_text(source)
    if folder is not None and folder != EMBEDDED_FOLDER.resolve():
        asked |= {
            "model": f"{folder}{model.removeprefix(named(model)[0])}",
            "model_contents": contents.of_model(model),
        }
    return asked


def _whole(folder: Path, name: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether the pool of this name exists and is as it was written. To check this, its file is read once in each
    process; pools made before checksums were kept are checked by size alone."""
    try:
        facts, file = json.loads((folder / "pool.json").read_text()), folder / "activations.bf16"
        n, d_in = facts["shape"]
        there = file.stat()
        if not {"scale", "mean", "hook", "model_fingerprint", "text_fingerprint"} <= set(facts):
            return False
        said = {"precision": "bf16", **facts}  # the only one there was before pools said which
        if there.st_size != 2 * n * d_in or any(said.get(key) != value for key, value in name.items()):
            return False
        if facts.get("facts_crc32", _sum(facts)) != _sum(facts):
            return False
        return "crc32" not in facts or facts["crc32"] == _crc32(file, there.st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sum(facts: Mapping[str, Any]) -> int:
    """CRC-32 of a pool's facts, but for itself."""
    return zlib.crc32(json.dumps({k: v for k, v in facts.items() if k != "facts_crc32"}, sort_keys=True).encode())


@lru_cache(maxsize=64)
def _crc32(file: Path, changed: int) -> int:
    """Of a file as it was when it was `changed`."""
    total = 0
    with file.open("rb") as opened:
        while part := opened.read(2**24):
            total = zlib.crc32(part, total)
    return total


def _collect(
    model: LanguageModel, layer: int, source: str, tokens: int, context: int, split: text.Split, folder: Path,
    name: dict[str, Any], spare: int,
) -> Pool | Stream:  # fmt: skip
    # special tokens are dropped, so ask for a few more blocks than the tokens would fill
    blocks = text.token_blocks(
        text.documents(source, split), model.tokenizer, context, blocks=int(tokens / (context - 1) * 1.05) + 2
    )
    keep = ~model.is_special(blocks)
    n = min(tokens, int(keep.sum()))
    half = _half(folder) / "activations.bf16"
    free = shutil.disk_usage(folder.parent).free + (half.stat().st_size if half.exists() else 0)
    size = n * model.d_in * 2
    if size > _DISK_SHARE * free or size + spare > free:
        print(
            f"no pool: {size / 1e6:,.1f} MB of activations do not fit in {folder.parent} ({free / 1e6:,.1f} MB free), "
            f"so {model.name} reads the text anew for every SAE, which takes longer; ALIGNED_STORE names another place",
            flush=True,
        )
        return Stream(model, layer, blocks, min(n, _WINDOW), facts=name)
    return _write_pool(model, layer, blocks, n, folder, name)


def _half(folder: Path) -> Path:
    """The folder in which a pool is made. If a process is killed, the next one continues from what it left there."""
    return folder.with_name(f".{folder.name}.half")


def _write_pool(
    model: LanguageModel, layer: int, blocks: Int[Tensor, "m context"], n: int, folder: Path, name: dict[str, Any]
) -> Pool:
    beside = _half(folder)
    size = 2 * n * model.d_in
    facts = {**name, "text_fingerprint": _fingerprint(blocks), "shape": [n, model.d_in]}
    try:
        done = _made_so_far(beside, facts)
        with (beside / "activations.bf16").open("r+b") as file:
            _reserve(file.fileno(), size)  # no room is said now, and not by a crash in the middle
            data = torch.from_file(file.name, shared=True, size=n * model.d_in, dtype=torch.bfloat16).view(n, -1)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
            at, square, total = done["tokens"], done["square"], torch.tensor(done["total"], dtype=torch.float64)
            started = kept = time.monotonic()
            with tqdm(
                total=n, initial=at, unit="tok", unit_scale=True, desc=f"activations of {model.name}, layer {layer}"
            ) as bar:
                for block, x in _residuals(model, layer, blocks, done["blocks"]):
                    x = x[: n - at]
                    data[order[at : at + len(x)]] = x.bfloat16()
                    square += x.double().square().sum().item()
                    total += x.double().sum(0)
                    at += len(x)
                    bar.update(len(x))
                    if at == n:
                        break
                    if time.monotonic() - kept > _KEEP_EVERY:
                        os.fsync(file.fileno())  # first the activations, then the word that they are there
                        made = {"tokens": at, "blocks": block, "square": square, "total": total.tolist()}
                        files.write_json(beside / "half.json", {"of": facts, **made})
                        kept = time.monotonic()
        facts |= {
            "scale": (n / square) ** 0.5,
            "mean": (total / n).tolist(),
            "crc32": _crc32.__wrapped__(beside / "activations.bf16", 0),
            "tokens_per_second": round((n - done["tokens"]) / (time.monotonic() - started)),
            **_counts(model, blocks, data, order),
        }
        files.write_json(beside / "pool.json", facts | {"facts_crc32": _sum(facts)})
        (beside / "half.json").unlink(missing_ok=True)
        if not folder.exists():
            beside.rename(folder)
    except FloatingPointError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(
            error.errno,
            f"no room for {size / 1e9:.2f} GB of activations in {folder.parent} ({error.strerror}); make room, choose "
            "another place with ALIGNED_STORE, or train on fewer tokens",
        ) from error
    return Pool(folder)


def _made_so_far(beside: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The progress of a half-made pool with these facts: tokens, blocks read, and the running sums. If there is none,
    or it has other facts, a new one is begun, and all of these are 0."""
    try:
        done = json.loads((beside / "half.json").read_text())
        n, d_in = facts["shape"]
        if done["of"] == facts and (beside / "activations.bf16").stat().st_size == 2 * n * d_in:
            return done
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    (beside / "activations.bf16").touch()
    return {"tokens": 0, "blocks": 0, "square": 0.0, "total": [0.0] * facts["shape"][1]}


def _reserve(file: int, size: int) -> None:
    """Room on the disk; where the system can't promise it (macOS), only the file's length."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def _counts(
    model: LanguageModel,
    blocks: Int[Tensor, "m context"],
    rows: Float[Tensor, "n d_in"],
    order: Int[Tensor, " n"],
) -> dict[str, Any]:
    """What a pool's text holds besides ordinary tokens: the special ones, which are left out of it, and the outliers,
    which are in it: how many, at which place after BOS (attention sinks stand at the first), and which tokens."""
    norms = torch.cat([x.float().norm(dim=1) for x in rows.split(_ROWS)])[order]  # as in the text
    keep = ~model.is_special(blocks)
    places = keep.nonzero()[: len(norms)]
    last = int(places[-1, 0])
    read = blocks[: last + 1]
    median = norms.median()
    found = places[norms > OUTLIER * median]
    tokens = Counter(model.tokenizer.decode([t]) for t in blocks[found[:, 0], found[:, 1]].tolist())
    return {
        "left_out": {"bos": len(read), "separators": int((~keep[: last + 1, 1:]).sum())},
        "outliers": {
            "times_median": OUTLIER,
            "tokens": len(found),
            "first_in_block": int((found[:, 1] == 1).sum()),
            "median_norm": median.item(),
            "greatest_norm": norms.max().item(),
            "share_of_square": (
                norms[norms > OUTLIER * median].double().square().sum() / norms.double().square().sum()
            ).item(),
            "commonest": dict(tokens.most_common(10)),
        },
    }


def _residuals(
    model: LanguageModel, layer: int, blocks: Int[Tensor, "m context"], start: int = 0
) -> Iterator[tuple[int, Float[Tensor, "tokens d_in"]]]:
    """Residuals of the tokens that are not special, on the CPU, a few blocks at a time from block `start` on; with
    each, the number of the block that comes next."""
    for first in range(start, len(blocks), _BLOCKS):
        tokens = blocks[first : first + _BLOCKS]
        keep: Bool[Tensor, "b context"] = ~model.is_special(tokens)
        with autocast(model.device):
            x = model.residual(tokens, layer).cpu()[keep]
        if not x.isfinite().all():
            raise FloatingPointError(
                f"{model.name} gives activations that are not finite at layer {layer}, "
                f"in blocks {first} to {first + len(tokens) - 1}"
            )
        yield first + len(tokens), x


def _fingerprint(blocks: Int[Tensor, "m context"]) -> str:
    """SHA-256 of the tokens, 16 digits."""
    return hashlib.sha256(blocks.numpy().tobytes()).hexdigest()[:16]


def scale_of(x: Float[Tensor, "n d_in"]) -> float:
    """The scalar that makes the mean of |x|^2 equal 1."""
    return float(x.float().square().sum(1).mean() ** -0.5)


def _mix(seed: int, number: int) -> int:
    """One seed of two numbers, so that neighbouring seeds share no order."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big")
