"""Every claim of the paper, its rule applied to the published records, and how often such a rule errs."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aligned import files
from aligned.checks import listed
from aligned.errors import NotFound
from aligned.files import home
from aligned.language.model import EMBEDDED
from aligned.provenance import commit
from aligned.report import claims, cost, in_short, results
from aligned.report.published import ARMS, PLANS
from aligned.report.results import of_parts
from aligned.report.rules import Finding, Outcome

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ALIGNED = "projected"  # the constraint of the aligned arm
COLOURS = {"shown": "#0072B2", "excluded": "#D55E00", "open": "#737373"}
SO_FAR = "SAEs are published so far"
FURTHEST = 4.0  # smallest effects of interest, on either side of 0, that the picture shows


@dataclass(frozen=True)
class Claim:
    """A claim of the paper (arXiv 2605.18629), in our words.

    Attributes:
        name: C1 to C12.
        statement: what it says.
        measures: what its effect is measured in, in a few words, for a picture.
        page: the notebook that shows it.
        table: the published records of a language model that it is judged by.
        rule: takes that table, or one like it, and the constraint of the aligned arm, and returns a finding.
        activations: those that it names, if it names some.
        every: if it speaks of every kind of SAE, those of which it is asked here.
    """

    name: str
    statement: str
    measures: str
    page: str
    table: Callable[[str], pd.DataFrame]
    rule: Callable[[pd.DataFrame, str], Finding]
    activations: tuple[str, ...] = ()
    every: tuple[str, ...] = ()

    def find(self, model: str) -> Finding:
        """What became of it, by the records that there are; where some are still missing, the finding says so."""
        try:
            table = self.table(model)
        except (ValueError, FileNotFoundError) as error:
            return Finding("not testable here", reason=str(error), claim=self._quoted, asked=f"On {model}")
        finding = self.judge(table)
        if finding.reason and finding.so_far:
            rest = f"{finding.so_far}; `aligned publish --train {model}` trains and measures the others"
            return replace(finding, so_far=rest)
        return finding

    def judge(self, table: pd.DataFrame, constraint: str = ALIGNED) -> Finding:
        """Its rule, applied to some records. The finding says of which SAEs, where they are not all those, or not those
        alone, of which the claim speaks."""
        finding = self.rule(table, constraint)
        made = [of["spec"] for of in table.attrs.get("made", ())]
        missing = list(table.attrs.get("missing", ()))
        if self.activations:
            kinds = {*self.activations, *table.activation}
            made, missing = ([spec for spec in specs if spec["activation"] in kinds] for specs in (made, missing))
        so_far = f"{len(made)} of {len(made) + len(missing)} {SO_FAR}" if missing else ""
        few = list(dict.fromkeys(spec["activation"] for spec in missing))
        if finding.reason and few:  # a case of which too little is published yet takes nothing from the others
            whole = table[~table.activation.isin(few)]
            if len(whole) and not (judged := self.rule(whole, constraint)).reason:
                finding, table = judged, whole
                so_far += f", too few of {listed(few)} to judge"
        alone, asked = self._alone(table), self._asked(table, constraint)
        return replace(finding, claim=self._quoted, asked=asked, so_far=so_far, alone=alone)

    @property
    def _quoted(self) -> str:
        return f"**{self.name}.** *{self.statement}*"

    def _alone(self, table: pd.DataFrame) -> str:
        """The kinds of SAE that are there, if the claim speaks of others, too."""
        of = list(table.activation.unique()) if "activation" in table else []
        speaks = set(of) & set(self.activations or of)
        return listed(of) if speaks and not set(self.activations or self.every) <= set(of) else ""

    def _asked(self, table: pd.DataFrame, constraint: str) -> str:
        of = list(table.activation.unique()) if "activation" in table else []
        parts = [f"on {listed(table.model.unique())}"] if "model" in table else []
        if not set(of) & set(self.activations or of):
            parts.append(f"asked of {listed(of)} SAEs, of which the claim does not speak")
        elif alone := self._alone(table):
            parts.append(f"asked of {alone} SAEs alone")
        if constraint != ALIGNED:
            parts.append(f"with `{constraint}` as the constraint")
        said = ", ".join(parts)
        return f"{said[:1].upper()}{said[1:]}"


def _with_l0(table: pd.DataFrame, model: str) -> pd.DataFrame:
    return claims.with_l0(table, of_parts(model, "relu", "topk"))


def _widths(model: str) -> pd.DataFrame:
    """The kinds of SAE, at the sparsities, that are published of more than one width."""
    other = of_parts(model, "narrow", "wide")
    kinds = set(zip(other.activation, other.sparsity))
    return of_parts(model, "relu", "topk", "narrow", "wide", where=lambda s: (s.activation, s.sparsity) in kinds)


def _tied(model: str) -> pd.DataFrame:
    """Standard, aligned and tied ReLU SAEs at the sparsities of the controls."""
    arms = (*ARMS, "tied")
    return of_parts(model, "controls", where=lambda s: s.activation == "relu" and s.constraint in arms)


def _cost(model: str) -> pd.DataFrame:
    if model != EMBEDDED:
        raise ValueError(f"a step costs the same whatever the language model is: the verdict stands under {EMBEDDED}")
    return cost.in_turns(cost.record("cost-cpu"), "standard")


KINDS = ("relu", "p_anneal", "topk", "batchtopk")  # of SAE, on the figures' pages
CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "C1",
            "Alignment scores of standard SAEs are bimodal, in every architecture.",
            "two kinds of scores",
            "bimodality",
            lambda model: of_parts(model, *KINDS, measure="scores"),
            lambda table, _: claims.bimodal(table),
            every=KINDS,
        ),
        Claim(
            "C2",
            "Aligned ReLU SAEs recover more cross-entropy at equal L0.",
            "CE recovered",
            "recovered_ce",
            lambda model: of_parts(model, "relu"),
            claims.recovers_more,
            ("relu",),
        ),
        Claim(
            "C3",
            "Aligned TopK and BatchTopK SAEs recover more where k is large.",
            "CE recovered, large k",
            "recovered_ce",
            lambda model: of_parts(model, "topk", "batchtopk"),
            claims.recovers_more_where_dense,
            ("topk", "batchtopk"),
        ),
        Claim(
            "C4",
            "Aligned training leaves hardly a dead feature, without resampling or an auxiliary loss.",
            "dead features",
            "dead_features",
            lambda model: of_parts(model, *KINDS),
            claims.leaves_few_dead,
            every=KINDS,
        ),
        Claim(
            "C5",
            "Aligned features are more stable across seeds, for ReLU and TopK.",
            "alike over seeds",
            "stability",
            lambda model: _with_l0(of_parts(model, "relu", "topk", measure="stability"), model),
            claims.more_stable,
            ("relu", "topk"),
        ),
        Claim(
            "C6",
            "Aligned SAEs score higher on SCR.",
            "SCR",
            "scr",
            lambda model: _with_l0(of_parts(model, "scr", measure="scr"), model),
            claims.separates_better,
        ),
        Claim(
            "C7",
            "A feature's MCS correlates with its alignment score (r of about 0.65).",
            "MCS with score",
            "feature_quality",
            lambda model: of_parts(model, "features", measure="features"),
            lambda table, _: claims.correlates(table, "mcs", 0.65),
        ),
        Claim(
            "C8",
            "Auto-interpretability (here: a concept score instead) correlates with the alignment score (r of about "
            "0.32).",
            "concepts with score",
            "feature_quality",
            lambda model: of_parts(model, "features", measure="features"),
            lambda table, _: claims.correlates(table, "f1", 0.32),
        ),
        Claim(
            "C9",
            "Tying the weights also removes dead features, but costs reconstruction (here: of ReLU SAEs).",
            "tied weights",
            "weight_tying",
            _tied,
            claims.tying_costs,
            ("relu",),
        ),
        Claim(
            "C10",
            "Alignment adds no compute.",
            "time",
            "cost",
            _cost,
            lambda table, _: claims.no_added_compute(table),
        ),
        Claim(
            "C11",
            "Alignment works with p-annealing, TopK and BatchTopK, without new hyperparameters.",
            "no CE lost",
            "recovered_ce",
            lambda model: of_parts(model, "p_anneal", "topk", "batchtopk"),
            claims.needs_no_tuning,
            ("p_anneal", "topk", "batchtopk"),
        ),
        Claim(
            "C12",
            "The gain in recovered cross-entropy holds over dictionary sizes and sparsities.",
            "CE, by width",
            "recovered_ce",
            _widths,
            claims.holds_everywhere,
            every=("relu", "topk"),
        ),
    )
}
ONE_BY_ONE = ("C2", "C9")  # their rules take the SAEs of one activation


def models() -> list[str]:
    """The language models of which something is published."""
    there = {spec.model for spec in results.published()}
    return [model for model in PLANS if model in there]


def setting(model: str = EMBEDDED) -> str:
    """What is published of a language model, and how much of what is planned, in a line."""
    plan, there = PLANS[model], set(results.published())
    there &= set(plan.specs)
    if not there:
        return f"None of the {len(plan.specs)} SAEs that are planned for {model} is published yet."
    sizes = {of for part in plan.parts.values() for name, of in part.measures if name in ("recovery", "stability")}
    tokens = " to ".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)}))
    return (
        f"{results.shown(there)}; measured on {tokens} held-out tokens. "
        f"Of the {len(plan.specs)} SAEs that are planned, {len(there)} are published."
    )


def findings(model: str = EMBEDDED) -> dict[str, Finding]:
    """What became of each claim, by the records of a language model that are published so far."""
    return {name: claim.find(model) for name, claim in CLAIMS.items()}


def told(name: str, table: pd.DataFrame, constraint: str = ALIGNED) -> str:
    """What a claim's rule says of the SAEs of a page, in Markdown: the claim in words, the verdict and what it rests
    on. Where the claim names activations, it is asked of those that are there; where none of them is, of the others,
    and the words say so.

    Args:
        name: of the claim.
        table: as its rule takes it.
        constraint: of the aligned arm.
    """
    claim = CLAIMS[name]
    if claim.activations:
        kinds = table.activation.unique()
        table = table[table.activation.isin([kind for kind in kinds if kind in claim.activations] or kinds)]
    each = [rows for _, rows in table.groupby("activation", sort=False)] if name in ONE_BY_ONE else [table]
    return "\n\n".join(claim.judge(rows, constraint).told for rows in each)


def on_real_models(*names: str) -> str:
    """What became of some claims on each real model of which something is published, in Markdown."""
    real = [model for model in models() if model != EMBEDDED]
    told = [CLAIMS[name].find(model).told for model in real for name in names]
    return "\n\n".join(told) or "No SAE of a real model is published yet."


def table(found: dict[str, Finding]) -> str:
    """The scorecard as HTML: each claim with the verdict and its page; below it a row for each case, with the effect,
    its interval, the one by which the case was judged where that is wider, the smallest effect of interest, and what
    became of it. The page has the sentences."""
    rows = []
    for name, finding in found.items():
        claim = CLAIMS[name]
        rests = "; ".join([finding.sample, *_rests_on(finding)]) if finding.outcomes else finding.reason
        told = (
            f"<a href='{claim.page}.html'>{name}</a> {html.escape(claim.statement)} "
            f"<strong>{finding.verdict}</strong> ({html.escape(rests)})"
        )
        cases = "".join(f"<tr>{_case(of)}</tr>" for of in finding.outcomes)
        rows.append(
            "<tbody style='border-top: 1px solid gray'>"
            f"<tr><th colspan='5' scope='rowgroup' style='font-weight: normal'>{told}</th></tr>{cases}</tbody>"
        )
    return _html(("case", "effect [95 % interval]", "judged by", "least", "the case is"), rows)


def _told(finding: Finding) -> str:
    """The verdict in short; where it rests on fewer SAEs than it might, on which."""
    return "; ".join([finding.short, *([] if finding.reason else _rests_on(finding))])


def _rests_on(finding: Finding) -> list[str]:
    """How many SAEs are published, where some are not; which kinds there are, where the claim speaks of more."""
    alone = finding.alone and f"asked of {finding.alone} alone"
    return list(filter(None, (finding.so_far, alone)))


NOT_EVERY = (
    "A claim about every case fails as soon as one case is excluded or goes the other way round, whatever its verdict "
    "says."
)


def by_model(found: dict[str, dict[str, Finding]]) -> str:
    """As HTML: each claim with its verdicts, a column a language model.

    Args:
        found: `findings`, by model.
    """
    rows = [
        f"<tr><td><a href='{claim.page}.html'>{name}</a></td><td>{html.escape(claim.statement)}</td>"
        + "".join(f"<td>{html.escape(_told(of[name]))}</td>" for of in found.values())
        + "</tr>"
        for name, claim in CLAIMS.items()
    ]
    return f"{_html(('claim', 'the paper, in our words', *found), rows)}<p>{NOT_EVERY}</p>"


def _case(of: Outcome) -> str:
    digits = 4 if of.least.size < 0.01 else 3
    shown, judged = (f"[{by.low:+.{digits}f}, {by.high:+.{digits}f}]" for by in (of.effect, of.judged or of.effect))
    became = "reversed" if of.reversed else of.state
    cells = (
        html.escape(of.name or "all of them"),
        f"{of.effect.mean:+.{digits}f} {shown}",
        judged if of.judged else "the same",
        f"{of.least.size:g}",
        became,
    )
    return "".join(f"<td style='white-space: nowrap'>{cell}</td>" for cell in cells)


def cases(*found: dict[str, Finding]) -> list[tuple[str, str]]:
    """The rows of a picture of several models: each claim with each case that one of them has, in the claims' order."""
    return [
        (name, case)
        for name in CLAIMS
        for case in dict.fromkeys(outcome.name for of in found for outcome in of[name].outcomes)
    ]


