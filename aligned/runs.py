"""Runs: one spec, one folder. A run that is in the store is opened; one that is not is trained.

A finished run's folder `<store>/<readable name>-<hash of the spec>/` holds `spec.json`, `cfg.json` and
`sae_weights.safetensors` (SAELens's format, for raw activations), `log.csv`, `provenance.json` and `metrics.json`.
It is made beside and moved into place, so that a folder that is there is whole.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from aligned import checkpoint, text
from aligned.activations import Activations, collect, store
from aligned.evals import recovery
from aligned.interop import load_saelens, save_saelens
from aligned.model import LanguageModel
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.train import train

if TYPE_CHECKING:
    import pandas as pd


RESULTS = Path(__file__).parents[1] / "results"  # the published records, in a checkout


@dataclass(frozen=True)
class Run:
    """A trained SAE in the store."""

    spec: RunSpec
    path: Path

    @cached_property
    def sae(self) -> SAE:
        """For raw activations; the encoder is written out."""
        return load_saelens(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Every evaluation made so far, by what was evaluated."""
        place = self.path / "metrics.json"
        return json.loads(place.read_text()) if place.exists() else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What made this run: commit, versions, device, seconds, fingerprints."""
        return json.loads((self.path / "provenance.json").read_text())

    def evaluated(self, key: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The evaluation named `key`, from `metrics.json` if it was made before."""
        if key not in self.metrics:
            checkpoint.write_json(self.path / "metrics.json", {**self.metrics, key: compute()})
        return self.metrics[key]


def run(spec: RunSpec, progress: Callable[[int], object] | None = None) -> Run:
    """The run of a spec: from the store, or trained now (and resumed, if it was interrupted)."""
    folder = store() / spec.name
    if not (folder / "spec.json").exists():
        _train(spec, folder, progress)
    return Run(spec, folder)


def sweep(specs: Sequence[RunSpec]) -> list[Run]:
    """The runs of many specs. Those with a model, layer and text in common share one pool of activations, so that the
    language model runs once. What is missing is checked and said before the first step."""
    missing = [spec for spec in specs if not (store() / spec.name / "spec.json").exists()]
    for at in sorted({(spec.model, spec.layer, spec.text, spec.context) for spec in missing}):
        _check(*at)
    print(f"{len(specs) - len(missing)} of {len(specs)} runs are in the store; {len(missing)} to train")
    with tqdm(total=sum(s.tokens for s in missing), unit="tok", unit_scale=True, disable=not missing) as bar:
        for number, spec in enumerate(missing, 1):
            bar.set_description(
                f"{number}/{len(missing)} {spec.activation} {spec.sparsity:g} {spec.constraint} s{spec.seed}"
            )
            run(spec, bar.update)
    return [run(spec) for spec in specs]


def _check(model: str, layer: int, source: str, context: int) -> None:
    """Raise now what would otherwise be raised after long work: a model, layer, context or text that will not do."""
    language_model(model).hook(layer)
    language_model(model).check_context(context)
    held_out_blocks(model, source, context, context)


def records(runs: Iterable[Run], eval_tokens: int) -> pd.DataFrame:
    """One row a run: its spec's fields and `recovery` on that many held-out tokens, cached in the run's folder.

    The tokens are the first of the held-out text; those that are special are read but not counted.
    """
    import pandas as pd

    runs = list(runs)
    key = f"recovery, {eval_tokens} tokens of held-out text"
    rows = []
    for r in tqdm(runs, desc="evaluating", disable=all(key in r.metrics for r in runs)):
        rows.append({**r.evaluated(key, lambda r=r: _recovery(r, eval_tokens)), **asdict(r.spec)})  # type: ignore[misc]
    return pd.DataFrame(rows)


def provenance(runs: Sequence[Run]) -> str:
    """What a page says under its figure, in Markdown: which model and text, how many tokens, made by what."""
    spec, made = runs[0].spec, [r.provenance for r in runs]
    weights = {m["model_fingerprint"] for m in made}
    return "\n".join(
        (
            f"- language model: `{spec.model}`, layer {spec.layer}, weights {', '.join(sorted(weights))}",
            f"- SAEs: {len(runs)}, width {spec.d_sae}, {spec.steps * spec.batch:,} tokens of `{spec.text}` each",
            f"- trained on: {_all(made, 'device')}, {_all(made, 'threads')} threads a run, "
            f"{sum(m['seconds'] for m in made) / 60:.0f} minutes in all",
            f"- commit: {_all(made, 'commit', 10)}",
            f"- versions: {', '.join(f'{k} {v}' for k, v in made[0]['versions'].items())}",
        )
    )


def _all(made: list[dict[str, Any]], field: str, digits: int | None = None) -> str:
    return ", ".join(sorted({str(m[field])[:digits] for m in made}))


def _recovery(run: Run, eval_tokens: int) -> dict[str, float]:
    spec = run.spec
    return recovery(
        run.sae, language_model(spec.model), held_out_blocks(spec.model, spec.text, spec.context, eval_tokens)
    )


@lru_cache(maxsize=1)
def language_model(name: str) -> LanguageModel:
    """The model, loaded once."""
    return LanguageModel(name)


@lru_cache(maxsize=1)
def held_out_blocks(model: str, source: str, context: int, tokens: int) -> Int[Tensor, "n context"]:
    """The first blocks of the held-out text, enough for `tokens` tokens."""
    docs = text.documents(source, "held_out")
    return text.token_blocks(docs, language_model(model).tokenizer, context, blocks=-(-tokens // context))


@lru_cache(maxsize=1)
def _activations(model: str, layer: int, source: str, tokens: int, context: int) -> Activations:
    return collect(language_model(model), layer, source, tokens, context)


def _train(spec: RunSpec, folder: Path, progress: Callable[[int], object] | None) -> None:
    model = language_model(spec.model)
    pool = _activations(spec.model, spec.layer, spec.text, spec.tokens, spec.context)
    work = store() / "training" / spec.name
    work.mkdir(parents=True, exist_ok=True)
    sae, seconds = train(spec, pool, work, progress=progress)
    sae.layer = spec.layer
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    metadata = {
        "model_name": spec.model,
        "hook_name": model.hook(spec.layer),
        "context_size": spec.context,
        "prepend_bos": True,
        "dataset_path": spec.text,
    }
    save_saelens(sae.cpu().for_raw_activations(pool.scale), beside, metadata)
    (work / "log.csv").rename(beside / "log.csv")
    checkpoint.write_json(beside / "provenance.json", _provenance(spec, model, pool, seconds))
    checkpoint.write_json(beside / "spec.json", asdict(spec))
    if folder.exists():
        shutil.rmtree(beside)
    else:
        beside.rename(folder)
    shutil.rmtree(work)


def _provenance(spec: RunSpec, model: LanguageModel, pool: Activations, seconds: float) -> dict[str, Any]:
    return {
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain")),
        "versions": {
            "python": platform.python_version(),
            **{p: _version(p) for p in ("torch", "transformers", "transformer-lens")},
        },
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(spec.steps * spec.batch / seconds),
        "model_fingerprint": model.fingerprint,
        "text_fingerprint": text.fingerprint(text.installed_python()) if spec.text == text.INSTALLED else None,
        "activation_scale": pool.scale,
    }


def commit() -> str | None:
    """Of the checkout that this code runs from, where it is one."""
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
