"""Measures by name: what their answers hold, and that they are those of `aligned.evals`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import aligned
from aligned import evals
from aligned.evals.attributes import PAIRS
from aligned.evals.contexts import Page
from aligned.evals.sparse_probes import KS
from aligned.formats import load_saelens
from aligned.language.any_text import any_text
from aligned.language.held_out import held_out
from aligned.report import measures, results
from aligned.report.retrace import moments, retrace
from aligned.store import runs
from aligned.store.runs import Run
from tests.conftest import SMALL


def test_stability_is_given_by_raw_and_by_centred_cosines(place: Path) -> None:
    specs = [replace(SMALL, seed=seed, d_sae=512, sparsity=1) for seed in (0, 1)]
    row = aligned.records(specs, 4096, measure="stability").iloc[0]
    a, b = (aligned.run(spec).sae for spec in specs)
    x, _ = held_out(runs.language_model("embedded"), SMALL.layer, 4096, SMALL.context).kept
    alive_a, alive_b = ((sae.encode(x) > 0).any(0) for sae in (a, b))
    assert 0 < alive_a.sum() < 512
    for suffix, centre in (("", False), ("_centred", True)):
        for measure, value in evals.stability(a, b, centre=centre).items():
            assert row[f"{measure}_all{suffix}"] == value
        start = evals.stability(*(spec.start(a.d_in) for spec in specs), centre=centre)
        assert row[f"pw_mcc_start{suffix}"] == pytest.approx(start["pw_mcc"])
        for measure, value in evals.stability(a, b, (alive_a, alive_b), centre).items():
            assert row[f"{measure}_alive{suffix}"] == value


def test_probing_is_of_both_attributes_of_every_pair(place: Path) -> None:
    specs = [replace(SMALL, d_sae=128), replace(SMALL, d_sae=12)]
    table = aligned.records(specs, 160, measure="probing")
    row, few = (table.iloc[i] for i in range(2))
    classes = [attribute.name for pair in PAIRS for attribute in pair]
    assert row["attribute"] == [name for name in classes for _ in KS]
    assert list(dict.fromkeys(row["pair"])) == [f"{a.name} / {b.name}" for a, b in PAIRS]
    assert row["k"] == list(KS) * len(classes)
    assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
    assert np.mean(row["full"]) > 0.6
    assert set(few["k"]) == {1, 2, 5}  # 16 features are more than there are
    assert few["full"][::3] == row["full"][::4]


def test_labelled_measures_take_a_folder_of_any_language(place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("абвгдежзиклмнопрст"), rng.integers(1, 11))) for _ in range(200)]
    (folder := tmp_path / "texts").mkdir()
    for i in range(400):
        said = rng.choice(words, (20, 8), p=rng.dirichlet(np.full(200, 0.1)))
        (folder / f"{i}.txt").write_text("".join(f"{' '.join(line).capitalize()}. " for line in said))
    specs = [replace(SMALL, d_sae=128, text=str(folder), seed=seed) for seed in (0, 1)]
    shown = {
        name: aligned.records(specs, 32 if name in ("scr", "probing") else 4096, measure=name)
        for name in ("features", "browser", "scr", "probing", "contexts")
    }
    rows = {name: table.iloc[0] for name, table in shown.items()}
    assert rows["features"].f1_mean > rows["features"].f1_chance
    detected = {feature["page"]["concept"] for feature in rows["browser"].features}
    assert detected & set(any_text([]).names)
    assert len(set(rows["scr"]["pair"])) > 1
    assert np.isfinite(rows["scr"]["scr"]).all()
    assert set(rows["probing"]["attribute"]) == {name for pair in rows["scr"]["pair"] for name in pair.split(" / ")}
    assert all(0 <= accuracy <= 1 for accuracy in rows["probing"]["accuracy"])
    said = "with labels that any text has"
    assert {name for name, table in shown.items() if said in results.setting(table)} == set(shown) - {"contexts"}
    assert "32 windows of held-out text, with labels" in results.setting(shown["scr"])


def test_convergence_trains_each_sae_again_once_and_ends_where_stability_is_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = aligned.grid(replace(SMALL, tokens=64 * 512), seed=[0, 1, 2])
    made: list[int] = []
    monkeypatch.setattr(measures, "retrace", lambda run: made.append(run.spec.seed) or retrace(run))
    table = aligned.records(specs, 1, measure="convergence")
    assert sorted(made) == [0, 1, 2]
    stable = aligned.records(specs, 4096, measure="stability")
    assert list(zip(table.seed, table.other_seed)) == [(0, 1), (0, 2), (1, 2)]
    for row, end in zip(table.itertuples(), stable.itertuples()):
        assert row.moments == [0, 1, 2, 4, 8, 16, 32, 64]
        assert row.same == row.other_same == pytest.approx(1, abs=1e-6)
        for found, suffix in ((row.pw_mcc, ""), (row.pw_mcc_centred, "_centred")):
            assert found[0] == pytest.approx(getattr(end, f"pw_mcc_start{suffix}"), abs=1e-5)
            assert found[-1] == pytest.approx(getattr(end, f"pw_mcc_all{suffix}"), abs=1e-5)
        assert row.own_start[0] == pytest.approx(1, abs=1e-6)
        assert row.own_start[-1] < 0.999


def test_a_measure_that_was_changed_is_measured_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = aligned.records([aligned.run(SMALL)], 1024)
    raised = replace(measures.MEASURES["recovery"], version=2, of=lambda runs, _: ({"l0": -1.0} for _ in runs))
    monkeypatch.setitem(measures.MEASURES, "recovery", raised)
    assert before.l0[0] > 0
    assert aligned.records([aligned.run(SMALL)], 1024).l0[0] == -1
    of_both = [key for key in aligned.run(SMALL).metrics if key.startswith("recovery") and ", 1024 " in key]
    assert sorted("version 2" in key for key in of_both) == [False, True]


def test_what_is_trained_again_is_the_run(place: Path) -> None:
    run = aligned.run(replace(SMALL, center=True, outliers=1.1))
    decoders, same = retrace(run)
    assert same == pytest.approx(1, abs=1e-6)
    stored = torch.nn.functional.normalize(run.sae.W_dec)
    assert torch.allclose(torch.nn.functional.normalize(decoders[-1]), stored, atol=1e-6)
    assert moments(4882) == [0, 76, 153, 305, 610, 1220, 2441, 4882]
    assert moments(1) == [0, 1]


def test_another_end_is_an_error_on_the_same_machine_and_a_warning_on_another(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = aligned.run(SMALL), aligned.run(replace(SMALL, seed=1))
    monkeypatch.setattr(Run, "sae", property(lambda _: load_saelens(other.path)))
    with pytest.raises(RuntimeError, match=f"{run.spec.name}, trained again, is not the SAE in the store"):
        retrace(run)
    made = run.provenance
    monkeypatch.setattr(Run, "provenance", property(lambda _: {**made, "device": "another"}))
    with pytest.warns(UserWarning, match="is not the SAE in the store .*; other than then: device"):
        _, same = retrace(run)
    assert same < 0.9


def test_contexts_are_of_low_and_of_high_scores_and_small(place: Path) -> None:
    spec = replace(SMALL, constraint="none", d_sae=128, tokens=65_536)
    row = aligned.records([spec], 16_384, measure="contexts").iloc[0]
    pages = {kind: [Page.of_record(record) for record in row[kind]] for kind in ("lowest", "nearest_1")}
    sae = aligned.run(spec).sae
    read = held_out(runs.language_model("embedded"), spec.layer, 16_384, spec.context)
    with torch.no_grad():
        f, score = sae.encode(read.kept[0]), aligned.alignment_score(sae)
    active = (f > 0).float().mean(0) > 1e-4
    assert [p.score for p in pages["lowest"]] == pytest.approx(score[active].sort().values[:3].tolist())
    nearest = score[active][(score[active] - 1).abs().argsort()[:3]]
    assert [p.score for p in pages["nearest_1"]] == pytest.approx(nearest.tolist())
    for page in (*pages["lowest"], *pages["nearest_1"]):
        strongest = page.contexts[0]
        assert strongest.values[strongest.at] == pytest.approx(f[:, page.feature].max().item(), rel=5e-3)
        assert 1 <= len(page.contexts) <= 4
        assert "<pre" in page.html()
    assert len(json.dumps({kind: row[kind] for kind in pages})) < 10_000