def forest(ax: Axes, found: dict[str, Finding], rows: list[tuple[str, str]] | None = None) -> None:
    """Every effect with its interval, in units of the smallest of interest, a row a case, the first claim on top.

    A row's colour says what became of the case: what the claim says is shown, excluded, or open. The lines are at 0 and
    at the smallest effect of interest; a claim that a value stays under a bound (`AtMost`) holds if its row is left of
    that line. An interval that goes beyond the picture ends in an arrow; one by which a case was judged, where that is
    a wider one, is thin.

    Args:
        ax: where to draw.
        found: of one model.
        rows: as `cases` has them, for models side by side; by default those of this one.
    """
    rows = cases(found) if rows is None else rows
    drawn = [(name, finding, outcome) for name, finding in found.items() for outcome in finding.outcomes]
    for name, finding, outcome in drawn:
        height = rows.index((name, outcome.name))
        size, colour = outcome.least.size, COLOURS[outcome.state]
        mean, widest = outcome.effect.mean / size, outcome.judged or outcome.effect
        for of, width in ((outcome.effect, 3.0), (widest, 0.8)):
            ends = [min(max(value / size, -FURTHEST), FURTHEST) for value in (of.low, of.high)]
            ax.plot(ends, [height, height], color=colour, linewidth=width, alpha=0.6, solid_capstyle="butt")
        if widest.low / size < -FURTHEST:
            ax.plot(-FURTHEST, height, "<", color=colour, markersize=5, clip_on=False)
        if widest.high / size > FURTHEST:
            ax.plot(FURTHEST, height, ">", color=colour, markersize=5, clip_on=False)
        if abs(mean) <= FURTHEST:
            ax.plot(mean, height, "o", color=colour)
        if outcome is finding.outcomes[0]:  # once a claim, under a line
            where = ax.get_yaxis_transform()
            beyond = (8, 0)  # points: the arrows end before that, however narrow the panel is
            ax.annotate(
                f"{finding.verdict}{' so far' * bool(_rests_on(finding))}",
                (1, height),
                beyond,
                where,
                "offset points",
                va="center",
                weight="bold",
                fontsize=9,
            )
    for height, (name, _) in enumerate(rows):
        if height and name != rows[height - 1][0]:  # a line between claims
            ax.axhline(height - 0.5, color="0.85", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=1)
    ax.axvline(1, color="black", linewidth=1, linestyle=":")
    ax.set_xlim(-FURTHEST, FURTHEST)
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    titles = [f"{name} {CLAIMS[name].measures}{': ' if case else ''}{case}" for name, case in rows]
    ax.set_yticks(range(len(rows)), titles, fontsize=8)
    ax.set_xticks([-4, -2, 0, 2, 4])


