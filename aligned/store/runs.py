"""Runs: one spec, one folder. A run that is in the store is opened; one that is not is trained.

A finished run's folder `<store>/<readable name>-<hash of the spec>/` holds `spec.json`, `cfg.json` and
`sae_weights.safetensors` (SAELens's format, for raw activations), `log.csv`, `provenance.json` and `metrics.json`.
The folder is made elsewhere and moved into place when it is complete, so a folder that exists is complete. Its
checksums are in `provenance.json`. A folder that does not match them is set aside, never deleted, and the run is
trained again.

Any number of processes may share a store: a spec is trained under a lock. If the process that holds it dies, the
operating system releases the lock, and the next process goes on from the checkpoint.

    aligned runs list | show NAME... | verify [NAME]... | remove NAME...
"""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from jaxtyping import Int
from torch import Tensor

from aligned import files
from aligned.alignment import alignment_score
from aligned.files import store
from aligned.formats import load_saelens, save_saelens
from aligned.language import contents, text
from aligned.language.activations import Activations, Centred, Pool, Raw, Stream, asked_of, collect
from aligned.language.model import LanguageModel
from aligned.precision import precision
from aligned.provenance import provenance
from aligned.sae import SAE, check_memory
from aligned.spec import RunSpec
from aligned.training.loop import train

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of a run's folder; one of another format is left alone
WEIGHED = ("spec.json", "cfg.json", "sae_weights.safetensors", "log.csv")  # what checksums are kept of
FACTS = {  # what records and pages need of a run's provenance
    "checksums": dict, "model_fingerprint": str, "text_fingerprint": str, "seconds": float, "versions": dict,
    "device": str, "threads": int, "dirty": bool,
}  # fmt: skip


class Damaged(ValueError):
    """A run's folder that is not what was written; says what is wrong with it."""


