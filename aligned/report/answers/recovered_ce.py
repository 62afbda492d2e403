"""Where aligned SAEs recover more cross-entropy than standard ones, and where less."""

from __future__ import annotations

from aligned.checks import listed
from aligned.report.answers.words import became
from aligned.report.rules import Finding


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