def errors() -> str:
    """How often the rules err, as HTML, from the record that `benchmarks/rules.py` writes: a row a claim.

    Raises:
        FileNotFoundError: there is none; says how to make one.
    """
    place = results.RESULTS / "rules.json"
    if not place.is_file():
        raise FileNotFoundError(f"there is no {place}; `aligned bench rules` makes it")
    record = json.loads(place.read_text())
    rows = []
    for name in CLAIMS:
        of = [row for row in record["rows"] if row["claim"] == name]
        for_seeds = {n: [row for row in of if row["seeds"] == n] for n in sorted({row["seeds"] for row in of})}
        undecided = [
            f"{sum(row['undecided'] for row in some) / sum(row['draws'] for row in some):.0%}"
            for some in for_seeds.values()
        ]
        rows.append(
            (
                name,
                str(sum(row["draws"] for row in of)),
                f"{max(row['wrong'] / row['draws'] for row in of):.1%}",
                *undecided,
            )
        )
    titles = ("claim", "draws", "wrong, in the worst setting", "undecided with 3 seeds", "undecided with 5 seeds")
    return _html(titles, ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows])


def _html(titles: Iterable[str], rows: Iterable[str]) -> str:
    """A table of these rows, each a `<tr>` or a `<tbody>`; on a narrow screen it scrolls by itself."""
    head = "".join(f"<th>{title}</th>" for title in titles)
    look = ".claims :is(td, th) {text-align: left; vertical-align: top; padding: 0.1em 1em 0.1em 0}"
    return (
        f"<style>{look}</style><div tabindex='0' style='overflow-x: auto; font-size: 0.85em'><table class='claims'>"
        f"<thead><tr>{head}</tr></thead>{''.join(rows)}</table></div>"
    )


