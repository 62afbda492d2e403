"""Published records: drawn from without training, and nothing but what committed code has made."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

import aligned
from aligned.cli import main
from aligned.report import results
from aligned.report.parameters import NOTEBOOKS, parameters
from aligned.report.published import PLANS
from aligned.report.rerun import rerun
from aligned.spec import RunSpec
from aligned.store import runs
from aligned.store.runs import Run
from benchmarks.held_out import chosen
from tests.conftest import SMALL

EVAL = 1024


@pytest.fixture
def published(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Two specs whose records are published, and whose runs are gone."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run)))
    specs = aligned.grid(SMALL, constraint=["none", "projected"])
    aligned.records(specs, EVAL)
    assert results.publish() == 2
    assert main(["runs", "remove", "--yes", *(spec.name for spec in specs)]) == 0
    return specs


def committed(run: Run) -> dict[str, object]:
    return json.loads((run.path / "provenance.json").read_text()) | {"dirty": False, "commit": "abc"}


def test_what_is_published_is_not_trained_and_the_page_says_so(
    published: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_train", None)
    table = aligned.records(published, EVAL)
    assert list(table.constraint) == ["none", "projected"]
    assert table.score_min[1] == pytest.approx(1, abs=1e-5)
    said = results.provenance(table)
    assert "drawn from the published records of 2 SAEs; nothing was trained for this page" in said


def test_only_what_is_missing_is_trained(published: list[RunSpec], place: Path) -> None:
    more = aligned.grid(SMALL, constraint=["none", "projected"], seed=[0, 1])
    table = aligned.records(more, EVAL)
    assert sorted(p.parent.name for p in place.glob("*/spec.json")) == sorted(s.name for s in more if s.seed == 1)
    assert "the published records of 2 SAEs, and 2 runs in the store" in results.provenance(table)
    again = aligned.records(more, EVAL, use_published=False)
    assert len(list(place.glob("*/spec.json"))) == 4
    assert again.equals(table)  # the same numbers, trained again
    assert "published" not in results.provenance(again)


def test_what_was_measured_of_an_earlier_training_stays_and_says_so(
    published: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run) | {"commit": "def"}))
    aligned.records(published, 2 * EVAL, use_published=False)
    assert results.publish() == 2
    for tokens, commit in ((EVAL, "abc"), (2 * EVAL, "def")):
        table = results.drawn(published, tokens, "recovery")
        assert {made["commit"] for made in table.attrs["made"]} == {commit}


def test_what_is_planned_is_not_trained_by_surprise(
    published: list[RunSpec], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = aligned.grid(SMALL, constraint=["none", "projected"], seed=[0, 1])
    later = [spec for spec in both if spec not in published]
    monkeypatch.setattr(results, "planned", lambda measure, size: frozenset(both))
    monkeypatch.setattr(runs, "_train", None)
    table = aligned.records(both, EVAL)
    assert list(zip(table.constraint, table.seed)) == [("none", 0), ("projected", 0)]
    assert "2 of 4 SAEs are published so far" in results.setting(table)
    with pytest.raises(ValueError, match=r"none of the 2 records \(recovery\) is published yet; `use_pub"):
        aligned.records(later, EVAL)
    assert list(results.drawn_of({"there": both, "later": later}, EVAL)) == ["there"]
    assert not list(place.glob("*/spec.json"))


def test_another_evaluation_is_not_what_is_published(published: list[RunSpec], place: Path) -> None:
    assert aligned.records(published, 2 * EVAL).eval_tokens[0] > EVAL
    assert len(list(place.glob("*/spec.json"))) == 2


def test_records_of_before_a_field_was_added_are_found(published: list[RunSpec]) -> None:
    place = next(results.RESULTS.glob("*.jsonl"))
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    for record in lines:
        del record["spec"]["center"]
    place.write_text("".join(json.dumps(record) + "\n" for record in lines))
    assert set(results.published()) == set(published)


def test_records_are_read_again_only_when_they_changed(
    published: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(results.published()) == set(published)
    with monkeypatch.context() as patched:
        patched.setattr(json, "loads", None)  # so that nothing can be read
        assert set(results.published()) == set(published)
    place = next(results.RESULTS.glob("*.jsonl"))
    place.write_text(place.read_text().splitlines()[0])
    assert len(results.published()) == 1


def test_what_was_trained_by_changed_code_is_not_published(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run) | {"dirty": True}))
    aligned.records([SMALL], EVAL)
    assert results.publish() == 0
    assert f"left out, since its code was not committed: {SMALL.name}" in capsys.readouterr().out


def test_a_run_of_other_weights_is_not_measured_with_these(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run) | {"model_fingerprint": "other"}))
    with pytest.raises(ValueError, match=f"trained on other weights than embedded has now.*remove {SMALL.name}"):
        aligned.records([SMALL], EVAL)


def test_the_published_records_are_of_this_model_and_of_committed_code() -> None:
    made = [record["provenance"] for spec, record in results.published().items() if spec.model == "embedded"]
    assert made
    assert {m["model_fingerprint"] for m in made} == {runs.language_model("embedded").fingerprint}
    assert not any(m["dirty"] for m in made)
    assert all(re.fullmatch("[0-9a-f]{40}", m["commit"]) for m in made)


@pytest.mark.parametrize("name", [p.stem for p in NOTEBOOKS.glob("*.ipynb") if "use_published" in parameters(p)])
def test_a_figure_with_its_own_values_is_drawn_without_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "store"))
    out = rerun(NOTEBOOKS / f"{name}.ipynb", tmp_path / "out.ipynb", {})
    assert "nothing was trained for this page" in out.read_text()
    assert not (tmp_path / "store").exists()


def test_pairs_of_seeds_are_measured_kept_and_published(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run)))
    specs = aligned.grid(SMALL, seed=[0, 1, 2], constraint=["none", "projected"])
    table = aligned.records(specs, 4096, measure="stability")
    assert list(zip(table.constraint, table.seed, table.other_seed)) == [
        (c, *pair) for c in ("none", "projected") for pair in ((0, 1), (0, 2), (1, 2))
    ]
    a, b = (aligned.run(spec).sae for spec in specs[:3:2])  # seeds 0 and 1 of `none`
    assert table.pw_mcc_all[0] == aligned.evals.stability(a, b)["pw_mcc"]
    assert table.pw_mcc_start[0] == pytest.approx(
        aligned.evals.stability(*(s.start(a.d_in) for s in specs[:3:2]))["pw_mcc"]
    )
    assert results.publish() == 6
    monkeypatch.setattr(runs, "_train", None)
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path / "nothing"))
    again = aligned.records(specs, 4096, measure="stability")
    assert again.equals(table)
    assert "6 SAEs; nothing was trained" in results.provenance(again, again)


def test_every_measure_has_its_answer_in_a_table(place: Path) -> None:
    specs = aligned.grid(replace(SMALL, d_sae=128), seed=[0, 1], constraint=["none"])
    rows = {
        measure: aligned.records(specs, 160 if measure == "scr" else 131_072, measure=measure).iloc[0]
        for measure in ("scores", "behaviour", "features", "scr")
    }
    sae = aligned.run(specs[0]).sae
    assert rows["scores"]["spread"] == pytest.approx(aligned.alignment_score(sae).std(correction=0).item(), rel=1e-4)
    assert sum(rows["scores"]["histogram"]) == pytest.approx(1)
    assert rows["scores"]["at_start"] < 1
    small = [
        replace(SMALL, activation="relu", sparsity=0.1, init="small", lr=1e-9, constraint=c) for c in ("none", "tied")
    ]
    assert list(aligned.records(small, 1, measure="scores").at_start) == [1, 1]  # nothing was learned
    assert sum(rows["scores"]["log_scores"][-1]) == 128
    assert 0 <= rows["behaviour"]["dead"] <= 1
    assert len(rows["features"]["mcs"]) == len(rows["features"]["concept"]) == 128
    assert rows["features"]["score"] == pytest.approx(aligned.alignment_score(sae).tolist(), abs=1e-4)
    assert set(rows["scr"]["n"]) == {2, 5, 10, 20, 50, 100}  # 500 is more than there are
    assert len(set(rows["scr"]["pair"])) == 5


def test_a_measure_that_there_is_not_and_a_seed_alone_are_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="measure is 'quality'; there are recovery, scores"):
        aligned.records([SMALL], EVAL, measure="quality")
    with pytest.raises(ValueError, match=f"at least 2 seeds of each SAE, and there is one of {SMALL.name}"):
        aligned.records([SMALL], EVAL, measure="stability")


def test_what_could_not_be_measured_is_refused_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNED_STORE", str(tmp_path))
    (mine := tmp_path / "mine.txt").write_text("x = 1\n" * 500)  # of one document
    for measure in ("recovery", "scr"):
        with pytest.raises(ValueError, match=r"mine.txt has no text in its held_out part, .*: give more text"):
            aligned.records(aligned.grid(SMALL, text=[str(mine)]), EVAL, measure=measure)
    with pytest.raises(ValueError, match="eval_tokens is 16; it is a whole number from 32"):
        aligned.records([SMALL], 16, measure="scr")
    with pytest.raises(ValueError, match="eval_tokens is 64; it is a whole number from 512"):
        aligned.records([SMALL], 64, measure="behaviour")
    with pytest.raises(ValueError, match="d_sae is 1; this can be measured of 8 features or more"):
        aligned.records([replace(SMALL, d_sae=1, sparsity=1)], 1024, measure="scores")
    assert {place.name for place in tmp_path.iterdir()} <= {mine.name, "contents"}  # no pool and no run


def test_what_was_measured_before_an_interruption_is_published_whole(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(Run, "provenance", property(lambda run: committed(run)))
    aligned.run(SMALL).keep(f"recovery, {EVAL} tokens of held-out text", {"l0": 4.0})
    lost = aligned.run(replace(SMALL, seed=1))
    lost.keep("scores", {})
    (lost.path / "spec.json").unlink()
    assert results.publish() == 1
    table = aligned.records([SMALL], EVAL)
    assert table.score_min[0] == pytest.approx(1, abs=1e-5)
    table.drop(columns=["l0"]).to_parquet(tmp_path / "table.parquet")


def test_low_scores_and_dead_features_are_counted_together() -> None:
    rows = [
        {"model": "m", "activation": "relu", "sparsity": 0.1, "constraint": "none"}
        | {"score": [0.1, 0.2, 0.9, 1.0], "density": [0.0, 0.5, 0.5, 0.0]},
        {"model": "m", "activation": "topk", "sparsity": 16.0, "constraint": "none"}
        | {"score": [0.9, 1.0], "density": [0.0, 0.1]},
        {"model": "m", "activation": "topk", "sparsity": 16.0, "constraint": "projected"}
        | {"score": [1.0, 1.0], "density": [0.0, 0.0]},
    ]
    assert results.low_and_dead(pd.DataFrame(rows)) == [
        "- relu, λ = 0.1, on m: 50.0% of the scores are under 1/2; of these features 50.0% are dead, "
        "of the others 50.0%",
        "- topk, k = 16, on m: no score is under 1/2; 50.0% of the features are dead",
    ]


def test_the_error_of_the_text_is_told_of_the_models_that_a_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence a model; that intervals are too narrow is said where the error is over a fifth of the spread."""
    row = {"activation": "relu", "sparsity": 0.1, "tokens": 4096, "between_seeds": 0.01}
    rows = [row | {"model": "small", "error": 0.001}, row | {"model": "large", "error": 0.02}]
    (tmp_path / "held-out.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    small, large = (pd.DataFrame({"model": [name], "activation": ["relu"]}) for name in ("small", "large"))
    assert "0.10 (relu, 0.1) times the standard deviation over seeds" in results.error_of_text(small)
    assert "too narrow" not in results.error_of_text(small)
    assert "On large" in results.error_of_text(large)
    assert "2.00 (relu, 0.1) times" in results.error_of_text(large)
    assert "too narrow" in results.error_of_text(large)
    assert "On large" in results.error_of_text()
    assert "On small" in results.error_of_text()
    assert results.error_of_text(small.assign(activation="topk")) == ""


def test_the_precision_of_training_is_told_by_sparsity_where_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    specs = [replace(SMALL, activation="topk", sparsity=k, seed=seed) for k in (4.0, 8.0) for seed in (0, 1)]

    def publish(*precisions: str) -> None:
        made = [{"spec": asdict(s), "metrics": {}, "provenance": {"precision": p}} for s, p in zip(specs, precisions)]
        (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, made)))

    assert results.precisions(specs) == "-"
    publish("bf16", "bf16", "bf16", "bf16")
    assert results.precisions(specs) == "bf16"
    publish("float32", "float32", "bf16", "bf16")
    assert results.precisions(specs) == "float32 (k = 4), bf16 (k = 8)"
    publish("float32", "float32", "float32", "bf16")
    assert results.precisions(specs) == "float32 (k = 4, k = 8), bf16 (k = 8)"
    assert results.precisions(specs[:2]) == "float32"


def test_the_error_of_the_text_is_measured_at_one_sparsity_of_each_activation() -> None:
    plan = PLANS["smollm2-135m"]
    assert {(s.activation, s.sparsity) for s in chosen(plan, [64, 0.06])} == {("topk", 64), ("relu", 0.06)}
    assert chosen(plan, []) == plan.parts["features"].specs
    with pytest.raises(ValueError, match="several sparsities of one activation"):
        chosen(plan, [16, 64])
    with pytest.raises(ValueError, match="no sparsity"):
        chosen(plan, [5])
