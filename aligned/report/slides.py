"""The figures and the sentences of the lecture's slides (`make slides`), from the published records.

A figure has one or two panels, and is drawn as wide as the book's text. A slide is more than twice as wide, so that its
letters can be read from the last row of a lecture hall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from aligned.checks import listed
from aligned.evals.intervals import Interval
from aligned.language.model import EMBEDDED
from aligned.report import claims, cost, in_short, low_mode, plots, rerun, results, scorecard
from aligned.report.answers.starts import Starts, of_the_first_step, of_the_start, starts
from aligned.report.parameters import NOTEBOOKS
from aligned.report.published import CONTROLS, REAL
from aligned.report.rules import Finding

if TYPE_CHECKING:
    import pandas as pd

HEIGHT = 2.6  # inches, of a panel
LOW = 2.0  # of one that has more words above and below it
TALLEST = 3.4  # of a figure: a taller one is shown with smaller letters
TWO = (EMBEDDED, REAL[0])  # language models, side by side
ALIGNED = scorecard.ALIGNED
RECOVERED = "CE recovered"


def draw(folder: Path) -> None:
    """Write each figure of the slides as `<its name>.svg`."""
    import matplotlib.pyplot as plt

    plots.style()
    for figure in FIGURES:
        figure()
        place = folder / f"{figure.__name__}.svg"
        plt.gcf().savefig(place, bbox_inches="tight", metadata={"Date": None})
        plt.close()
    rerun.figure(NOTEBOOKS / "geometry.ipynb", "fig-geometry", folder / "geometry.svg")


@cache
def findings() -> dict[str, dict[str, Finding]]:
    """What became of each claim, by language model."""
    return {model: scorecard.findings(model) for model in scorecard.models()}


def bimodality() -> None:
    """How many features have which score, on two models."""
    found = results.facets(["relu"], "scores", TWO)
    for name, (ax,) in plots.panels(found, height=LOW):
        plots.shares_of_scores(ax, found[name])


def recovered() -> None:
    """Both arms, and what is between them."""
    table = results.of_parts(EMBEDDED, "relu")
    (_, (both,)), (_, (between,)) = plots.panels(
        [f"{RECOVERED}, relu, {EMBEDDED}", "aligned − standard, at equal L0"], height=HEIGHT, sharey=False
    )
    plots.over_l0(both, table, "ce_recovered", "")
    plots.difference_over_l0(between, table, "ce_recovered", "", ALIGNED)


def recovered_real() -> None:
    """Both arms, on two real models."""
    found = results.facets(["relu"])
    for name, (ax,) in plots.panels(found, height=HEIGHT, sharey=False):
        plots.over_l0(ax, found[name], "ce_recovered", RECOVERED)


def recovered_topk() -> None:
    """What is between the arms, on two models."""
    found = results.facets(["topk"], models=TWO)
    for name, (ax,) in plots.panels(found, height=HEIGHT):
        plots.difference_over_l0(ax, found[name], "ce_recovered", "aligned − standard", ALIGNED)


def alive_relu() -> None:
    """The share of alive features, on two models."""
    _alive("relu")


def alive_topk() -> None:
    """The same for TopK."""
    _alive("topk")


def _alive(activation: str) -> None:
    found = results.facets([activation], models=TWO)
    for name, (ax,) in plots.panels(found, height=HEIGHT):
        plots.over_l0(ax, found[name], "alive", "share of features alive")


def stability() -> None:
    """Whether seeds agree, for two kinds of SAE; dotted, how much they did before the first step."""
    found = results.facets(["relu", "topk"], "stability", [EMBEDDED])
    for name, (ax,) in plots.panels(found, height=HEIGHT):
        pairs = claims.with_l0(found[name], results.of_parts(EMBEDDED, name[0]))
        plots.over_l0(ax, pairs, "pw_mcc_alive", "PW-MCC, alive features")
        start = pairs.pw_mcc_start.mean()
        ax.axhline(start, color="0.5", linewidth=1, linestyle=":")
        ax.annotate("at the start", (pairs.l0.min(), start), (0, 3), textcoords="offset points", color="0.4")


def scr() -> None:
    """SCR over the number of features, for two kinds of SAE, of each the least lambda or k."""
    from aligned.evals.spurious import intervals_over_seeds

    found = results.facets(["relu", "topk"], "scr", [EMBEDDED], "scr")
    for name, (ax,) in plots.panels(found, height=HEIGHT):
        rows = found[name][found[name].sparsity == found[name].sparsity.min()]
        arms = {
            str(arm): intervals_over_seeds([_of_pairs(row) for _, row in of.iterrows()])
            for arm, of in rows.groupby("constraint", sort=False)
        }
        plots.scr_over_n(ax, arms, "harder")


def _of_pairs(row: pd.Series) -> pd.DataFrame:
    """One SAE's SCR, a row for each pair of attributes and number of features."""
    import pandas as pd

    return pd.DataFrame({column: row[column] for column in ("removed", "n", "scr", "harder", "pair")})


