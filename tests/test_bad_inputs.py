"""Bad inputs: each is refused before long work, by name. A row a case: what is done, the error, words of its message.

The cases are small; what needs a language model takes the embedded one or a folder of random weights.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import aligned
from aligned import evals, files, training
from aligned.alignment import alignment_score
from aligned.cli import main
from aligned.errors import NotFound
from aligned.evals import onset
from aligned.evals.attributes import pairs
from aligned.evals.codes import by_feature, codes
from aligned.evals.contexts import pages
from aligned.evals.cross_entropy import recoveries
from aligned.evals.intervals import interval, interval_of_pairs, interval_of_shares
from aligned.evals.matching import convergence, match, over_seeds
from aligned.evals.pushes import best_features, rises, steering, success_rate
from aligned.evals.scores import histogram
from aligned.evals.spurious import Texts, intervals_over_seeds, train_probes
from aligned.formats import load, save_saelens
from aligned.language import activations, text
from aligned.language.held_out import held_out
from aligned.language.model import EMBEDDED_FOLDER, LanguageModel
from aligned.language.text import token_blocks
from aligned.report import claims
from aligned.report.rules import Finding
from aligned.sae import SAE
from aligned.spec import RunSpec, grid
from aligned.store import runs
from tests import folders

D = 8
X = torch.randn(64, D, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([True, False])


def sae(value: float | None = None, name: str = "W_dec", width: int = D) -> SAE:
    """A small SAE; with a value in one of its parameters, where one is given."""
    made = SAE(width, 16, sparsity=2).requires_grad_(False)
    if value is not None:
        getattr(made, name)[0] = value
    return made


def texts(**other: Any) -> Texts:
    parts = {"x": torch.randn(2, 3, D), "keep": torch.ones(2, 3, dtype=torch.bool), "a": MASK, "b": MASK}
    return Texts(**(parts | other))


def page(features: Any = (0,), keep: Tensor | None = None, words: int = 4) -> object:
    tokens = torch.ones(1, 4, dtype=torch.long)
    kept = torch.ones(1, 4, dtype=torch.bool) if keep is None else keep
    return pages(sae(), features, tokens, torch.randn(1, 4, D), kept, ["x"] * words)


def concepts(of: Any = ..., names: Any = ("odd",), seed: int = 0) -> object:
    return evals.concepts(sae() if of is ... else of, X, (np.arange(64) % 2).astype(np.uint64), names, seed)


FOUR = Texts(X.view(4, 16, D), torch.ones(4, 16, dtype=torch.bool), torch.arange(4) > 1, torch.arange(4) % 2 > 0)
PROBES = train_probes(FOUR, FOUR)
NAN = float("nan")
Case = tuple[Callable[[], object], type[Exception], str]

MEASURES: dict[str, Case] = {
    "behaviour, NaN weights": (lambda: evals.behaviour(sae(NAN), X), ValueError, "W_dec.* not finite"),
    "behaviour, infinite bias": (
        lambda: evals.behaviour(sae(float("inf"), "b_enc"), X), ValueError, "b_enc .* not finite"
    ),
    "behaviour, constant x": (lambda: evals.behaviour(sae(), torch.ones(64, D)), ValueError, "error.* not finite"),
    "behaviour, huge x": (lambda: evals.behaviour(sae(), X * 1e20), ValueError, "not finite.*overflow"),
    "behaviour, NumPy x": (lambda: evals.behaviour(sae(), X.numpy()), TypeError, "torch tensor.*ndarray"),
    "concepts, NaN weights": (lambda: concepts(sae(NAN)), ValueError, "not finite"),
    "codes, NaN weights": (lambda: codes(sae(NAN), X), ValueError, "not finite"),
    "pages, feature 1.7": (lambda: page([1.7]), ValueError, r"no feature 1\.7; the SAE has 0 to 15"),
    "pages, feature -1": (lambda: page([-1]), ValueError, "no feature -1"),
    "pages, nothing kept": (lambda: page(keep=torch.zeros(1, 4, dtype=torch.bool)), ValueError, "at least one token"),
    "pages, keep of ints": (lambda: page(keep=torch.ones(1, 4, dtype=torch.long)), ValueError, "a mask, bool"),
    "pages, short vocabulary": (lambda: page(words=1), ValueError, "vocabulary has 1 tokens, and token 1"),
    "texts, nothing kept": (
        lambda: texts(keep=torch.tensor([[False] * 3, [True] * 3])), ValueError, "1 of 2 texts have no token"
    ),
    "texts, NaN": (lambda: texts(x=torch.full((2, 3, D), NAN)), ValueError, "not finite"),
    "texts, ints for a": (lambda: texts(a=torch.tensor([1, 0])), ValueError, r"a is torch\.int64"),
    "texts, ints for b": (lambda: texts(b=torch.tensor([1, 0])), ValueError, r"b is torch\.int64"),
    "texts, three in a": (lambda: texts(a=torch.ones(3, dtype=torch.bool)), ValueError, r"bool \(2,\), is needed"),
    "interval, NaN": (lambda: interval(np.array([1.0, np.nan])), ValueError, "1 of these 2 values are not finite"),
    "interval, infinity": (lambda: interval(np.array([1.0, np.inf])), ValueError, "not finite"),
    "behaviour, a dict": (lambda: evals.behaviour({}, X), TypeError, "an aligned.SAE is measured.*dict"),  # type: ignore[arg-type]
    "behaviour, float16": (lambda: evals.behaviour(sae().half(), X), ValueError, r"give sae\.float\(\)"),
    "behaviour, whole numbers": (lambda: evals.behaviour(sae(), X.long()), ValueError, "floating-point"),
    "codes, feature 99": (lambda: codes(sae(), X, torch.tensor([99])), ValueError, "no feature 99; the SAE has 0"),
    "codes, feature -1": (lambda: codes(sae(), X, torch.tensor([-1])), ValueError, "no feature -1"),
    "codes, a mask for features": (lambda: codes(sae(), X, MASK), ValueError, "no feature True, False"),
    "by_feature, nothing": (lambda: [*by_feature(sae(), X[:0])], ValueError, r"shape \(0, 8\)"),
    "concepts, seed -1": (lambda: concepts(seed=-1), ValueError, "seed is -1"),
    "concepts, one name": (lambda: concepts(names="odd"), TypeError, "names is 'odd'; give a list of names"),
    "concepts, no names": (lambda: concepts(names=None), TypeError, "names is None; give a list"),
    "pages, no activations": (
        lambda: pages(sae(), [0], MASK, None, None, ["x"]),  # type: ignore[arg-type]
        TypeError, "x is of type NoneType, keep is of type NoneType; a torch tensor",
    ),
    "modes of None": (lambda: evals.modes(None), TypeError, "scores are None; they are numbers"),  # type: ignore[arg-type]
    "probes of None": (lambda: train_probes(FOUR, None), TypeError, "Texts are needed, and not NoneType"),  # type: ignore[arg-type]
    "probing of None": (lambda: evals.probing(sae(), None, FOUR, [1]), TypeError, "Texts are needed"),  # type: ignore[arg-type]
    "shares over 1": (lambda: interval_of_shares(np.array([0.5, 2.0])), ValueError, "1 of these values are no shares"),
    "interval of one number": (lambda: interval(np.array(3.0)), ValueError, "one number a seed"),
    "concepts of None": (lambda: concepts(of=None), TypeError, "an aligned.SAE is measured"),
    "stability, NaN weights": (lambda: evals.stability(sae(NAN), sae()), ValueError, "W_dec.* not finite"),
    "stability, a row of 0": (lambda: evals.stability(sae(0.0), sae()), ValueError, "W_enc .* not finite"),
    "stability over one SAE": (lambda: over_seeds(sae()), TypeError, "needs a list of SAEs"),  # type: ignore[arg-type]
    "stability, other things": (lambda: over_seeds([sae(), "x"]), TypeError, "an aligned.SAE is measured.*str"),  # type: ignore[list-item]
    "match, NaN": (lambda: match(X * NAN, X), ValueError, "not finite, and have no cosine"),
    "match, two widths": (lambda: match(X, X[:, :3]), ValueError, r"of one width .* \(64, 8\) and \(64, 3\)"),
    "convergence of nothing": (lambda: convergence([], []), ValueError, "0 moments"),
    "modes, two dimensions": (lambda: evals.modes(X), ValueError, r"shape \(64, 8\); one a feature"),
    "modes, seed -1": (lambda: evals.modes(X[:, 0], seed=-1), ValueError, "seed is -1; .* to 4,294,967,295"),
    "histogram, NaN": (lambda: histogram(X[0] * NAN, 4, 0, 1), ValueError, "8 of the 8 scores are not finite"),
    "histogram, no bins": (lambda: histogram(X[0], 0, 0, 1), ValueError, "bins is 0"),
    "histogram, bounds": (lambda: histogram(X[0], 4, 1, 0), ValueError, "low is 1 and high 0; high is the greater"),
    "gamma, NaN": (lambda: onset.gamma(X * NAN), ValueError, "finite and not all 0"),
    "mean_share of 0": (lambda: onset.mean_share(X * 0), ValueError, "finite and not all 0"),
    "expected_dead, NaN": (lambda: onset.expected_dead(NAN, 16), ValueError, "gamma is nan"),
    "expected_dead, no token": (lambda: onset.expected_dead(1.0, 16, n=0), ValueError, "n is 0"),
    "pages, a string": (lambda: page(["a"]), ValueError, "no feature 'a'"),
    "pages, NaN": (lambda: page([NAN]), ValueError, "no feature nan"),
    "pages, a number": (lambda: page(3), TypeError, "features is 3; it is a list"),
    "texts, nothing": (lambda: texts(x=torch.zeros(0, 3, D)), ValueError, r"Tensor \(0, 3, 8\)"),
    "texts, NumPy": (lambda: texts(x=np.zeros((2, 3, D))), ValueError, "a torch tensor .* ndarray"),
    "probes, seed -1": (lambda: train_probes(FOUR, FOUR, seed=-1), ValueError, "seed is -1"),
    "probes, two widths": (
        lambda: train_probes(FOUR, texts(x=torch.zeros(2, 3, 9))), ValueError, "widths 8 and 9"
    ),
    "scr, ablated 2.5": (lambda: evals.scr(sae(), PROBES, FOUR, FOUR, [2.5]), ValueError, r"ablated has 2\.5"),  # type: ignore[list-item]
    "scr, ablated NaN": (lambda: evals.scr(sae(), PROBES, FOUR, FOUR, [NAN]), ValueError, "ablated has nan"),  # type: ignore[list-item]
    "scr, ablated nothing": (lambda: evals.scr(sae(), PROBES, FOUR, FOUR, []), ValueError, "ablated has nothing"),
    "scr, no probes": (lambda: evals.scr(sae(), None, FOUR, FOUR, [2]), TypeError, "`train_probes` makes them"),  # type: ignore[arg-type]
    "scr, NaN weights": (lambda: evals.scr(sae(NAN), PROBES, FOUR, FOUR, [2]), ValueError, "W_dec.* not finite"),
    "probing, k 1.5": (lambda: evals.probing(sae(), FOUR, FOUR, [1.5]), ValueError, r"ks has 1\.5"),  # type: ignore[list-item]
    "scr over no seeds": (lambda: intervals_over_seeds([]), ValueError, "there is no table"),
    "interval, level 2": (lambda: interval(np.array([1.0, 2.0]), 2.0), ValueError, "level is 2"),
    "interval of a table": (lambda: interval(np.ones((2, 2))), ValueError, r"one number a seed .* \(2, 2\)"),
    "interval, pairs of others": (
        lambda: interval_of_pairs(np.ones(2), np.array([[0, 1], [0, 2], [1, 2]])), ValueError, "each value has two"
    ),
    "rises, NaN": (lambda: rises(np.array([1.0, NAN])), ValueError, "all finite"),
    "best -1 features": (lambda: best_features(pd.DataFrame(), -1), ValueError, "m is -1"),
    "success_rate of NaN": (
        lambda: success_rate(pd.DataFrame({"success": [True, NAN]})), ValueError, "of 1 of 2 features it is not known"
    ),
    "success_rate of nothing": (lambda: success_rate([]), ValueError, "empty"),  # type: ignore[arg-type]
}  # fmt: skip


class Weights:
    """An SAE of another program: two tensors, or what is given for them."""

    def __init__(self, W_enc: Any, W_dec: Any) -> None:
        self.W_enc, self.W_dec = W_enc, W_dec


SQUARE = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))

SPECS: dict[str, Case] = {
    "spec, model of no letters": (lambda: RunSpec(model=" "), ValueError, "model is ' '; it is a name"),
    "spec, model with a NUL": (lambda: RunSpec(model="x\0y"), ValueError, "without control characters"),
    "spec, model with half a character": (lambda: RunSpec(model="\ud800"), ValueError, "model is"),
    "spec, model of 300 letters": (lambda: RunSpec(model="a" * 300), ValueError, "300 bytes; .* 150 between"),
    "spec, no text": (lambda: RunSpec(text=""), ValueError, "text is ''; it is a name"),
    "spec, seed 2^64": (lambda: RunSpec(seed=2**64), ValueError, r"from 0 to 2\^63 - 1"),
    "spec, seed of text": (lambda: RunSpec(seed="0"), TypeError, "seed is '0'; it is a whole number"),  # type: ignore[arg-type]
    "spec, seed of many numbers": (lambda: RunSpec(seed=torch.eye(9)), TypeError, "seed is tensor"),  # type: ignore[arg-type]
    "spec, d_sae 10^12": (lambda: RunSpec(d_sae=10**12), ValueError, "from 1 to 134,217,728"),
    "spec, batch 10^12": (lambda: RunSpec(batch=10**12, tokens=10**12), ValueError, "batch is"),
    "spec, tokens 10^400": (lambda: RunSpec(tokens=10**400), ValueError, r"tokens is 10+\.\.\.0+; it is"),
    "spec, sparsity 10^400": (lambda: RunSpec(sparsity=10**400), ValueError, "sparsity is 10+.*finite number"),
    "spec, soft 1e39": (lambda: RunSpec(soft=1e39), ValueError, r"from 0 to 1e\+09"),
    "spec, infinite option": (
        lambda: RunSpec(options={"bandwidth": np.inf}, activation="jumprelu", sparsity=1), ValueError, "bandwidth"  # type: ignore[arg-type]
    ),
    "spec, no penalty": (lambda: RunSpec(activation="relu"), ValueError, "give sparsity too, the coefficient"),
    "grid, one sparsity for k and penalty": (
        lambda: grid(RunSpec(), activation=["topk", "relu"]), ValueError, "`aligned.spec.kinds` makes a grid with"
    ),
    "spec, unknown field": (lambda: RunSpec(dsae=3), TypeError, r"no field dsae \(meant is perhaps d_sae\)"),  # type: ignore[call-arg]
    "grid of None": (lambda: grid(None, seed=[0]), TypeError, "of a RunSpec"),  # type: ignore[arg-type]
    "grid of the class": (lambda: grid(RunSpec, seed=[0]), TypeError, "of a RunSpec"),  # type: ignore[arg-type]
    "grid, a mapping": (lambda: grid(RunSpec(), seed={1: "a"}), TypeError, r"give a list of values, such as \[0\]"),
    "grid, bytes": (lambda: grid(RunSpec(), model=b"embedded"), TypeError, r"such as \['embedded'\]"),
    "grid, unknown field": (lambda: grid(RunSpec(), seeds=[0]), ValueError, r"meant is perhaps seed\)"),
    "grid without end": (lambda: grid(RunSpec(), seed=itertools.count()), ValueError, "more than 100,000 specs"),
}  # fmt: skip

SAES: dict[str, Case] = {
    "SAE, householder of one dimension": (
        lambda: SAE(1, 8, sparsity=1, constraint="householder"), ValueError, "d_in is 1; householder"
    ),
    "SAE, sparsity of text": (lambda: SAE(8, 16, sparsity="4"), TypeError, "sparsity is '4'; it is a number"),  # type: ignore[arg-type]
    "SAE, no sparsity": (lambda: SAE(8, 16, sparsity=None), TypeError, "sparsity is None"),  # type: ignore[arg-type]
    "SAE, d_in 8.0": (lambda: SAE(8.0, 16), TypeError, "d_in is 8.0; it is a whole number"),  # type: ignore[arg-type]
    "SAE, d_in True": (lambda: SAE(True, 16), TypeError, "d_in is True"),
    "SAE, seed 2^64": (lambda: SAE(8, 16, seed=2**64), ValueError, r"seed is .*2\^63 - 1"),
    "SAE beyond memory": (lambda: SAE(10**7, 10**7), ValueError, "800,000 GB, and this machine has"),
    "encode, width 9": (lambda: sae().encode(torch.zeros(4, 9)), ValueError, r"\(4, 9\); the SAE reads \[..., 8\]"),
    "encode, NumPy": (lambda: sae().encode(X.numpy()), TypeError, "torch tensor.*ndarray"),
    "decode, width 9": (lambda: sae().decode(torch.zeros(4, 9)), ValueError, r"codes .* reads \[\.\.\., 16\]"),
    "decode, NumPy": (lambda: sae().decode(np.zeros((4, 16))), TypeError, "codes are a torch tensor"),  # type: ignore[arg-type]
    "raw, scale 0": (lambda: sae().for_raw_activations(0), ValueError, r"scale is 0\.0; it is over 0"),
    "raw, scale -1": (lambda: sae().for_raw_activations(-1.0), ValueError, "it is over 0"),
    "raw, scale NaN": (lambda: sae().for_raw_activations(NAN), ValueError, "scale is nan"),
    "raw, NaN mean": (lambda: sae().for_raw_activations(1.0, X[0] * NAN), ValueError, "mean .* finite"),
    "raw, mean of 3": (lambda: sae().for_raw_activations(1.0, X[0, :3]), ValueError, r"one number or \[8\]"),
    "scores of None": (lambda: alignment_score(None), TypeError, "of type NoneType"),  # type: ignore[arg-type]
    "scores of a spec": (lambda: alignment_score(RunSpec()), TypeError, "a run's SAE is run.sae"),  # type: ignore[arg-type]
    "scores of NumPy": (lambda: alignment_score(Weights(X.T.numpy(), X.numpy())), TypeError, "torch tensors"),
    "scores, W_enc as W_dec": (lambda: alignment_score(Weights(X, X)), ValueError, r"\[d_in, d_sae\] and"),
    "scores, one decoder row": (lambda: alignment_score(Weights(X.T, X[:1])), ValueError, r"W_dec \(1, 8\)"),
    "scores, NaN": (lambda: alignment_score(Weights(X.T * NAN, X)), ValueError, "W_enc .* not finite"),
    "scores, square, W_enc as W_dec": (
        lambda: alignment_score(Weights(SQUARE, SQUARE)), ValueError, "decoder's layout.*transpose"
    ),
}  # fmt: skip

OnModel = tuple[Callable[[LanguageModel], object], type[Exception], str]


def prompts(*shape: int) -> Tensor:
    return torch.full(shape or (5, 4), 7)


def steer(m: LanguageModel, **given: Any) -> object:
    given = {"sae": sae(width=128), "features": [0], "concepts": ["comment"], "prompts": prompts(), "layer": 3} | given
    return steering(given.pop("sae"), m, **given)


def still() -> SAE:
    """An SAE whose first feature writes nothing."""
    made = SAE(128, 16, sparsity=2, constraint="none").requires_grad_(False)
    made.W_dec[0] = 0
    return made


ON_MODEL: dict[str, OnModel] = {
    "residual, 300 tokens": (lambda m: m.residual(prompts(1, 300), 0), ValueError, "at most 256 tokens"),
    "residual, id beyond": (lambda m: m.residual(prompts() + 9999, 0), ValueError, "has 0 to 4095"),
    "residual, negative id": (lambda m: m.residual(prompts() - 9, 0), ValueError, "run from -2 to -2"),
    "residual, floats": (lambda m: m.residual(prompts().float(), 0), ValueError, r"whole numbers.*float32"),
    "loss, 300 tokens": (lambda m: m.token_loss(prompts(1, 300)), ValueError, "at most 256 tokens"),
    "residual, layer of text": (
        lambda m: m.residual(prompts(), "3"), TypeError, "layer is '3'; it is a whole number"  # type: ignore[arg-type]
    ),
    "loss, one row": (lambda m: m.token_loss(prompts(4)), ValueError, r"\[n, context\]"),
    "recovery, NaN weights": (
        lambda m: evals.recovery(sae(NAN, width=128), m, prompts(), 3), ValueError, "not finite"
    ),
    "recovery, ids beyond": (
        lambda m: evals.recovery(sae(width=128), m, prompts() + 9999, 3), ValueError, "has 0 to 4095"
    ),
    "recovery, special alone": (
        lambda m: evals.recovery(sae(width=128), m, prompts() * 0, 3), ValueError, "more than special tokens"
    ),
    "recovery, batch -1": (
        lambda m: evals.recovery(sae(width=128), m, prompts(), 3, batch=-1), ValueError, "batch is -1"
    ),
    "recovery, no model": (
        lambda m: evals.recovery(sae(width=128), "embedded", prompts(), 3), TypeError, "a LanguageModel is needed"  # type: ignore[arg-type]
    ),
    "recovery, one SAE for a list": (
        lambda m: recoveries(sae(width=128), m, prompts(), 3), TypeError, "a list of SAEs is needed"  # type: ignore[arg-type]
    ),
    "recovery, float16": (lambda m: evals.recovery(sae(width=128).half(), m, prompts(), 3), ValueError, "float16"),
    "recovery, layer of text": (
        lambda m: evals.recovery(sae(width=128), m, prompts(), "3"), TypeError, "layer is '3'"  # type: ignore[arg-type]
    ),
    "recovery, NaN outliers": (
        lambda m: evals.recovery(sae(width=128), m, prompts(), 3, outliers=NAN), ValueError, "outliers is nan"
    ),
    "recovery, floats": (
        lambda m: evals.recovery(sae(width=128), m, prompts().float(), 3), ValueError, r"whole numbers.*float32"
    ),
    "pairs, no windows": (lambda m: next(pairs(m, 3, None)), TypeError, "`labelled_windows` makes them"),  # type: ignore[arg-type]
    "pairs, 4.5 windows": (lambda m: next(pairs(m, 3, None, train=4.5)), TypeError, r"train is 4\.5"),  # type: ignore[arg-type]
    "recovery, None": (lambda m: evals.recovery(sae(width=128), m, None, 3), TypeError, "tokens are a torch tensor"),  # type: ignore[arg-type]
    "held_out, 1.5 tokens": (lambda m: held_out(m, 3, 1.5), TypeError, r"tokens is 1\.5; it is a whole"),  # type: ignore[arg-type]
    "held_out, True": (lambda m: held_out(m, 3, True), TypeError, "tokens is True"),
    "held_out, layer of text": (lambda m: held_out(m, "3", 64), TypeError, "layer is '3'"),  # type: ignore[arg-type]
    "held_out, context 1": (lambda m: held_out(m, 3, 64, 1), ValueError, "context is 1; it is a whole number from 2"),
    "held_out, NaN outliers": (lambda m: held_out(m, 3, 64, outliers=NAN), ValueError, "outliers is nan"),
    "blocks 0": (lambda m: token_blocks([], m.tokenizer, 8, 0), ValueError, "blocks is 0; it is a whole number from 1"),
    "blocks -1": (lambda m: token_blocks([], m.tokenizer, 8, -1), ValueError, "blocks is -1"),
    "blocks 1.5": (lambda m: token_blocks([], m.tokenizer, 8, 1.5), TypeError, r"blocks is 1\.5"),  # type: ignore[arg-type]
    "blocks, context of text": (lambda m: token_blocks([], m.tokenizer, "8"), TypeError, "context is '8'"),  # type: ignore[arg-type]
    "steering, feature 0.5": (lambda m: steer(m, features=[0.5]), ValueError, r"no feature 0\.5"),
    "steering, strength nan": (lambda m: steer(m, strength=NAN), ValueError, "strength is nan"),
    "steering, strength 1e30": (lambda m: steer(m, strength=1e30), ValueError, "strength is 1e"),
    "steering, seed -1": (lambda m: steer(m, seed=-1), ValueError, "seed is -1"),
    "steering, seed 2^64": (lambda m: steer(m, seed=2**64), ValueError, "seed is 184"),
    "steering, BOS alone": (lambda m: steer(m, prompts=prompts() * 0), ValueError, "special tokens alone"),
    "steering, length 1.5": (lambda m: steer(m, length=1.5), TypeError, r"length is 1\.5"),
    "steering, floats": (lambda m: steer(m, prompts=prompts().float()), ValueError, r"whole numbers.*float32"),
    "steering, a mask for features": (lambda m: steer(m, features=[True]), ValueError, "no feature True"),
    "steering, lists for concepts": (lambda m: steer(m, concepts=[["comment"]]), ValueError, "cannot be counted"),
    "steering, a row of 0": (lambda m: steer(m, sae=still()), ValueError, "decoder row of feature 0 is 0"),
    "steering, NaN weights": (lambda m: steer(m, sae=sae(NAN, width=128)), ValueError, "not finite"),
}  # fmt: skip


def records(**columns: Any) -> pd.DataFrame:
    """Two arms, three seeds and three sparsities each; the first row with other values in some columns."""
    arms = [(arm, seed, k) for arm in ("none", "projected") for seed in range(3) for k in (8.0, 16.0, 32.0)]
    table = pd.DataFrame(arms, columns=["constraint", "seed", "sparsity"])
    table = table.assign(activation="topk", d_sae=64, init="unit", l0=table.sparsity + table.seed / 9, alive=0.5)
    table = table.assign(ce_recovered=0.8 + 0.1 * (table.constraint != "none") + table.seed / 1e4)
    for name, value in columns.items():
        table.loc[0, name] = value
    return table


@pytest.mark.parametrize("size", [True, 1.5, "64"])
def test_a_size_that_is_no_whole_number_is_refused_before_anything_is_trained(size: object) -> None:
    with pytest.raises(TypeError, match=r"eval_tokens is .*; it is a whole number from"):
        aligned.records([RunSpec(d_sae=8, sparsity=2)], size)


def test_an_sae_that_the_memory_does_not_hold_is_refused_before_its_pool_is_made() -> None:
    with pytest.raises(ValueError, match=r"d_sae is 134,217,728 and d_in 1,000: such an SAE takes"):
        runs.check_room([RunSpec(d_sae=2**27)], 1000)


# What a claim says of records that it can say nothing of.
CLAIMS: dict[str, tuple[Callable[[], Finding], str]] = {
    "an L0 of 0": (lambda: claims.recovers_more(records(l0=0.0)), "1 of 18 SAEs have an L0 of 0"),
    "a NaN L0": (lambda: claims.needs_no_tuning(records(l0=NAN)), "1 of 18 values of l0 are no finite numbers"),
    "a NaN metric": (lambda: claims.recovers_more_where_dense(records(ce_recovered=NAN)), "values of ce_recovered"),
    "an infinite metric": (lambda: claims.recovers_more(records(ce_recovered=np.inf)), "values of ce_recovered"),
    "NaN alive": (lambda: claims.leaves_few_dead(records(alive=NAN)), "values of alive are no finite numbers"),
    "one arm twice": (lambda: claims.recovers_more(records(), "none"), "two arms are compared"),
    "an arm that is not there": (lambda: claims.recovers_more(records(), "tied"), "there is no tied SAE"),
    "one sparsity twice": (
        lambda: claims.recovers_more(records().assign(l0=9.0)), "needs at least 2 sparsities"
    ),
    "one seed twice": (lambda: claims.recovers_more(records().assign(seed=0)), "at least 3 seeds .*there is 1"),
    "no rows": (lambda: claims.holds_everywhere(pd.DataFrame()), "no SAE of the kind that the rule asks about"),
    "a NaN cost": (
        lambda: claims.no_added_compute(
            pd.DataFrame([{"activation": "topk", "shape": "M", "cost": NAN, "low": 0.0, "high": 0.1, "pairs": 9}])
        ),
        "1 of 1 values of cost",
    ),
    "NaN features": (
        lambda: claims.correlates(
            pd.DataFrame(
                [
                    {"activation": "topk", "constraint": "none", "seed": 0, "score": [0.1, 0.9], "mcs": [NAN, 0.5],
                     "density": [0.1, 0.1]}
                ]
            ),
            "mcs",
            0.65,
        ),
        "of a feature is not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_gives_no_verdict_to(case: str) -> None:
    do, says = CLAIMS[case]
    found = do()
    assert found.verdict == "not testable here"
    assert re.search(says, found.reason)


TABLES: dict[str, Case] = {
    "claim, no table": (lambda: claims.recovers_more(None), TypeError, "table of `aligned.records`"),  # type: ignore[arg-type]
    "claim, another measure": (
        lambda: claims.recovers_more(records().drop(columns="ce_recovered")), TypeError, "has no ce_recovered"
    ),
    "at equal L0, one arm": (
        lambda: claims.at_equal_l0(records(), "alive", ("none", "none")), ValueError, "two arms are compared"
    ),
    "at equal L0, NaN": (
        lambda: claims.at_equal_l0(records(alive=NAN), "alive", ("none", "projected")), ValueError, "1 of 18 values"
    ),
    "with L0 of other SAEs": (
        lambda: claims.with_l0(records(), records()[1:]), ValueError, "the records lack 1 of 18 SAEs"
    ),
    "correlation of nothing": (lambda: claims.pearson([], [], []), ValueError, "no feature is alive"),
    "correlation, two lengths": (lambda: claims.pearson([1, 2], [1], [1, 1]), ValueError, "one value is needed"),
}  # fmt: skip
CALLS = SPECS | SAES | MEASURES | TABLES


@pytest.mark.parametrize("case", CALLS)
def test_calls(case: str) -> None:
    do, error, says = CALLS[case]
    with pytest.raises(error, match=says) as found:
        do()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"sparsity": np.int64(4)}, {"sparsity": 4}),
        ({"lr": np.float32(0.001)}, {"lr": 0.001}),
        ({"seed": torch.tensor(3), "d_sae": np.uint16(64)}, {"seed": 3, "d_sae": 64}),
        ({"center": np.True_}, {"center": True}),
        ({"activation": "relu", "sparsity": -0.0}, {"activation": "relu", "sparsity": 0.0}),
        (
            {"activation": "jumprelu", "sparsity": 1, "options": {"bandwidth": np.float32(0.2)}},
            {"activation": "jumprelu", "sparsity": 1, "options": {"bandwidth": 0.2}},
        ),
    ],
)
def test_equal_specs_are_one_run(given: dict[str, Any], same: dict[str, Any]) -> None:
    assert RunSpec(**given) == RunSpec(**same)
    assert RunSpec(**given).hash == RunSpec(**same).hash


def test_a_square_sae_is_read_as_it_is() -> None:
    made = SAE(16, 16, sparsity=2)
    assert torch.allclose(alignment_score(made), torch.ones(16), atol=1e-5)
    symmetric = SQUARE + SQUARE.T
    assert alignment_score(Weights(symmetric, symmetric)).shape == (16,)


@pytest.mark.parametrize("case", ON_MODEL)
def test_on_the_model(case: str, model: LanguageModel) -> None:
    do, error, says = ON_MODEL[case]
    with pytest.raises(error, match=says):
        do(model)


def configured(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


# What is done to a folder of a small GPT-NeoX, and what is then said of it.
FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tokenizer": (no_tokenizer, "holds no tokenizer"),
    "more layers than weights": (configured(num_hidden_layers=5), "lacks .* of the weights"),
    "weights of another shape": (configured(vocab_size=100), "other shapes"),
    "not causal": (configured(model_type="bert", architectures=["BertModel"]), "BertModel, which is no causal"),
    "another causal model's weights": (
        configured(model_type="gpt2", architectures=["GPT2LMHeadModel"]), "lacks .* of the weights"
    ),
    "code of its own": (
        configured(model_type="mine", auto_map={"AutoConfig": "probe.Config"}), "no model that transformers can read"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.make("gpt_neox", tmp_path_factory.mktemp("neox"))


@pytest.mark.parametrize("case", FOLDERS)
def test_nothing_is_made_up_for_a_model_folder(
    case: str, neox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to whether the folder's code may run
    damage, says = FOLDERS[case]
    folder = shutil.copytree(neox, tmp_path / "model")
    (folder / "probe.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    damage(folder)
    with pytest.raises(NotFound, match=says):
        LanguageModel(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["", " ", "x\0y", None, 3])
def test_a_name_that_is_none(name: Any) -> None:
    with pytest.raises(NotFound, match=r"model is .*; give 'embedded'"):
        LanguageModel(name)


def test_a_tokenizer_whose_special_tokens_have_no_row(neox: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(neox, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    tokenizer.add_special_tokens({"bos_token": "<mine>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="special token 4096, and the model embeds 0 to 4095"):
        LanguageModel(str(folder), device="cpu")


SaeFolder = Callable[[Path], Any]


def cfg(**changes: Any) -> SaeFolder:
    """Other values in `cfg.json`, and in its metadata where their names begin with `aligned_`."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text())
        for name, value in changes.items():
            (config["metadata"] if name.startswith("aligned_") else config)[name] = value
        (folder / "cfg.json").write_text(json.dumps(config))

    return change


