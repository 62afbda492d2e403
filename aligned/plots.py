"""The figures' one style, and the pictures that several pages share."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from aligned.claims import at_equal_l0, by_l0

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

# One colour an arm, the same on every page; Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    "none": "#D55E00",
    "projected": "#0072B2",
    "householder": "#56B4E9",
    "rescaled": "#009E73",
    "detached": "#CC79A7",
    "tied": "#E69F00",
    "soft": "#000000",
    "post_step": "#8C6D31",
}
LABELS = {"none": "standard", "projected": "aligned"}


def label(constraint: str) -> str:
    """What an arm is called in a figure."""
    return LABELS.get(constraint, f"aligned ({constraint})" if constraint in COLOURS else constraint)


def style() -> None:
    """Call once in a notebook: seaborn's quiet theme, vector output on white, so that it reads in light and dark."""
    import seaborn as sns
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "figure.figsize": (7.2, 4.2),
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "svg.hashsalt": "aligned",  # equal figures are equal files
            "svg.fonttype": "none",
        },
    )
    set_matplotlib_formats("svg", metadata={"Date": None})


def over_l0(ax: Axes, records: pd.DataFrame, metric: str, name: str) -> None:
    """A metric over L0: a point a run, a line through each arm's mean over seeds, labelled directly."""
    means = {
        str(constraint): rows.groupby("sparsity")[["l0", metric]].mean().sort_values("l0")
        for constraint, rows in records.groupby("constraint", sort=False)
    }
    widest = max(means, key=lambda constraint: means[constraint].l0.iloc[-1])
    rising = all(mean[metric].iloc[-1] > mean[metric].iloc[0] for mean in means.values())
    for constraint, mean in means.items():
        colour, rows = COLOURS[constraint], records[records.constraint == constraint]
        ax.scatter(rows.l0, rows[metric], s=14, color=colour, alpha=0.55, linewidths=0)
        ax.plot(mean.l0, mean[metric], color=colour)
        ax.annotate(
            label(constraint),
            (mean.l0.iloc[-1], mean[metric].iloc[-1]),
            xytext=(6, -3) if constraint == widest else (8, -12 if rising else 8),  # clear of the longer line
            textcoords="offset points",
            color=colour,
            weight="bold",
        )
    _log_l0(ax, records.l0)
    ax.set_xlim(right=2.5 * records.l0.max())  # room for the labels
    ax.set_ylabel(name)


def difference_over_l0(ax: Axes, records: pd.DataFrame, metric: str, name: str, constraint: str) -> None:
    """Aligned minus standard at equal L0: mean over seeds with its 95 % band, and each seed's line."""
    ax.set_ylabel(name)
    try:
        table = at_equal_l0(records, metric, ("none", constraint))
    except ValueError as error:
        ax.text(0.5, 0.5, fill(str(error), 32), ha="center", va="center", transform=ax.transAxes)
        return
    for _, rows in table.groupby("seed"):
        ax.plot(rows.l0, rows.difference, color=COLOURS[constraint], alpha=0.35, linewidth=0.9)
    if table.seed.nunique() > 1:
        l0, effects = zip(*by_l0(table))
        low, high = [e.low for e in effects], [e.high for e in effects]
        ax.plot(l0, [e.mean for e in effects], color=COLOURS[constraint])
        ax.fill_between(l0, low, high, color=COLOURS[constraint], alpha=0.18, linewidth=0)
    ax.axhline(0, color=COLOURS["none"], linewidth=1)
    _log_l0(ax, table.l0)


def score_histogram(ax: Axes, scores: dict[str, list[Tensor]]) -> None:
    """Alignment scores of all features of an arm's SAEs, as shares; scores under -0.5 or over 1.5 count at the ends."""
    import torch

    for arm, of_arm in scores.items():
        every = torch.cat(of_arm).clamp(-0.5, 1.5).numpy()
        counts, edges = np.histogram(every, 81, (-0.5125, 1.5125))
        ax.stairs(counts / len(every), edges, fill=True, alpha=0.7, color=COLOURS[arm], label=label(arm))
    ax.set_yscale("log")
    ax.set_xlabel("alignment score")
    ax.set_ylabel("share of features")
    ax.legend(frameon=False)


def scr_over_n(ax: Axes, tables: dict[str, pd.DataFrame], direction: str) -> None:
    """SCR over the number of ablated features, with its interval over seeds, a line an arm.

    Args:
        ax: where.
        tables: for each arm, of `aligned.evals.scr.intervals_over_seeds`.
        direction: `harder`, `both`, `a` or `b`.
    """
    for arm, table in tables.items():
        rows = table[table.direction == direction]
        ax.plot(rows.n, rows.scr, color=COLOURS[arm], marker="o", markersize=4, label=label(arm))
        ax.fill_between(rows.n, rows.low, rows.high, color=COLOURS[arm], alpha=0.18, linewidth=0)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(rows.n, [str(n) for n in rows.n])
    ax.minorticks_off()
    ax.set_xlabel("features taken out")
    ax.set_ylabel("SCR")
    ax.legend(frameon=False)


def _log_l0(ax: Axes, values: pd.Series) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    ax.set_xscale("log")
    ticks = [m * 10**e for e in range(-1, 5) for m in (1, 2, 5)]
    ax.xaxis.set_major_locator(FixedLocator([t for t in ticks if values.min() * 0.8 <= t <= values.max() * 1.25]))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("L0 (active features per token, held-out text)")


def inline_svg(figure: Figure) -> HTML:
    """A figure as HTML, for `glue` to carry to another page."""
    from io import StringIO

    from IPython.display import HTML

    drawn = StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]  # without the XML header
    return HTML(f'<div style="text-align: center">{svg}</div>')


def step_times(axes: Iterable[Axes], record: dict[str, Any]) -> None:
    """A panel a shape: milliseconds of a training step, a row an activation, a mark an arm."""
    import pandas as pd
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    rows = pd.DataFrame(record["rows"])
    rows = rows[~rows.arm.str.contains(r"\+")]
    activations = list(rows.activation.unique())
    for ax, (shape, panel) in zip(axes, rows.groupby("shape", sort=False)):
        for arm, marker, colour in (
            ("dictionary_learning", "s", "0.55"),
            ("dictionary_learning, autocast", "s", "0.25"),
            ("SAELens", "^", "#E69F00"),
            ("SAELens, fastest", "^", "#8C6D31"),
            ("standard", "o", COLOURS["none"]),
            ("aligned", "o", COLOURS["projected"]),
            ("floor", "|", "black"),
        ):
            found = panel[panel.arm.str.startswith("SAELens") if arm == "SAELens, fastest" else panel.arm == arm]
            best = found.groupby("activation").seconds.min()
            heights = [activations.index(a) + (0.12 if arm == "standard" else 0) for a in best.index]
            ax.scatter(1000 * best, heights, marker=marker, color=colour, s=60 if marker == "|" else 32, label=arm)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_yticks(range(len(activations)), activations)
        ax.set_ylim(len(activations) - 0.5, -0.5)
        ax.set_title(f"{shape}: d_in {panel.d_in.iloc[0]}, d_sae {panel.d_sae.iloc[0]}")
        ax.set_xlabel("ms per step")
        ax.grid(axis="x", color="0.92")