def feature_quality() -> None:
    """Two measures of each feature of one standard SAE over its score."""
    table = results.of_parts(EMBEDDED, "features", measure="features")
    row = table[(table.activation == "relu") & (table.constraint == "none")].iloc[0]
    titles = {"MCS": "mcs", "concept score": "f1"}
    for title, (ax,) in plots.panels(titles, height=LOW, sharey=False):
        plots.against_score(ax, row, titles[title], "")
        ax.set_title(f"{title}, one relu SAE: r = {claims.pearson(row.score, row[titles[title]], row.density):.2f}")


def constraints() -> None:
    """Every way to align, for two kinds of SAE, on one scale; in grey, what is the same within the smallest effect of
    interest."""
    found, axes = _against_standard(), []
    for name, (ax,) in plots.panels([(kind, EMBEDDED) for kind in ("relu", "topk")], height=HEIGHT):
        plots.effects(ax, found.loc[name[0]], f"{RECOVERED}, minus standard")
        axes.append(ax)
    furthest = max(abs(end) for ax in axes for end in ax.get_xlim())
    for ax in axes:
        ax.set_xlim(-furthest, furthest)
        ax.axvspan(-claims.RECOVERED.size, claims.RECOVERED.size, color="0.88", linewidth=0, zorder=0)


def _against_standard() -> pd.DataFrame:
    """The effect of every way to align on CE recovered, against the standard SAE, by kind and arm."""
    return claims.effects(results.of_parts(EMBEDDED, "controls"), [ALIGNED, *CONTROLS]).ce_recovered


def forest() -> None:
    """Every case of every claim, on the real models."""
    import matplotlib.pyplot as plt

    found = {model: of for model, of in findings().items() if model != EMBEDDED}
    rows = scorecard.cases(*found.values())
    size = (plots.WIDTH, min(0.5 + 0.23 * len(rows), TALLEST))
    _, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for ax, (model, of) in zip(axes[0], found.items()):
        scorecard.forest(ax, of, rows)
        ax.set_title(model)
        ax.tick_params(axis="y", labelsize=10)
        loss = [row for row, (name, _) in enumerate(rows) if name == "C11"]
        if loss:  # its claim is of no loss of interest
            ax.plot([-1, -1], [loss[0] - 0.5, loss[-1] + 0.5], color="black", linewidth=1, linestyle=":")


FIGURES = (
    bimodality, recovered, recovered_real, recovered_topk, alive_relu, alive_topk, stability, scr, feature_quality,
    constraints, forest,
)  # fmt: skip


