"""Specs and the store: one spec, one folder, trained once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import aligned
from aligned.cli import main
from aligned.language.activations import Pool
from aligned.spec import RunSpec, grid, kinds
from aligned.store import runs
from aligned.store.runs import Run
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def done() -> Run:
    return aligned.run(SMALL)


def test_a_finished_run_is_opened_and_not_trained_again(done: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_train", None)
    again = aligned.run(SMALL)
    assert again.path == done.path
    assert torch.equal(again.sae.W_enc, done.sae.W_enc)


def test_scores_are_one_after_saving_and_loading(done: Run) -> None:
    assert (aligned.alignment_score(done.sae) - 1).abs().max() < 1e-5


def test_the_folder_says_all_there_is_to_say(done: Run) -> None:
    assert {p.name for p in done.path.iterdir()} >= {
        "spec.json", "cfg.json", "sae_weights.safetensors", "log.csv", "provenance.json",
    }  # fmt: skip
    assert done.path.name == SMALL.name
    assert len({p.stat().st_mode for p in done.path.iterdir()}) == 1  # whoever may read one may read all
    assert {"commit", "dirty", "versions", "device", "threads", "seconds", "tokens_per_second", "model_fingerprint",
            "text_fingerprint"} <= set(done.provenance)  # fmt: skip
    assert not (runs.store() / "training" / SMALL.name).exists()


def test_evaluations_are_kept_with_the_run(done: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = aligned.records([done], 1024)
    monkeypatch.setattr("aligned.report.measures.recoveries", None)  # to measure again would be an error
    assert aligned.records([done], 1024).equals(first)
    assert first.tokens[0] == SMALL.tokens
    assert 900 < first.eval_tokens[0] < 1024


def test_a_sweep_gives_runs_in_the_order_asked(done: Run) -> None:
    specs = grid(SMALL, constraint=["none", "projected"], seed=[0, 1])
    assert [r.spec for r in aligned.sweep(specs)] == specs
    assert [r.spec for r in aligned.sweep(iter(specs))] == specs  # type: ignore[arg-type]


def test_the_language_model_runs_once_for_many_saes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    runs._kept.clear()
    model, seen = runs.language_model("embedded"), 0
    residual = type(model).residual

    def counted(self: object, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        nonlocal seen
        seen += tokens.numel()
        return residual(self, tokens, layer)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "residual", counted)
    aligned.sweep(grid(SMALL, constraint=["none", "projected"], seed=[0, 1, 2]))
    assert SMALL.tokens <= seen < 1.2 * SMALL.tokens + 8 * SMALL.context
    runs._kept.clear()


def test_grid_varies_the_last_name_fastest() -> None:
    assert [(s.sparsity, s.seed) for s in grid(SMALL, sparsity=[2, 4], seed=[0, 1])] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    with pytest.raises(ValueError, match="no field width in RunSpec"):
        grid(SMALL, width=[1])
    with pytest.raises(TypeError, match=r"constraint is 'none'; give a list of values, such as \['none'\]"):
        grid(SMALL, constraint="none")
    with pytest.raises(TypeError, match="seed is 3; give a list"):
        grid(SMALL, seed=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no value for seed"):
        grid(SMALL, seed=[])
    assert grid(SMALL, seed=np.arange(2)) == grid(SMALL, seed=[0, 1])


def test_a_field_that_came_later_changes_no_older_runs_name() -> None:
    assert RunSpec().hash == "110bf09d476c"
    assert dataclasses.replace(RunSpec(), outliers=0, distinct=0).hash == "110bf09d476c"
    others = {dataclasses.replace(RunSpec(), **change).hash for change in ({"outliers": 10}, {"distinct": 1000})}
    assert len({*others, RunSpec().hash}) == 3
    old = {k: v for k, v in dataclasses.asdict(RunSpec(seed=3)).items() if k not in ("outliers", "distinct")}
    assert RunSpec(**old) == RunSpec(seed=3)


def test_training_goes_over_distinct_tokens_again_and_leaves_outliers_out(place: Path) -> None:
    spec = dataclasses.replace(SMALL, distinct=1024, outliers=1.2)
    run = aligned.run(spec)
    raw = runs.activations(*runs.pool_of(spec))
    assert isinstance(raw, Pool)
    assert raw.rows.shape[0] == 1024
    assert raw.without_outliers(1.2).n < 1024
    assert run.provenance["activation_scale"] == raw.without_outliers(1.2).scale


@pytest.mark.parametrize(
    ("fields", "digits"),
    [
        ({}, "110bf09d476c"),
        ({"activation": "relu", "sparsity": 0.1, "constraint": "none", "init": "small", "seed": 1}, "54003c2a87ff"),
        ({"model": "gemma-3-270m", "layer": 9, "d_sae": 4096, "outliers": 10.0, "distinct": 1_000_000}, "cd0c4cc457af"),
        ({"activation": "batchtopk", "constraint": "soft", "soft": 2.0, "center": True}, "70c7e5e1a1be"),
    ],
)
def test_stored_runs_keep_their_names(fields: dict[str, object], digits: str) -> None:
    assert RunSpec(**fields).hash == digits  # type: ignore[arg-type]


def test_a_newer_versions_run_is_listed_and_left_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = aligned.run(SMALL).path
    spec = json.loads((folder / "spec.json").read_text()) | {"of_tomorrow": 1}
    (folder / "spec.json").write_text(json.dumps(spec))
    capsys.readouterr()
    assert main(["runs", "list"]) == 0
    said = capsys.readouterr().out
    assert SMALL.name in said
    assert "is no spec of this version" in said
    assert folder.exists()


def test_equal_specs_have_equal_names_and_others_do_not() -> None:
    assert RunSpec(sparsity=32).hash == RunSpec(sparsity=32.0).hash
    names = {s.name for s in grid(SMALL, seed=[0, 1], lr=[1e-3, 1e-4], constraint=["none", "tied"])}
    assert len(names) == 8


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("d_sae", 0, ValueError, "d_sae is 0"),
        ("sparsity", 3000, ValueError, "from 1 to d_sae"),
        ("sparsity", 0, ValueError, "from 1 to d_sae"),
        ("constraint", "alined", ValueError, "one of none, projected"),
        ("layer", -1, ValueError, "layer is -1"),
        ("tokens", 100, ValueError, "at least one batch"),
        ("tokens", 1e6, TypeError, "tokens is 1000000.0; it is a whole number"),
        ("seed", True, TypeError, "seed is True"),
        ("lr", 0.0, ValueError, "lr is 0.0"),
        ("soft", float("nan"), ValueError, "soft is nan; it is a finite number from 0"),
        ("auxk", 0.1, ValueError, "auxk is 0.1 with topk and projected"),
        ("outliers", 0.5, ValueError, "more than 1"),
        ("distinct", -1, ValueError, "distinct is -1"),
        ("center", 1, TypeError, "center is 1; it is of type bool"),
        ("model", 3, TypeError, "model is 3; it is a name"),
    ],
)
def test_a_spec_refuses_what_is_not_allowed(field: str, value: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        dataclasses.replace(RunSpec(), **{field: value})


def test_what_will_not_do_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    with pytest.raises(ValueError, match="has 6 layers, 0 to 5"):
        aligned.sweep(grid(SMALL, layer=[3, 6]))
    with pytest.raises(ValueError, match="at most 256 tokens"):
        aligned.sweep(grid(SMALL, context=[512]))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x = 1\n" * 20)
    with pytest.raises(ValueError, match=r"held_out part|shorter than one block"):
        aligned.sweep(grid(SMALL, text=[str(tmp_path / "text")]))
    assert {p.name for p in (tmp_path / "store").iterdir()} <= {"locks", "contents"}


def test_an_activation_without_sparsities_gives_no_spec() -> None:
    spec = RunSpec(init="small")
    found = kinds(spec, ["relu", "topk"], penalties=[], ks=[8, 16], seed=[0, 1])
    assert [(s.activation, s.sparsity, s.init, s.seed) for s in found] == [
        ("topk", 8, "unit", 0), ("topk", 16, "unit", 0), ("topk", 8, "unit", 1), ("topk", 16, "unit", 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        kinds(spec, ["gelu"], penalties=[0.1], ks=[8])  # type: ignore[list-item]