BRIEF, BEGIN = (f"<!-- {what}: written by `aligned publish` -->\n" for what in ("in brief", "verdicts"))
END = "<!-- end -->"


def in_readme(readme: str) -> str:
    """A README's text with what the published records say between its two pairs of marks: what was found in brief; and
    in detail, with a table of claims by verdict.

    Raises:
        ValueError: the marks are not there.
    """
    found = {model: findings(model) for model in models()}
    rows = [
        f"| {name} | {claim.statement} | {' | '.join(_told(of[name]) for of in found.values())} |"
        for name, claim in CLAIMS.items()
    ]
    table = "\n".join(
        [f"| | the paper, in our words | {' | '.join(found)} |", "|---|---|" + "---|" * len(found), *rows]
    )
    settings = "\n".join(f"- {setting(model)}" for model in found)
    detail = "\n\n".join((in_short.in_detail(found), table, NOT_EVERY, settings))
    for begin, text in ((BRIEF, in_short.in_brief(found)), (BEGIN, detail)):
        before, mark, rest = readme.partition(begin)
        _, end, after = rest.partition(END)
        if not mark or not end:
            raise ValueError(f"the README holds no {begin.strip()} ... {END}")
        readme = f"{before}{mark}{text}\n{end}{after}"
    return readme


def check_checkout(train: bool) -> None:
    """Raise a `NotFound` where nothing could be published: outside a checkout, or, where SAEs are to be trained first,
    by code that runs from no commit."""
    readme = home() / "README.md"
    if not readme.is_file() or BEGIN.encode() not in readme.read_bytes():
        raise NotFound(
            f"`aligned publish` writes into a checkout of this project, and {home().absolute()} is none: run it in the "
            "top folder of one"
        )
    if train and commit() is None:
        raise NotFound(
            f"`aligned publish --train` trains by committed code, and {Path(__file__).parents[1]} is in no git "
            "checkout: run `make setup` in a clone, and there `.venv/bin/aligned`"
        )


def write_in_readme() -> None:
    """Write the verdicts of the published records into the README of this checkout."""
    place = home() / "README.md"
    files.write_text(place, in_readme(place.read_text()))