def words() -> dict[str, str]:
    """What the slides say of the records, by the names under which they include it: of each claim its statement
    (`says_C1`) and its verdicts, a line a model (`C1`); of each figure its finding (`found_...`); tables and lists."""
    found = findings()
    start, *of_starts = of_the_start(found).split("\n\n")
    names = list(scorecard.CLAIMS)
    two = {model: found[model] for model in TWO}
    here = {EMBEDDED: found[EMBEDDED]}
    real = {model: of for model, of in found.items() if model != EMBEDDED}
    return {
        **{name: _verdicts(name, found) for name in names},
        **{f"says_{name}": claim.statement for name, claim in scorecard.CLAIMS.items()},
        **{f"C4_{kind}": _of_kind("C4", kind, found) for kind in ("relu", "topk")},
        **{f"asks_{name}": _asks(name, found) for name in ("C1", "C2")},
        "C7_C8": "".join(_verdicts(name, found, f"{name}: ", "; ") for name in ("C7", "C8")),
        "found_bimodality": _low(),
        "valleys": _valleys(),
        "ks": _ks(),
        "found_recovered": _became(here, {"": ("C2", "")}),
        "found_recovered_real": _became(real, {"": ("C2", "")}),
        "found_recovered_topk": _became(two, {"": ("C3", "topk")}),
        "found_alive_relu": _became(two, {"": ("C4", "relu, more alive")}),
        "found_few_dead": _became(found, {"": ("C4", "relu, few dead")}),
        "found_alive_topk": _became(two, {"": ("C4", "topk, more alive")}),
        "stability_start": _stability_start(),
        "found_stability": _became(here, {"for relu": ("C5", "relu"), "for topk": ("C5", "topk")}),
        "found_scr": _became(here, {"for relu": ("C6", "relu"), "for topk": ("C6", "topk")}),
        "found_ranks": _ranks(here[EMBEDDED]),
        "found_feature_quality": _became(
            here, {"MCS, relu:": ("C7", "relu"), "concept score, relu:": ("C8", "relu"), "topk:": ("C8", "topk")}
        ),
        "found_constraints": _soft(),
        "found_same": _same(),
        "least": ", ".join(str(least) for least, *_ in in_short.BRIEF.values()),
        "least_ce": f"{claims.RECOVERED.size:g}",
        "start": start,
        "starts": of_starts[0] if of_starts else "",
        "better_start": of_starts[1] if of_starts else "",
        "first_step": of_the_first_step(map(starts, found)),
        "found_starts": _starts(found),
        **{f"claims_{i + 1}": _table(names[4 * i : 4 * i + 4], found) for i in range(3)},
        "shapes": _shapes(found[EMBEDDED]["C10"]),
        "not_every": scorecard.NOT_EVERY,
        **{state: f"<b style='color: {colour}'>{state}</b>" for state, colour in scorecard.COLOURS.items()},
        "in_list": in_short.in_list(found),
    }


def _short(finding: Finding) -> str:
    return f"<b>{finding.verdict}</b>{finding.short.removeprefix(finding.verdict)}"


def _verdicts(name: str, found: in_short.Found, first: str = "", between: str = "<br>") -> str:
    of_models = between.join(f"{model}: {_short(of[name])}" for model, of in found.items())
    return f"<small>{first}{of_models}</small>"


def _of_kind(name: str, kind: str, found: in_short.Found) -> str:
    """A claim's verdicts, a line a model, and what became of its cases of one kind of SAE."""
    lines = []
    for model, of in found.items():
        cases = ", ".join(
            f"{outcome.name.removeprefix(f'{kind}, ')}: {'the other way round' if outcome.reversed else outcome.state}"
            for outcome in of[name].outcomes
            if outcome.name.startswith(f"{kind}, ")
        )
        lines.append(f"{model}: <b>{of[name].verdict}</b> ({kind}, {cases or 'not published yet'})")
    return f"<small>{'<br>'.join(lines)}</small>"


def _asks(name: str, found: in_short.Found) -> str:
    """When a claim counts as shown, and when as excluded."""
    return next((outcome.asks for of in found.values() for outcome in of[name].outcomes), "not judged yet")


def _shapes(of_cost: Finding) -> str:
    """What the letters in C10's cases stand for."""
    letters = {outcome.name.split()[0] for outcome in of_cost.outcomes}
    sizes = {row["shape"]: row for row in cost.record("cost-cpu")["rows"] if row["shape"] in letters}
    each = (f"{letter}, {row['d_sae']:,} features on {row['d_in']} numbers" for letter, row in sizes.items())
    return f"C10's cases are sizes of an SAE: {'; '.join(each)}."


