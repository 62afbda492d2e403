"""What a difference is called: the words that the other files share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aligned.evals.intervals import Interval, interval
from aligned.report import claims
from aligned.report.rules import Least

if TYPE_CHECKING:
    import pandas as pd


LEASTS = {"ce_recovered": claims.RECOVERED, "alive": claims.ALIVE}  # of the measures that pages compare arms by


def became(effect: Interval | str, least: Least) -> str:
    """What an interval says of a difference, in a word or two. A reason in its place says that there is none."""
    if isinstance(effect, str):
        return "not comparable"
    if -least.size < effect.low and effect.high < least.size:
        return f"the same within {least.size:g}"
    if effect.low <= 0 <= effect.high:
        return "open"
    return "more" if effect.low > 0 else "less"


def short(effects: pd.DataFrame) -> pd.DataFrame:
    """A table of `aligned.report.claims.effects`, with names for readers, and with two words in the place of a reason
    (see `reasons`)."""
    why = effects.map(lambda of: isinstance(of, str) and of != claims.NO_RECORD)
    return effects.mask(why, "not comparable").rename(columns={"ce_recovered": "CE recovered", "alive": "share alive"})


def reasons(effects: pd.DataFrame) -> str:
    """Why arms can't be compared, where `short` says that they can't: a list in Markdown."""
    rows = {name if isinstance(name, str) else ", ".join(name): of for name, of in effects.iterrows()}
    why = {name: next((of for of in row if isinstance(of, str)), claims.NO_RECORD) for name, row in rows.items()}
    return "\n".join(
        f"- {name}: not comparable, since {said}" for name, said in why.items() if said != claims.NO_RECORD
    )


def gone(before: pd.DataFrame, after: pd.DataFrame, metric: str, arms: tuple[str, str]) -> str:
    """The share of a difference between two arms that is gone in another setting of both, with its 95 % interval over
    seeds.

    Args:
        before, after: records in the two settings.
        metric, arms: as for `aligned.report.claims.at_equal_l0`.
    """
    was, is_now = (claims.at_equal_l0(of, metric, arms).groupby("seed").difference.mean() for of in (before, after))
    share = interval((1 - is_now / was).dropna().to_numpy())
    return f"{share.mean:.0%} [{share.low:.0%}, {share.high:.0%}]"


def in_words(tables: Mapping[str, pd.DataFrame], metric: str, arms: tuple[str, str]) -> str:
    """The difference between two arms in each table, in a word and a number: a list in Markdown.

    Args:
        tables: records, by what the list is to call them.
        metric, arms: as for `aligned.report.claims.at_equal_l0`; the metric is one of `LEASTS`.
    """
    lines = []
    for name, records in tables.items():
        try:
            effect = claims.difference(records, metric, arms)
            lines.append(f"- {name}: {became(effect, LEASTS[metric])}, {effect}")
        except ValueError as error:
            lines.append(f"- {name}: can't be said ({error})")
    return "\n".join(lines)


def seed_by_seed(records: pd.DataFrame, metric: str, arms: tuple[str, str]) -> str:
    """The differences of the single seeds, and which one ran away: it is over ten times as far from the median as any
    other.

    Args:
        records, metric, arms: as for `aligned.report.claims.at_equal_l0`.
    """
    means = claims.at_equal_l0(records, metric, arms).groupby("seed").difference.mean()
    each = f"seed by seed {', '.join(f'{mean:+.4f}' for mean in means)}"
    far = (means - means.median()).abs().sort_values()
    if len(far) < claims.SEEDS or far.iloc[-1] <= 10 * far.iloc[-2]:
        return each
    return f"{each}; of these, seed {far.index[-1]} ran away"
