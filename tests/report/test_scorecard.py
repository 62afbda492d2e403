"""The scorecard on records whose answer is known, and without any."""

from __future__ import annotations

import html
import json
import zlib
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aligned.evals.spurious import ABLATED
from aligned.report import in_short, results, scorecard
from aligned.report.measures import MEASURES
from aligned.report.parameters import NOTEBOOKS
from aligned.report.published import PLANS
from aligned.spec import RunSpec

GAIN = 0.03  # of aligned SAEs, in whatever is measured


def answer(measure: str, spec: RunSpec) -> dict[str, Any]:
    """What an SAE might give if every claim held; p-annealing, TopK and BatchTopK with an aligned arm that loses."""
    l0 = spec.sparsity if "topk" in spec.activation else 10 / spec.sparsity**1.1
    random = np.random.default_rng(zlib.crc32(f"{measure} {spec.name}".encode()))
    aligned, little = spec.constraint != "none", 1e-4 * random.standard_normal()
    gain = GAIN if spec.activation == "relu" else -GAIN
    value = 0.7 + 0.05 * np.log(l0) + gain * aligned - 0.01 * (spec.constraint == "tied") + little
    score = 0.8 + 0.2 * random.standard_normal(4000)
    return {
        "recovery": {"l0": l0, "ce_recovered": value, "alive": 0.999 if aligned else 0.7 + little, "fvu": 1 - value},
        "scores": {
            "dip_p": 0.01,
            "below_half": 0.3 + little,
            "histogram": [0.0] * 11 + [0.3 + little] + [0.0] * 18 + [0.7 - little] + [0.0] * 10,
        },
        "stability": {"pw_mcc_alive": value},
        "features": {
            "score": list(score),
            "mcs": list(score + 0.2 * random.standard_normal(4000)),
            "f1": list(score + 0.6 * random.standard_normal(4000)),
            "density": [0.1] * 4000,
        },
        "scr": {"n": [*ABLATED], "scr": [value] * len(ABLATED), "harder": [True] * len(ABLATED)},
    }.get(measure, {})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("model", PLANS)