def _table(names: Iterable[str], found: in_short.Found) -> str:
    head = [f"| | the paper, in our words | {' | '.join(found)} |", "|---|---|" + "---|" * len(found)]
    rows = (
        f"| {name} | {scorecard.CLAIMS[name].statement} | {' | '.join(_short(of[name]) for of in found.values())} |"
        for name in names
    )
    return "\n".join([*head, *rows])


def _became(found: in_short.Found, cases: Mapping[str, tuple[str, str]]) -> str:
    """What became of some cases on some language models, in a sentence.

    Args:
        found: of these models.
        cases: each a claim and the name of its case, by what the sentence is to call it.
    """
    said = [
        f"{called or f'on {model}'} {outcome.says}, {outcome.effect}"
        for model, of in found.items()
        for called, (name, case) in cases.items()
        for outcome in of[name].outcomes
        if outcome.name == case
    ]
    return f"{'; '.join(said) or 'not published yet'}."


def _ranks(found: Mapping[str, Finding]) -> str:
    """C8's correlation of ranks, of ReLU SAEs."""
    return next((str(r) for what, r in found["C8"].beside if what.startswith("relu, correlation")), "not published yet")


def _low() -> str:
    """The share of low scores, of each arm."""
    said = []
    for (activation, model), rows in results.facets(["relu"], "scores", TWO).items():
        low = rows.groupby("constraint", sort=False).below_half.mean()
        each = ", ".join(f"{share:.1%} of {claims.label(str(arm))} features" for arm, share in low.items())
        said.append(f"{each} ({activation}, {model})")
    return f"Scores under 1/2: {'; '.join(said)}."


def _valleys() -> str:
    """In how many standard SAEs there is a low mode."""
    said = []
    for (activation, model), rows in results.facets(["relu"], "scores", TWO).items():
        each = rows[rows.constraint == "none"].histogram.map(low_mode.low_mode)
        said.append(f"in {(each > 0).sum()} of {len(each)} ({activation}, {model})")
    return f"Of the standard SAEs there is a low mode {', '.join(said) or 'in none that is published'}."


def _ks() -> str:
    """The k of TopK SAEs that were trained, by language model."""
    found = results.facets(["topk"], models=TWO)
    return "; ".join(
        f"{listed(f'{k:g}' for k in sorted(rows.sparsity.unique()))} on {name[1]}" for name, rows in found.items()
    )


def _stability_start() -> str:
    """How much seeds agree before the first step."""
    found = results.facets(["relu", "topk"], "stability", [EMBEDDED])
    return ", ".join(f"{rows.pw_mcc_start.mean():.2f} ({name[0]})" for name, rows in found.items())


def _starts(models: Iterable[str]) -> str:
    """On which models the start matters, and what C2's rule says of the other start."""
    known = [of for of in map(starts, models) if isinstance(of, Starts)]
    if not known:
        return "Not published yet."
    matters = [of.model for of in known if of.matters]
    rules = ", ".join(f"<b>{of.more}</b> on {of.model}" for of in known)
    does = f"It does on {listed(matters)}" if matters else "It is not shown to"
    return f"{does}. C2 (more cross-entropy), asked of SAEs from rows of norm 1: {rules}."


def _soft() -> str:
    """How the penalty compares with the constraint."""
    table = results.of_parts(EMBEDDED, "controls")
    found = claims.effects(table, ["soft"], ALIGNED).ce_recovered.droplevel("arm").sort_index()
    each = ", ".join(f"{effect} ({activation})" for activation, effect in found.items())
    return f"`soft` minus `{ALIGNED}`, on {EMBEDDED}: {each}."


def _same() -> str:
    """Which ways to align are the same as the standard SAE within the smallest effect of interest."""
    least, said = claims.RECOVERED.size, []
    for kind, effects in _against_standard().groupby(level="activation"):
        known = {str(arm): of for (_, arm), of in effects.items() if isinstance(of, Interval)}
        same = [arm for arm, of in known.items() if -least < of.low and of.high < least]
        few = ", ".join(f"`{arm}`" for arm in same) or "none"
        said.append(f"{'all' if len(same) == len(known) else few} ({kind})")
    return f"The same as standard within {least:g}: {'; '.join(said)}."
