"""Where aligned SAEs recover more cross-entropy than standard ones, and where less."""

from __future__ import annotations

from collections.abc import Sequence

from aligned.checks import listed
from aligned.report import claims, results
from aligned.report.answers.words import LEASTS, became, seed_by_seed
from aligned.report.rules import Finding
from aligned.spec import RunSpec


def over_widths(finding: Finding) -> str:
    """At which widths CE recovered of aligned SAEs is more, less or the same, by C12's cases; nothing where there are
    none.

    Args:
        finding: `aligned.report.claims.holds_everywhere`.
    """
    of: dict[str, dict[str, list[str]]] = {}
    for outcome in finding.outcomes:
        activation, width = outcome.name.split(", ")
        of.setdefault(activation, {}).setdefault(became(outcome.effect, outcome.least), []).append(width)
    lines = []
    for activation, found in of.items():
        alone = " alone" if len(found) > 1 else ""
        each = [
            f"{word} at width {listed(widths)}{alone if word in ('more', 'less') and len(widths) == 1 else ''}"
            for word, widths in sorted(found.items())
        ]
        lines.append(f"{activation} {', '.join(each)}")
    return (
        f"**At which width?** CE recovered of aligned SAEs beside standard ones: {'; '.join(lines)}." if lines else ""
    )


def of_published(specs: Sequence[RunSpec], tokens: int, arms: tuple[str, str]) -> str:
    """The difference between two arms in CE recovered, and in the share of alive features, in a number and a word each;
    CE recovered seed by seed where it is open. Why, where it can't be said.

    Args:
        specs: of SAEs of one kind, of which the published ones are compared.
        tokens: of held-out text, that they were measured on.
        arms: as for `aligned.report.claims.at_equal_l0`.
    """
    try:
        records = results.drawn(specs, tokens, "recovery")
        recovered, alive = (claims.difference(records, metric, arms) for metric in LEASTS)
    except ValueError as error:
        return f"can't be said yet ({error})"
    word = became(recovered, claims.RECOVERED)
    if word == "open":
        word = f"open: {seed_by_seed(records, 'ce_recovered', arms)}"
    return f"{recovered} in CE recovered ({word}), {alive} in the share alive ({became(alive, claims.ALIVE)})"