@dataclass(frozen=True)
class Run:
    """A trained SAE in the store."""

    spec: RunSpec
    path: Path

    @property
    def sae(self) -> SAE:
        """For raw activations; the encoder is written out. Read anew each time: a sweep's SAEs may not all fit.

        Raises:
            Damaged: the folder is not what was written.
        """
        check(self.path)
        return load_saelens(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Every evaluation made so far, by what was evaluated. A file that can't be read is set aside."""
        try:
            return _metrics(self.path)
        except Damaged as error:
            aside = files.set_aside(self.path / "metrics.json", self.path)
            warnings.warn(f"{error}. It is set aside as {aside.name}; evaluations are made again", stacklevel=2)
            return {}

    @property
    def alignment(self) -> dict[str, float]:
        """Mean, least and greatest alignment score."""
        return self.evaluated("alignment", lambda: _scores(self.sae))

    @property
    def log(self) -> pd.DataFrame:
        """The training log, a row every fiftieth of the steps; its columns are `aligned.training.loop.COLUMNS`."""
        import pandas as pd

        return pd.read_csv(self.path / "log.csv")

    @property
    def provenance(self) -> dict[str, Any]:
        """What made this run: commit, versions, device, seconds, fingerprints, checksums."""
        return _json(self.path / "provenance.json")

    def evaluated(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The evaluation named `key`, from `metrics.json` if it was made before."""
        known = self.metrics
        return known[key] if key in known else self.keep(key, compute())

    def keep(self, key: str, found: dict[str, Any]) -> dict[str, Any]:
        """Write an evaluation to `metrics.json`, and return it. Where it can't be kept, a warning says so."""
        try:
            with _lock(self.path.name):  # another process may have added another one meanwhile
                files.write_json(self.path / "metrics.json", {**self.metrics, key: found})
        except OSError as error:
            warnings.warn(f"{key} of {self.path.name} is not kept: {error}", stacklevel=3)
        return found


def run(
    spec: RunSpec,
    progress: Callable[[int], object] | None = None,
    wait: bool = True,
    pool: Raw | None = None,
) -> Run:
    """The run of a spec: from the store, or trained now (and resumed, if it was interrupted).

    Args:
        spec: which.
        progress: called with the number of tokens after each step of training; a bar of its own by default.
        wait: for another process that is training it.
        pool: what to train on, where the caller has it; otherwise it is found or made, by the language model.

    Raises:
        ValueError: the pool is of another model, layer, text, context or number of tokens than the spec's; the run is
            there, and its text or model has changed since.
        filelock.Timeout: another process is training it, and `wait` is False. (With `wait` this one waits for it.)
        OSError: the store can't be written, or has no room; names the remedy.
    """
    if not isinstance(spec, RunSpec):
        raise TypeError(f"a run takes a RunSpec, and was given {spec!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is {progress!r}; it is a function of the number of tokens, or None")
    if pool is not None:
        _check_pool(spec, pool)
    if (found := finished(spec)) is not None:
        return found
    with _lock(spec.name).acquire(timeout=-1 if wait else 0):
        if (found := finished(spec, set_aside=True)) is not None:
            return found
        if pool is None:
            check_reads(spec.model, spec.layer, spec.text, spec.context)
        spare = check_room([spec], language_model(spec.model).d_in if pool is None else pool.d_in)
        return _train(spec, activations(*pool_of(spec), spare) if pool is None else pool, progress)


def _check_pool(spec: RunSpec, pool: Raw) -> None:
    """Raise an error for what is no pool, and a `ValueError` for a pool that is another spec's."""
    if not isinstance(pool, Pool | Stream):
        raise TypeError(f"pool is {pool!r}; it is what `aligned.language.activations.collect` returns")
    model, layer, source, tokens, context = pool_of(spec)
    asked = {"hook": f"blocks.{layer}.hook_resid_post", **asked_of(model, source, "train", tokens, context)}
    given = {**pool.facts, "hook": pool.hook}
    if differ := [name for name, value in asked.items() if given.get(name) != value]:
        listed = ", ".join(f"{name} {given.get(name)}, not {asked[name]}" for name in differ)
        raise ValueError(f"this pool is of {listed}: leave the pool out, and the spec's own is found or made")
    if pool.outliers not in (0, spec.outliers):
        raise ValueError(
            f"this pool leaves out norms of more than {pool.outliers:g} times the median, and the spec's outliers is "
            f"{spec.outliers:g}: give the whole pool"
        )


def takes(specs: Sequence[RunSpec], d_in: int, at_once: int = 1) -> int:
    """Bytes of disk space that runs need: the weights of each run and, for those that train at the same time, two
    checkpoints, each with the weights and Adam's two moments (the old checkpoint is kept until the new one is
    complete)."""
    weights = sorted((4 * (2 * d_in * spec.d_sae + spec.d_sae + d_in) for spec in specs), reverse=True)
    return sum(weights) + 6 * sum(weights[:at_once])


def check_room(specs: Sequence[RunSpec], d_in: int, at_once: int = 1) -> int:
    """Return the bytes of disk that these runs need. Raise an `OSError` that names the remedy if there is no room,
    and a `ValueError` for an SAE that the memory does not hold."""
    for spec in specs:
        check_memory(d_in, spec.d_sae)
    needed = takes(specs, d_in, at_once)
    kept = sum(f.stat().st_size for spec in specs for f in (store() / "training" / spec.name).glob("*.safetensors"))
    if (free := shutil.disk_usage(store()).free) + kept < needed:
        runs = f"{specs[0].name} needs" if len(specs) == 1 else f"{len(specs)} runs need"
        raise OSError(
            errno.ENOSPC,
            f"{runs} {needed / 1e6:,.0f} MB for weights and checkpoints, and {store()} has {free / 1e6:,.0f} MB "
            "free: make room, or name another place with ALIGNED_STORE",
        )
    return needed


def finished(spec: RunSpec, set_aside: bool = False) -> Run | None:
    """The run of a spec, if it is in the store and whole. A damaged one is moved out of the way if `set_aside`.

    Raises:
        ValueError: it is there, and the text or the model's folder has changed since; names what to do.
    """
    folder = _folder(spec)
    if not folder.exists():
        return None
    try:
        check(folder)
    except Damaged as error:
        if set_aside:
            aside = files.set_aside(folder, store() / "damaged")
            warnings.warn(f"{error}. It is set aside as {aside} and trained again", stacklevel=3)
        return None
    if changed := _changed(spec, folder):
        raise ValueError(
            f"{spec.name} was trained on what {changed} held then, and it has changed since: "
            f"`aligned runs remove {spec.name}`, and it is trained again; or give what is new another name"
        )
    return Run(spec, folder)


def _contents(spec: RunSpec) -> dict[str, str]:
    """Digests of the local model and text that a run is made from; empty strings for what is not local."""
    return {"model": contents.of_model(spec.model), "text": contents.of_text(spec.text)}


def _changed(spec: RunSpec, folder: Path) -> str:
    """Names the model or the text of a run if its content has changed since; an empty string if neither has. For runs
    made before contents were recorded, and for files that are gone, a change can't be known."""
    then, now = _json(folder / "provenance.json").get("contents"), _contents(spec)
    if not isinstance(then, dict):
        return ""
    changed = [name for name, digest in now.items() if digest and then.get(name, digest) != digest]
    return " and ".join(f"the {name} {getattr(spec, name)!r}" for name in changed)


def folders() -> list[Path]:
    """Of every run in the store, whole or not."""
    return sorted({file.parent for name in ("spec.json", "provenance.json") for file in store().glob(f"*/{name}")})


def spec_of(folder: Path) -> RunSpec:
    """What a folder's run was asked for.

    Raises:
        Damaged: its `spec.json` is missing, is no spec of this version, or is another run's.
    """
    found = _json(folder / "spec.json")
    try:
        spec = RunSpec(**found)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{folder / 'spec.json'} is no spec of this version ({error})") from error
    if folder.name.partition(".format")[0] != spec.name:
        raise Damaged(f"{folder / 'spec.json'} is that of {spec.name}")
    return spec


def check(folder: Path) -> None:
    """Compare a run's folder with its own checksums.

    Raises:
        Damaged: with what is missing, unreadable or different.
    """
    made = _json(folder / "provenance.json")
    if lacks := [name for name, kind in FACTS.items() if not isinstance(made.get(name), kind)]:
        raise Damaged(f"{folder / 'provenance.json'} holds no {', '.join(lacks)}")
    for name in WEIGHED:
        if not (folder / name).is_file():
            raise Damaged(f"{folder} holds no {name}")
        if made["checksums"].get(name) != files.sha256(folder / name):
            raise Damaged(f"{folder / name} is not what was written (its checksum differs)")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise Damaged(f"{path} holds no JSON object")
        return found
    except NotADirectoryError as error:
        raise Damaged(f"{path.parent} is no folder") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise Damaged(f"{path.parent} holds no file {path.name}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is not JSON ({error})") from error


def _metrics(folder: Path) -> dict[str, Any]:
    """The evaluations that are kept of a run.

    Raises:
        Damaged: they can't be read.
    """
    place = folder / "metrics.json"
    found = _json(place) if place.exists() else {}
    if bad := [key for key, value in found.items() if not isinstance(value, dict) or not value]:
        raise Damaged(f"{place} holds no evaluation under {', '.join(map(repr, bad))}")
    return found


def _folder(spec: RunSpec) -> Path:
    """Where a run of this code's format belongs. A folder of another format keeps its place."""
    folder = store() / spec.name
    try:
        other = _json(folder / "provenance.json").get("format", 0)
    except Damaged:
        return folder
    if other == FORMAT:
        return folder
    beside = folder.with_name(f"{folder.name}.format{FORMAT}")
    if not beside.exists():
        warnings.warn(f"{folder} is of format {other} and is left alone; this code's is {FORMAT}", stacklevel=4)
    return beside


def check_writable() -> None:
    """Raise an `OSError` that names the remedy, if the store can't be written."""
    try:
        (store() / "locks").mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=store() / "locks"):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"the store {store()} can't be written ({error.strerror}); name another place with ALIGNED_STORE",
        ) from error