def of_saelens(then: SaeFolder) -> SaeFolder:
    """The folder as SAELens writes one, without what is ours; then what is done to it."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text())
        config["metadata"] = {k: v for k, v in config["metadata"].items() if not k.startswith("aligned_")}
        (folder / "cfg.json").write_text(json.dumps(config))
        then(folder)

    return change


def weights(name: str, other: Callable[[Tensor], Tensor]) -> SaeFolder:
    def change(folder: Path) -> None:
        place = folder / "sae_weights.safetensors"
        found = load_file(place)
        save_file(found | {name: other(found[name]).contiguous()}, place)

    return change


def in_place_of(name: str, make: Callable[[Path], object]) -> SaeFolder:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def dictionary(trainer: Any, **other: Tensor) -> SaeFolder:
    """A folder of dictionary_learning in its place."""

    def change(folder: Path) -> None:
        (folder / "cfg.json").unlink()
        parts = {"encoder.weight": torch.zeros(16, 8), "encoder.bias": torch.zeros(16), "bias": torch.zeros(8)}
        torch.save(parts | {"decoder.weight": torch.zeros(8, 16)} | other, folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": trainer}))

    return change


# What is done to the folder of a small BatchTopK SAE with a threshold, and what is then said of it.
SAE_FOLDERS: dict[str, tuple[SaeFolder, str]] = {
    "a pipe for cfg.json": (in_place_of("cfg.json", os.mkfifo), r"cfg\.json is no file"),
    "a pipe for weights": (in_place_of("sae_weights.safetensors", os.mkfifo), r"sae_weights\.safetensors is no file"),
    "a list in cfg.json": (in_place_of("cfg.json", lambda place: place.write_text("[]")), r"an object .* is needed"),
    "brackets in cfg.json": (in_place_of("cfg.json", lambda place: place.write_text("[" * 99_999)), "is not JSON"),
    "metadata a list": (cfg(metadata=[]), r"cfg\.json is damaged: metadata is \[\]"),
    "sparsity of text": (cfg(aligned_sparsity="four"), "sparsity is 'four'; it is a number"),
    "layer of text": (cfg(aligned_layer="x"), "layer is 'x'; it is a whole number"),
    "layer -1": (cfg(aligned_layer=-1), "layer is -1"),
    "model 3": (cfg(aligned_model=3), "model is 3; it is a name"),
    "another d_sae": (cfg(d_sae=17), "cfg.json says d_sae 17, and the weights are of 16"),
    "NaN threshold": (weights("threshold", lambda t: t * NAN), "threshold of this SAE is not finite"),
    "threshold of 7": (weights("threshold", lambda t: t[:7]), r"threshold is \(7,\); it is one number"),
    "complex weights": (weights("W_dec", lambda w: w.to(torch.complex64)), "complex64; it is a tensor of numbers"),
    "float64 beyond float32": (weights("W_dec", lambda w: w.double() * 1e300), "W_dec of this SAE is not finite"),
    "SAELens, NaN threshold": (
        of_saelens(weights("threshold", lambda t: t * NAN)), "threshold of this SAE is not finite"
    ),
    "SAELens, d_sae of text": (of_saelens(cfg(d_sae="16")), "d_sae is '16'; it is a whole number"),
    "SAELens, other d_sae": (of_saelens(cfg(d_sae=17)), "no SAE of a kind that SAELens knows .*size mismatch"),
    "SAELens, a pipe for weights": (
        of_saelens(in_place_of("sae_weights.safetensors", os.mkfifo)), r"sae_weights\.safetensors is no file"
    ),
    "dictionary, trainer a list": (dictionary([]), r"config\.json is damaged: trainer is \[\]"),
    "dictionary, layer of text": (dictionary({"dict_class": "AutoEncoder", "layer": "three"}), "layer is 'three'"),
    "dictionary, model a list": (dictionary({"dict_class": "AutoEncoder", "lm_name": ["a"]}), r"model is \['a'\]"),
    "dictionary, NaN threshold": (
        dictionary({"dict_class": "BatchTopKSAE"}, k=torch.tensor(4), threshold=torch.tensor(NAN)),
        "threshold of this SAE is not finite",
    ),
    "dictionary, weights of one dimension": (
        dictionary({"dict_class": "AutoEncoder"}, **{"decoder.weight": torch.zeros(8)}), "is damaged"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAE_FOLDERS)
def test_a_damaged_sae_is_named(case: str, tmp_path: Path) -> None:
    damage, says = SAE_FOLDERS[case]
    made = SAE(8, 16, "batchtopk", 2)
    made.model, made.layer = "embedded", 3
    made.threshold.fill_(0.1)
    save_saelens(made, tmp_path / "sae", {})
    damage(tmp_path / "sae")
    with pytest.raises(ValueError, match=says) as error:
        load(tmp_path / "sae")
    assert str(tmp_path / "sae") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("theirs", [False, True])
def test_a_square_encoder_in_the_decoders_layout_is_refused(theirs: bool, tmp_path: Path) -> None:
    save_saelens(SAE(16, 16, sparsity=2), tmp_path, {})
    turn = weights("W_enc", lambda w: w.T)
    (of_saelens(turn) if theirs else turn)(tmp_path)
    with pytest.raises(ValueError, match="W_enc of this SAE is in the decoder's layout"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("source", "sae_id", "error", "says"),
    [
        (None, None, TypeError, "source is None; give a folder"),
        (3, None, TypeError, "source is 3"),
        ("", None, NotFound, "source is empty"),
        ("a-release", 3, TypeError, "sae_id is 3"),
        ("a-release", "", NotFound, "give the sae_id too"),
        (EMBEDDED_FOLDER, "an id", ValueError, "a folder, which holds one SAE: leave out the sae_id, 'an id'"),
    ],
)
def test_what_is_no_source_of_an_sae(source: Any, sae_id: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load(source, sae_id)


@pytest.mark.parametrize(
    ("what", "metadata", "error", "says"),
    [
        (sae(NAN), {}, ValueError, "W_dec.* not finite; it is not saved"),
        (sae(NAN, "b_dec"), {}, ValueError, "b_dec .* not finite"),
        (None, {}, TypeError, "an aligned.SAE and a mapping are saved, and not None"),
        (sae(), None, TypeError, "and not .*None"),
        (sae(), {"aligned_sparsity": 3}, ValueError, "aligned_sparsity, which the SAE itself says"),
        (sae(), {"of_mine": object()}, ValueError, "it holds what JSON does"),
        (sae(), {"of_mine": NAN}, ValueError, "it holds what JSON does"),
    ],
)
def test_nothing_is_saved_of_what_cannot_be_read_again(
    what: Any, metadata: Any, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        save_saelens(what, tmp_path / "sae", metadata)
    assert not (tmp_path / "sae").exists()
    (tmp_path / "afile").touch()
    with pytest.raises(NotADirectoryError, match="afile is a file; an SAE is saved to a folder"):
        save_saelens(sae(), tmp_path / "afile", {})


# A file's name, what is in it, and what is said of it.
TEXTS: dict[str, tuple[str, bytes, str]] = {
    "a number": ("a.jsonl", b'{"text": "x"}\n{"text": 3}', r"a\.jsonl, line 2: 'text' is 3; it is a string"),
    "no object": ("a.jsonl", b"[]", "line 1: expected a JSON object"),
    "half a character": ("a.jsonl", b'{"text": "\\ud800"}', "line 1: 'text' holds half a character"),
    "Latin 1, lines": ("a.jsonl", b'{"text": "\xe9"}', r"line 1 is not text in UTF-8"),
    "Latin 1": ("a.txt", b"caf\xe9", r"a\.txt is not text in UTF-8"),
    "UTF-16, lines": ("a.jsonl", '{"text": "x"}'.encode("utf-16"), r"a\.jsonl, line 1 is not text in UTF-8"),
    "UTF-16": ("a.txt", "x".encode("utf-16"), r"a\.txt is not text in UTF-8"),
    "no Parquet": ("a.parquet", b"PAR1 and no more", r"a\.parquet is damaged, or is no Parquet"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text(case: str, tmp_path: Path) -> None:
    name, content, says = TEXTS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        [*text.documents(str(tmp_path))]


def test_parquet_of_numbers_and_of_nulls(tmp_path: Path) -> None:
    pd.DataFrame({"text": [None, "x"]}).to_parquet(tmp_path / "a.parquet")
    assert [doc.text for side in ("train", "held_out") for doc in text._local(tmp_path)] == ["", "x"] * 2
    pd.DataFrame({"text": [1, 2]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, row 0: 'text' is 1; it is a string"):
        [*text.documents(str(tmp_path))]
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"b\.parquet is damaged, or is no Parquet"):
        [*text.documents(str(tmp_path))]


@pytest.mark.parametrize("make", [os.mkfifo, lambda place: place.symlink_to("gone")])
def test_a_text_that_is_no_file(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "a.txt")
    with pytest.raises(NotFound, match=r"a\.txt is no file that can be read \(a link to nothing, or a pipe\)"):
        [*text.documents(str(tmp_path))]


def test_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfx")
    assert [doc.text for doc in text._local(tmp_path)] == ["x", "x"]


@pytest.mark.parametrize("source", ["", " ", "x\0y", None])
def test_a_text_that_is_none(source: Any) -> None:
    with pytest.raises(NotFound, match=r"text is .*; give 'installed-python'"):
        text.documents(source)


def test_a_store_that_is_a_file_or_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "afile").touch()
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "afile"))
    with pytest.raises(NotADirectoryError, match="a file; it names a folder"):
        files.store()
    assert main(["runs", "list"]) == 1
    monkeypatch.setenv("ALIGNED_STORE", "")
    assert files.store() == files.home() / "runs"
    monkeypatch.setenv("ALIGNED_STORE", "~/x")
    assert files.store() == Path.home() / "x"


@pytest.mark.parametrize("threads", ["0", "-1", "x", "1.5"])
def test_a_number_of_threads_that_numba_does_not_take(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    with pytest.raises(ValueError, match=f"NUMBA_NUM_THREADS is '{threads}'; it is a whole number from 1, or not set"):
        runpy.run_path(training.__file__)


def test_a_pool_whose_bytes_changed_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "activations.bf16").write_bytes(bytes(64))
    known = dict.fromkeys(("scale", "mean", "hook", "model_fingerprint", "text_fingerprint"), 0)
    for crc32, whole in ((zlib.crc32(bytes(64)), True), (1, False)):
        (tmp_path / "pool.json").write_text(json.dumps(known | {"shape": [4, 8], "crc32": crc32}))
        assert activations._whole(tmp_path) == whole
