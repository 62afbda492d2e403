"""What the first screen says, on findings whose answer is known."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from aligned.evals.intervals import Interval
from aligned.report import claims, in_short, results, scorecard
from aligned.report.answers.rates import Rates
from aligned.report.answers.starts import Starts
from aligned.report.rules import Finding, Outcome

GAIN = Outcome("relu, more alive", Interval(0.1, 0.05, 0.15, 3), claims.ALIVE, True, "a gain is shown")
OPEN = replace(GAIN, name="topk, more alive", effect=Interval(0.1, -0.05, 0.25, 3), shown=None)
LOSS = Outcome("topk, few dead", Interval(-0.1, -0.2, -0.05, 3), claims.DEAD, False, "a loss", reversed=True)
UNTESTED = {name: Finding("not testable here", reason="no record") for name in scorecard.CLAIMS}


def test_every_statement_stands_once_and_where_its_cases_put_it() -> None:
    one = UNTESTED | {"C4": Finding("holds in part", outcomes=(GAIN, LOSS))}
    two = UNTESTED | {
        "C2": Finding("holds", outcomes=(replace(GAIN, name=""),)),
        "C4": Finding("undecided", outcomes=(OPEN, replace(LOSS, reversed=False))),
    }
    lead, some, none, every, untested = in_short.in_words({"one": one, "two": two}).replace("\n\n", "\n").splitlines()
    assert "2 language models" in lead
    said = "aligned ReLU SAEs, from the small start, recover more cross-entropy (C2: 1 of 1)"
    assert every == f"- **Shown in every case:** {said}."
    assert some == "- **Shown in some cases:** aligned SAEs keep more features alive (C4: 1 of 2, open in 1)."
    assert re.findall(r"\(.*?\)", none) == ["(C4: 0 of 2, the opposite in 1, excluded in 1)"]
    assert {f"C{i}" for i in range(1, 13)} - {"C2", "C4"} == set(re.findall(r"C\d+", untested))


def test_every_case_of_the_published_records_has_its_statement() -> None:
    """A case that no statement speaks of would be lost."""
    for of in (scorecard.findings(model) for model in scorecard.models()):
        for name, finding in of.items():
            endings = [ending for claim, ending, _ in in_short.SAYS if claim == name]
            for outcome in finding.outcomes:
                assert sum(outcome.name.endswith(ending) for ending in endings) == 1


def test_the_sentences_say_what_most_models_show_and_name_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = Interval(0, -0.001, 0.001, 3)
    of_unit = {"CE recovered": Interval(0.02, 0.01, 0.03, 3), "share of alive features": alike}
    less = Interval(-0.1, -0.2, -0.05, 3)
    of_decoder = {"CE recovered": less}
    both = {"up": Starts("up", {}, of_unit, (alike, alike), alike, 1.0, "undecided", "holds", of_decoder)}
    at_other = {"up": Rates("up", 0.1, 0.2, {"share of alive features, TopK": less}, {})}
    monkeypatch.setattr(in_short, "starts", lambda model: both.get(model, "not published"))
    monkeypatch.setattr(in_short, "rates", at_other.get)
    of = {
        name: Finding(
            "undecided", outcomes=(replace(GAIN, name="relu, more alive", effect=Interval(mean, low, high, 3)),)
        )
        for name, mean, low, high in (
            ("up", 0.1, 0.05, 0.15),
            ("also up", 0.1, 0.05, 0.15),
            ("down", -0.1, -0.15, -0.05),
            ("alike", 0.001, -0.001, 0.003),
            ("open", 0.1, -0.05, 0.25),
        )
    }
    found = {name: UNTESTED | {"C4": finding} for name, finding in of.items()}
    brief = in_short.in_list(found)
    _, small, decoder, unit, best, _, chosen, other, *others = brief.splitlines()
    said = "keep more features alive (on 2 of 5 models, by 0.100; fewer on down; as many on alike; open on open);"
    assert small.endswith(said)
    assert decoder.endswith("with decoder rows of norm 1: they recover less cross-entropy (on up, by 0.100);")
    assert unit.endswith("they recover more cross-entropy (on up, by 0.020) and keep as many features alive (on up);")
    assert best.endswith("they recover as much cross-entropy (on up).")
    assert "have not been compared" in chosen
    assert other.endswith("they keep fewer features alive (on up, by 0.100).")
    said, _, head, _, *rows, _, _ = in_short.in_brief(found).splitlines()
    assert said.endswith("**Here** C2: not testable here (on all 5 models); C3: not testable here (on all 5 models); "
                         "C4: undecided (on all 5 models); C5: not testable here (on all 5 models).")  # fmt: skip
    assert head.count("|") == 4
    assert rows == [
        "| ReLU, from the small start of the paper's stack | – | more on 2 of 5 models, by 0.100; fewer on down; as "
        "many on alike; open on open |",
        "| ReLU, from this start with decoder rows of norm 1 | less on up, by 0.100 | – |",
        "| ReLU, from rows of norm 1 | more on up, by 0.020 | as many on up |",
        "| TopK, at another learning rate | – | fewer on up, by 0.100 |",
    ]
    assert "have not been compared with standard ones yet." in in_short.in_brief({"other": UNTESTED})
    assert [line.partition("SAEs")[0] for line in others] == ["- **Aligned BatchTopK ", "- **Aligned "]


def test_the_first_screen_says_where_the_opposite_of_a_claim_is_shown() -> None:
    lost = Finding("does not hold", outcomes=(replace(LOSS, name=""),))
    of = {"one": UNTESTED | {"C2": lost}, "two": UNTESTED | {"C2": lost}, "three": UNTESTED}
    said = in_short.in_brief(of).splitlines()[0]
    assert "C2: does not hold, the opposite is shown (on one and two), not testable here (on three)" in said
    assert "(on all 2 models)" in in_short.in_brief({"one": of["one"], "two": of["two"]}).splitlines()[0]


def test_a_soft_penalty_has_its_row_where_it_was_trained() -> None:
    found = {model: scorecard.findings(model) for model in scorecard.models()}
    (row,) = [line for line in in_short.in_brief(found).splitlines() if "(score - 1)²" in line]
    controls = results.of_parts("embedded", "controls", where=lambda spec: spec.activation == "relu")
    effect = claims.difference(controls, "ce_recovered", ("none", "soft"))
    assert f"| more on embedded, by {effect.mean:.3f} |" in row


def test_the_numbers_are_those_of_the_findings() -> None:
    table = in_short.in_numbers({"one": UNTESTED | {"C4": Finding("holds", outcomes=(GAIN,))}, "two": UNTESTED})
    assert f"| share of alive features, ReLU | {GAIN.effect} | not published yet |" in table
    assert table.count("not published yet") == 2 * len(in_short.NUMBERS) - 1


def test_a_table_in_markdown_is_one_in_html() -> None:
    html = in_short.as_html(in_short.in_numbers({"one": UNTESTED}))
    assert html.count("<tr>") == 1 + len(in_short.NUMBERS)
    assert "|" not in html