def _lock(name: str) -> FileLock:
    """One process at a time. The system takes the lock from an owner that dies."""
    check_writable()
    return FileLock(store() / "locks" / f"{name}.lock")


def language_model(name: str) -> LanguageModel:
    """The model, loaded once while its files are what they were."""
    return _language_model(name, contents.of_model(name))


@lru_cache(maxsize=1)
def _language_model(name: str, _: str) -> LanguageModel:
    return LanguageModel(name)


def held_out_blocks(model: str, source: str, context: int, tokens: int) -> Int[Tensor, "n context"]:
    """The first blocks of the held-out text, enough for `tokens` tokens; read once while the files are what they
    were."""
    return _held_out_blocks(model, source, context, tokens, contents.of_model(model), contents.of_text(source))


@lru_cache(maxsize=1)
def _held_out_blocks(model: str, source: str, context: int, tokens: int, *_: str) -> Int[Tensor, "n context"]:
    docs = text.documents(source, "held_out")
    return text.token_blocks(docs, language_model(model).tokenizer, context, blocks=-(-tokens // context))


def check_reads(model: str, layer: int, source: str, context: int) -> None:
    """Raise now what would otherwise be raised after long work: a model, layer, context or text that will not do, or
    one with nothing held out, of which nothing could be measured."""
    language_model(model).hook(layer)
    language_model(model).check_context(context)
    held_out_blocks(model, source, context, context)


def activations(model: str, layer: int, source: str, tokens: int, context: int, spare: int = 0) -> Raw:
    """The pool, or stream, of `pool_of(spec)`; kept for the next run while the files are what they were.

    Args:
        spare: bytes of the disk that a new pool leaves.
    """
    asked = (str(store()), precision(), model, layer, source, tokens, context)
    key = (*asked, contents.of_model(model), contents.of_text(source))
    if key not in _kept:
        _kept.clear()
        _kept[key] = collect(language_model(model), layer, source, tokens, context, spare=spare)
    return _kept[key]


_kept: dict[tuple[str | int, ...], Raw] = {}


def pool_of(spec: RunSpec) -> tuple[str, int, str, int, int]:
    """What decides the activations that a run is trained on: `activations(*pool_of(spec))`."""
    return spec.model, spec.layer, spec.text, spec.distinct or spec.tokens, spec.context


def seen(spec: RunSpec, raw: Raw) -> Activations:
    """What an SAE sees in training, of `activations(*pool_of(spec))`: outliers left out, the mean taken off, if its
    spec says so."""
    raw = raw.without_outliers(spec.outliers) if spec.outliers else raw
    return Centred(raw) if spec.center else raw


def _train(spec: RunSpec, raw: Raw, progress: Callable[[int], object] | None) -> Run:
    pool = seen(spec, raw)
    work, folder = store() / "training" / spec.name, _folder(spec)
    if not _whole(work) or _changed(spec, work):
        work.mkdir(parents=True, exist_ok=True)
        sae, seconds = train(spec, pool, work, progress=progress)
        sae.model, sae.layer = spec.model, spec.layer
        metadata = {
            "hook_name": pool.hook,
            "context_size": spec.context,
            "prepend_bos": True,
            "dataset_path": spec.text,
        }
        save_saelens(sae.cpu().for_raw_activations(pool.scale, pool.mean if spec.center else 0.0), work, metadata)
        files.write_json(work / "spec.json", asdict(spec))
        made = {
            "format": FORMAT,
            **provenance(),
            "seconds": round(seconds, 1),
            "tokens_per_second": round(spec.steps * spec.batch / seconds),
            "model_fingerprint": pool.model_fingerprint,
            "text_fingerprint": pool.text_fingerprint,
            "activation_scale": pool.scale,
            "contents": _contents(spec),
            "checksums": {name: files.sha256(work / name) for name in WEIGHED},
        }
        files.write_text(work / "README.md", _card(spec, made))
        files.write_json(work / "provenance.json", made)  # the last, and with it the run is whole
    (work / "checkpoint.safetensors").unlink(missing_ok=True)
    work.rename(folder)
    return Run(spec, folder)


def _card(spec: RunSpec, made: dict[str, Any]) -> str:
    """What a person who meets the folder elsewhere, on the hub say, needs to know of it."""
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"""---
library_name: saelens
tags: [sparse-autoencoder, aligned-training]
---
# {spec.name}

A sparse autoencoder of the residual stream after layer {spec.layer} of `{spec.model}`,
trained on {spec.tokens:,} tokens of `{spec.text}`.
Its constraint is `{spec.constraint}` ("Aligned Training", arXiv 2605.18629);
with a hard one the inner product of every feature's encoder and decoder directions is 1.

It is a SAELens folder, for raw activations:

```python
from sae_lens import SAE

sae = SAE.load_from_disk("this folder")
```

Trained by `aligned` (commit {made["commit"] or "unknown"}) in {made["seconds"]:.0f} seconds on {made["device"]},
with {versions}; `provenance.json` has the rest.
The same again:

```python
import aligned

aligned.run(aligned.{spec!r})
```
"""


def _whole(folder: Path) -> bool:
    try:
        check(folder)
    except Damaged:
        return False
    return True


def _scores(sae: SAE) -> dict[str, float]:
    a = alignment_score(sae).double()
    return {"score_mean": a.mean().item(), "score_min": a.min().item(), "score_max": a.max().item()}


def known(folder: Path) -> str:
    """All that is known of a run, as indented JSON."""
    return json.dumps({file.stem: _json(file) for file in sorted(folder.glob("*.json"))}, indent=2)


def line(folder: Path) -> str:
    """A run's name, size, date and last metrics, in one line."""
    size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
    date = datetime.fromtimestamp(folder.stat().st_mtime)
    start = f"{folder.name:64s} {size:8.1f} MB  {date:%Y-%m-%d %H:%M}"
    try:
        spec = spec_of(folder)
        measured = [m for name, m in _metrics(folder).items() if name.startswith("recovery")]
        last = "".join(
            f"L0 {m['l0']:.1f}, CE recovered {m['ce_recovered']:.3f}, alive {m['alive']:.1%}" for m in measured[-1:]
        )
    except Damaged as error:
        return f"{start}  {error}"
    except (KeyError, TypeError, ValueError) as error:
        return f"{start}  {folder / 'metrics.json'} holds no evaluation of this version ({error!r})"
    return f"{start}  {spec.tokens:13,} tokens  {last}"
