"""What the measures say of examples whose answers are known."""

from __future__ import annotations

import pytest

import aligned
from aligned import evals
from aligned.language import text
from aligned.language.model import LanguageModel
from aligned.report import cases


def test_alignment_scores_of_one_kind_and_of_two() -> None:
    found = {name: evals.modes(aligned.alignment_score(sae)) for name, sae in cases.alignment().items()}
    assert found["equal"]["spread"] < 1e-6
    two = found["two kinds"]
    assert (two["low_mean"], two["high_mean"], two["low_share"]) == pytest.approx((0.2, 0.9, 0.5), abs=0.02)
    assert two["below_half"] == pytest.approx(0.5, abs=0.01)
    peaks = {name: of["dip_p"] < 0.05 for name, of in found.items()}
    assert [name for name, several in peaks.items() if several] == ["two kinds"]  # those that overlap have one peak
    assert [name for name, of in found.items() if of["bic_gain"] <= 0] == ["equal"]  # nor is one skewed peak normal


def test_what_two_dictionaries_have_in_common() -> None:
    found = {name: evals.stability(*pair) for name, pair in cases.seeds().items()}
    same, copies, exchanged, nothing = found.values()
    assert same["pw_mcc"] == same["mmcs"] > 0.9
    assert same["shared"] == 1
    assert copies["mmcs"] > copies["pw_mcc"] + 0.2  # a copy has no partner of its own
    assert copies["shared"] == 0.55  # 10 that were not copied over, and one of the copies
    assert (exchanged["mmcs"], exchanged["pw_mcc"]) == (same["mmcs"], same["pw_mcc"])
    assert exchanged["shared"] == 0.5  # the decoders do not show it
    assert nothing["shared"] == 0
    assert nothing["mmcs"] < 0.3


def test_how_well_features_tell_a_concept() -> None:
    case = cases.concepts()
    table = evals.concepts(case.sae, case.x, case.labels, case.names)
    assert list(table.concept) == ["comment"] * 5
    assert list(table.f1) == pytest.approx([1, 1, 2 / 3, 2 / 3, 0.1], abs=0.05)
    assert list(table.precision) == pytest.approx([1, 1, 1 / 2, 1, 0.1], abs=0.06)
    assert list(table.recall) == pytest.approx([1, 1, 1, 1 / 2, 0.1], abs=0.05)
    assert table.chance.max() < 0.2


def test_features_that_part_two_attributes_and_features_that_do_not() -> None:
    case = cases.attributes()
    score, ablated = {}, {}
    for name, sae in case.saes.items():
        rows = evals.scr(sae, case.probes, case.train, case.test, [1, 2, 3]).query("removed == 'b'").set_index("n")
        score[name], ablated[name] = rows.scr, rows.ablated
        assert rows.harder.all()  # the probe leans on b
        for n in (1, 2, 3):  # what is drawn is what is measured
            left = case.probes.biased.accuracy(cases.without(case, sae, n), case.test.a)
            assert left == pytest.approx(ablated[name][n])
    assert score["a feature a value"][1] == pytest.approx(0.5, abs=0.1)  # one value of b is still there
    assert score["a feature a value"][2] == pytest.approx(1, abs=0.02)
    assert score["mixed"].max() < 0.2
    assert ablated["always on"][1] == pytest.approx(0.5)  # all texts are moved to one side


def test_a_direction_makes_the_model_write_its_token_unless_it_is_pushed_too_far(model: LanguageModel) -> None:
    documents = text.documents("installed-python", "held_out")
    prompts = text.token_blocks(documents, model.tokenizer, 32, blocks=24)
    sae = cases.steering(model, "self")
    far = {
        strength: evals.steering(sae, model, [0, 1], ["self"] * 2, prompts, strength, 24, model.n_layers - 1)
        for strength in (0.3, 1.0)
    }
    assert list(far[0.3].success) == [True, False]
    assert list(far[1.0].success) == [False, False]
    assert far[1.0].ce_steered[0] > far[0.3].ce_steered[0] + 3
    with pytest.raises(ValueError, match=r"'self\.x' is 3 tokens of embedded; give one"):
        cases.steering(model, "self.x")


def test_what_kind_of_error_a_dictionary_makes() -> None:
    x, saes = cases.error()
    found = {name: evals.behaviour(sae, x) for name, sae in saes.items()}
    none, shrunk, missing, fewer, dense = found.values()
    assert [none[name] for name in ("dead", "dense", "shrinkage", "dark_matter")] == pytest.approx([0] * 4, abs=1e-5)
    assert none["error"] < 1e-5
    assert shrunk["shrinkage"] == pytest.approx(1 / 0.9 - 1, abs=1e-3)
    assert shrunk["dark_matter"] == pytest.approx(1, abs=1e-3)
    assert missing["dead"] == pytest.approx(1 / 63)
    assert missing["dark_matter"] == pytest.approx(1, abs=1e-3)
    assert fewer["error"] > 0.5
    assert fewer["dark_matter"] < 0.4
    assert dense["dense"] == pytest.approx(1 / 64)
    assert dense["error"] < 1e-5