def test_every_claim_is_decided_from_records_of_the_published_grid(place: Path, model: str) -> None:
    metrics: dict[RunSpec, dict[str, Any]] = {}
    for part in PLANS[model].parts.values():
        for name, size in part.measures:
            what = MEASURES[name]
            for group in what.groups(part.specs):
                of = metrics.setdefault(group[0], {"alignment": {}})
                of[what.key(name, size, group)] = answer(name, group[0])
                for spec in group:
                    metrics.setdefault(spec, {"alignment": {}})
    lines = [{"spec": asdict(spec), "metrics": of, "provenance": {}} for spec, of in metrics.items()]
    (place / "planted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert scorecard.models() == [model]
    found = {name: finding.verdict for name, finding in scorecard.findings(model).items() if name != "C10"}
    assert found == {
        "C1": "holds",
        "C2": "holds",
        "C3": "does not hold",
        "C4": "holds",
        "C5": "holds in part",  # ReLU, not TopK
        "C6": "holds in part",
        "C7": "holds",
        "C8": "holds",
        "C9": "holds",
        "C11": "does not hold",
        "C12": "holds in part",
    }


def test_widths_are_compared_for_the_kinds_of_sae_that_are_published_of_more_than_one(place: Path) -> None:
    parts = PLANS["gemma-3-270m"].parts
    wide = [s for s in parts["wide"].specs if s.activation == "topk"]
    specs = [*parts["relu"].specs, *parts["topk"].specs, *wide]
    key = "recovery, 16384 tokens of held-out text"
    lines = [
        {"spec": asdict(s), "metrics": {"alignment": {}, key: answer("recovery", s)}, "provenance": {}} for s in specs
    ]
    (place / "planted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = scorecard.findings("gemma-3-270m")["C12"]
    assert {outcome.name for outcome in found.outcomes} == {"topk, 4096", "topk, 16384"}


def test_a_verdict_says_where_it_rests_on_fewer_kinds_of_sae_than_the_claim_names() -> None:
    some, every = (
        scorecard.CLAIMS["C11"].judge(page(*kinds)) for kinds in (("topk",), ("topk", "batchtopk", "p_anneal"))
    )
    assert (some.alone, every.alone) == ("topk", "")
    of = {name: replace(some, verdict="not testable here") for name in scorecard.CLAIMS} | {"C11": some}
    assert "; asked of topk alone)" in scorecard.table(of)
    assert "; asked of topk alone</td>" in scorecard.by_model({"embedded": of})
    assert (
        "asked of"
        not in scorecard.by_model({"embedded": of | {"C11": every}}).partition("C11")[2].partition("</tr>")[0]
    )


def test_a_real_model_has_its_column_and_its_section(place: Path) -> None:
    model = "gemma-3-270m"
    assert results.facets(["relu"]) == {}
    assert "No SAE of a real model is published" in scorecard.on_real_models("C2")
    specs = PLANS[model].parts["relu"].specs
    key = "recovery, 16384 tokens of held-out text"
    lines = [
        {"spec": asdict(s), "metrics": {"alignment": {}, key: answer("recovery", s)}, "provenance": {}} for s in specs
    ]
    (place / "planted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tables = results.facets(["relu", "topk"])
    assert list(tables) == [("relu", model)]
    assert len(tables["relu", model]) == len(specs)
    told = scorecard.on_real_models("C2", "C3")
    c2, c3 = (scorecard.CLAIMS[name].statement for name in ("C2", "C3"))
    assert f"**C2.** *{c2}* On gemma-3-270m, this **holds**. It is shown." in told
    assert f"**C3.** *{c3}* On gemma-3-270m, this is **not testable here**, because no record (recovery) of" in told
    assert "`aligned publish --train gemma-3-270m topk batchtopk` trains and measures them." in told
    table = scorecard.by_model({model: scorecard.findings(model)})
    assert table.count("<tr>") == 1 + len(scorecard.CLAIMS)
    assert f"<th>{model}</th>" in table


@pytest.mark.parametrize("model", PLANS)
def test_without_records_nothing_is_decided_and_each_claim_says_why(place: Path, model: str) -> None:
    found = scorecard.findings(model)
    assert list(found) == [f"C{i}" for i in range(1, 13)]
    for name, finding in found.items():
        if name != "C10":
            assert finding.verdict == "not testable here"
            assert f"`aligned publish --train {model}" in finding.told
    table = scorecard.table(found)
    assert table.count("<tbody") == 12
    assert all(html.escape(claim.statement) in table for claim in scorecard.CLAIMS.values())


def page(*activations: str, constraint: str = "projected", seeds: int = 3) -> pd.DataFrame:
    """Records as a page has them, in which alignment gains."""
    specs = [
        RunSpec(activation=a, sparsity=s, constraint=c, seed=i)  # type: ignore[arg-type]
        for a, s in product(activations, (8, 32))
        for c, i in product(("none", constraint), range(seeds))
    ]
    rows = [asdict(spec) | answer("recovery", replace(spec, activation="relu", sparsity=0.1 * spec.sparsity))
            for spec in specs]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        ("C2", page("relu", "topk"), ["On embedded, this **holds**"]),
        ("C3", page("relu", "topk"), ["On embedded, asked of topk SAEs alone, this **holds**"]),
        ("C3", page("topk", "batchtopk"), ["On embedded, this **holds**"]),
        (
            "C2",
            page("jumprelu", "gated"),
            [f"On embedded, asked of {kind} SAEs, of which the claim does not speak, this **holds**"
             for kind in ("jumprelu", "gated")],
        ),
        (
            "C11",
            page("jumprelu", "gated"),
            ["On embedded, asked of jumprelu and gated SAEs, of which the claim does not speak, this **holds**"],
        ),
        ("C12", page("gated"),
         ["On embedded, asked of gated SAEs alone, this is **not testable here**, because there is one width alone"]),
    ],
)  # fmt: skip
def test_a_page_says_in_words_which_claim_it_asks_of_which_saes(
    name: str, table: pd.DataFrame, says: list[str]
) -> None:
    told = scorecard.told(name, table)
    for sentence in says:
        assert f"**{name}.** *{scorecard.CLAIMS[name].statement}* {sentence}" in told
    assert told.count(f"**{name}.**") == len(says)


def test_another_constraint_than_the_claims_is_named() -> None:
    told = scorecard.told("C2", page("relu", constraint="rescaled"), "rescaled")
    assert "On embedded, with `rescaled` as the constraint, this **holds**" in told
    assert "aligned (rescaled) minus standard" in told


def test_a_verdict_counts_the_saes_that_are_not_published_yet() -> None:
    table, other = page("relu"), page("topk")
    table.attrs = {"made": [{"spec": dict(spec)} for _, spec in table.iterrows()]}
    table.attrs["missing"] = [dict(spec) for _, spec in other.iterrows()]
    assert "12 of 24 SAEs are published so far." in scorecard.told("C4", table)
    assert "published" not in scorecard.told("C2", table)  # the missing ones are of no concern to it


def test_a_case_of_which_too_little_is_published_takes_nothing_from_the_others() -> None:
    both = page("topk", "batchtopk")
    of_other = both.activation == "batchtopk"
    there = both[~of_other | (both.sparsity == 8)]  # at one L0 no arm can be compared with another at equal L0
    there.attrs = {
        "made": [{"spec": dict(spec)} for _, spec in there.iterrows()],
        "missing": [dict(spec) for _, spec in both[of_other & (both.sparsity != 8)].iterrows()],
    }
    alone, found = scorecard.CLAIMS["C11"].judge(page("topk")), scorecard.CLAIMS["C11"].judge(there)
    assert (found.verdict, found.outcomes) == (alone.verdict, alone.outcomes)
    assert found.verdict != "not testable here"
    assert found.so_far == "18 of 24 SAEs are published so far, too few of batchtopk to judge"
    assert "asked of topk SAEs alone" in found.told
    there.attrs["missing"] = []  # nothing more will come: then the claim can't be judged as it stands
    assert "for batchtopk" in scorecard.CLAIMS["C11"].judge(there).reason


def test_every_claim_has_its_page() -> None:
    for claim in scorecard.CLAIMS.values():
        assert (NOTEBOOKS / f"{claim.page}.ipynb").exists()


def test_the_first_page_lists_every_claim_with_its_page() -> None:
    index = (NOTEBOOKS.parent / "book" / "index.md").read_text()
    for name, claim in scorecard.CLAIMS.items():
        assert f"| {name} | {claim.statement} | {{doc}}`/notebooks/{claim.page}` |" in index


def test_the_readme_has_the_verdicts_of_the_published_records() -> None:
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    assert scorecard.in_readme(readme) == readme
    found = {model: scorecard.findings(model) for model in scorecard.models()}
    assert in_short.in_brief(found) in readme
    assert in_short.in_words(found) in readme
    with pytest.raises(ValueError, match="the README holds no <!-- in brief"):
        scorecard.in_readme("# Another")


def test_a_claim_about_every_kind_says_of_which_it_was_asked() -> None:
    some, every = (
        results.of_parts("embedded", *kinds, measure="scores") for kinds in (("relu", "topk"), scorecard.KINDS)
    )
    assert "On embedded, asked of relu and topk SAEs alone, this **" in scorecard.told("C1", some)
    assert "asked of" not in scorecard.told("C1", every)
