"""The figures' one style, and the pictures that several pages share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from aligned.evals.intervals import Interval, interval
from aligned.methods import METHODS
from aligned.report.claims import at_equal_l0, by_l0, label
from aligned.training.loop import SCORES

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars are text here


WIDTH = 7.4  # inches: the width of the book's text, so that letters keep their size


def panels(
    names: Iterable[Any], rows: int = 1, height: float = 2.6, across: int = 2, sharey: bool = True
) -> Iterator[tuple[Any, list[Axes]]]:
    """A figure with some panels for each name, one below the other; `across` names stand side by side. Without names
    there is no figure.

    Args:
        names: what is shown, each the title of its first panel (a tuple is joined by commas).
        rows: panels a name.
        height: of a panel, in inches.
        across: names beside each other.
        sharey: whether panels of one kind share their vertical axis.

    Yields:
        Each name with its panels, from the top down.
    """
    import matplotlib.pyplot as plt

    names = list(names)
    if not names:
        return
    blocks = -(-len(names) // across)
    size = (WIDTH, height * rows * blocks)
    figure, axes = plt.subplots(rows * blocks, across, figsize=size, squeeze=False, layout="constrained")
    for i in range(blocks * across):
        of = [axes[rows * (i // across) + row, i % across] for row in range(rows)]
        if i >= len(names):
            for ax in of:
                ax.axis("off")
            continue
        for ax, first in zip(of, axes[:rows, 0]):
            if sharey and ax is not first:
                ax.sharey(first)
        parts = names[i] if isinstance(names[i], tuple) else (names[i],)
        of[0].set_title(", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts))
        yield names[i], of
        if i % across:
            for ax in of:
                ax.set_ylabel("")
    _move_apart(figure)


def nothing(of: str) -> None:
    """In the place of a figure of which no record is published yet: words that say so."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(WIDTH, 1))
    ax.axis("off")
    ax.text(0.5, 0.5, f"No record of {of} is published yet.", ha="center", va="center")


def names(ax: Axes, arms: Iterable[str], high: bool = True) -> None:
    """What the arms are called, each in its colour, one under the other in a left corner."""
    arms = list(arms)
    for i, arm in enumerate(arms):
        down = -4 - 13 * i if high else 4 + 13 * (len(arms) - 1 - i)
        ax.annotate(
            label(arm), (0.03, float(high)), xytext=(0, down), xycoords="axes fraction", textcoords="offset points",
            color=COLOURS[arm], weight="bold", va="top" if high else "bottom",
        )  # fmt: skip


END = "end of a line"  # marks the labels that `_move_apart` moves


def _at_end(ax: Axes, text: str, height: float, colour: str, size: float = 10) -> None:
    """A line's label, right of the panel, at the height at which the line ends."""
    ax.annotate(
        text, (1, height), xytext=(4, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points", label=END,
        color=colour, weight="bold", va="center", fontsize=size,
    )  # fmt: skip


def _move_apart(figure: Figure) -> None:
    """Moves the labels at the ends of lines up and down, as little as will do, so that none lies on another."""
    from matplotlib.text import Annotation
    from scipy.optimize import isotonic_regression

    figure.draw_without_rendering()  # the heights are known only when the panels have their places
    for ax in figure.axes:
        labels = [text for text in ax.texts if isinstance(text, Annotation) and text.get_label() == END]
        labels.sort(key=lambda text: text.xy[1])
        if not labels:
            continue
        at = np.array([ax.get_yaxis_transform().transform(text.xy)[1] for text in labels]) * 72 / figure.dpi
        lines = 1.1 * np.arange(len(labels)) * max(float(text.get_fontsize()) for text in labels)
        for text, up in zip(labels, isotonic_regression(at - lines).x + lines - at):
            text.set_position((text.get_position()[0], up))


def over_l0(ax: Axes, records: pd.DataFrame, metric: str, name: str) -> None:
    """A metric over L0: one point for each run, and one line for each arm, through its mean over seeds, labelled
    directly."""
    means = {
        str(constraint): rows.groupby("sparsity")[["l0", metric]].mean().sort_values("l0")
        for constraint, rows in records.groupby("constraint", sort=False)
    }
    for constraint, mean in means.items():
        colour, rows = COLOURS[constraint], records[records.constraint == constraint]
        ax.scatter(rows.l0, rows[metric], s=14, color=colour, alpha=0.55, linewidths=0)
        ax.plot(mean.l0, mean[metric], color=colour)
        _at_end(ax, label(constraint), mean[metric].iloc[-1], colour)
    _log_l0(ax, records.l0)
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
    _log_l0(ax, records.l0)  # as in `over_l0`, above which it may stand


def effects(ax: Axes, of_arms: pd.Series, name: str) -> None:
    """Differences with their intervals, an arm a row, the first on top; an arm without an `Interval` gets no mark. An
    interval that is many times as wide as the others goes beyond the picture and ends in an arrow there, so that the
    others can be told apart.

    Args:
        ax: where.
        of_arms: an `Interval` for each arm.
        name: of the differences.
    """
    found = {arm: effect for arm, effect in of_arms.items() if isinstance(effect, Interval)}
    ends = [max(abs(effect.low), abs(effect.high)) for effect in found.values()]
    furthest = 1.15 * max((end for end in ends if end <= 5 * np.median(ends)), default=1.0)
    for height, arm in enumerate(of_arms.index):
        if (effect := found.get(arm)) is None:
            continue
        colour = COLOURS[str(arm)]
        shown = np.clip([effect.low, effect.high], -furthest, furthest)
        ax.plot(shown, [height, height], color=colour, linewidth=3, alpha=0.6, solid_capstyle="butt")
        for beyond, edge, mark in ((effect.low < -furthest, -furthest, "<"), (effect.high > furthest, furthest, ">")):
            if beyond:
                ax.plot(edge, height, mark, color=colour, markersize=6, clip_on=False)
        if abs(effect.mean) <= furthest:
            ax.plot(effect.mean, height, "o", color=colour)
    if max(ends, default=0.0) > furthest:
        ax.set_xlim(-furthest, furthest)
    ax.axvline(0, color=COLOURS["none"], linewidth=1)
    ax.set_yticks(range(len(of_arms)), [str(arm) for arm in of_arms.index])
    ax.set_ylim(len(of_arms) - 0.5, -0.5)
    ax.set_xlabel(name)


def over_width(ax: Axes, records: pd.DataFrame, metric: str, name: str) -> None:
    """A metric over the dictionary's width: one line for each arm and sparsity (the mean over seeds), labelled at its
    end."""
    for (constraint, sparsity), rows in records.groupby(["constraint", "sparsity"], sort=False):
        colour, mean = COLOURS[str(constraint)], rows.groupby("d_sae")[metric].mean()
        ax.plot(mean.index, mean, color=colour, marker="o", markersize=4)
        _at_end(ax, f"{label(str(constraint))}, {sparsity:g}", mean.iloc[-1], colour, size=8)
    widths = sorted(records.d_sae.unique())
    ax.set_xscale("log")
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    ax.set_xlabel("width of the dictionary (d_sae)")
    ax.set_ylabel(name)


def onset(axes: Iterable[Axes], tables: dict[str, pd.DataFrame], metric: str) -> None:
    """One map for each arm: rows are activations with their sparsity, columns are settings, and cells show the share.

    Args:
        axes: two.
        tables: by setting, from `aligned.records`, with the metric; what `extremes` holds is shown in the first column.
        metric: a column of shares.
    """
    import pandas as pd
    import seaborn as sns

    first, *_ = tables
    every = pd.concat([t.assign(setting=first if name == "extremes" else name) for name, t in tables.items()])
    every["of"] = every.activation + " " + every.sparsity.map("{:g}".format)
    rows = every.drop_duplicates("of").sort_values(["activation", "sparsity"]).of
    for ax, (arm, of_arm) in zip(axes, every.groupby("constraint", sort=False)):
        cells = of_arm.pivot_table(metric, "of", "setting").reindex(index=rows, columns=dict.fromkeys(every.setting))
        sns.heatmap(cells, ax=ax, vmin=0, vmax=1, cmap="Blues", annot=True, fmt=".2f", cbar=False, linewidths=1,
                    annot_kws={"fontsize": 8})  # fmt: skip
        ax.set_title(label(str(arm)), color=COLOURS[str(arm)])
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.tick_params(axis="y", rotation=0, length=0)
        ax.tick_params(axis="x", rotation=30, length=0)


def scores_over_training(ax: Axes, row: pd.Series) -> None:
    """How one SAE's alignment scores move while it trains: one column for each moment; darker means more features. The
    first and the last bin, which hold whatever lies beyond the others, are left out. Its λ or k is the title.

    Args:
        ax: where.
        row: of `aligned.records(..., measure="scores")`.
    """
    bins, low, high = SCORES
    ax.set_title(f"{'k' if METHODS[row.activation]().counts else 'λ'} = {row.sparsity:g}")
    counts = np.array(row.log_scores, dtype=float).T
    tokens = np.array([0, *row.log_tokens]) / 1e6
    shown = np.log10(np.maximum(counts / counts.sum(0), 1e-4))
    edges = np.linspace(low, high, bins + 1)[1:-1]
    ax.pcolormesh(tokens, edges, shown[1:-1], cmap="Greys", vmin=-4, vmax=0, rasterized=True)
    ax.axhline(1, color=COLOURS["projected"], linewidth=1)
    ax.set_xlabel("million tokens")
    ax.set_ylabel("alignment score")


def shares_of_scores(ax: Axes, table: pd.DataFrame) -> None:
    """Alignment scores of all features of each arm's SAEs, as shares. The first and the last bin hold whatever lies
    beyond the others; they are hatched, because a high bar there is not a peak, and one with 1 % of the features or
    more says how many these are.

    Args:
        ax: where.
        table: of `aligned.records(..., measure="scores")`.
    """
    bins, low, high = SCORES
    for arm, rows in table.groupby("constraint", sort=False):
        shares, edges = np.mean(list(rows.histogram), axis=0), np.linspace(low, high, bins + 1)
        colour = COLOURS[str(arm)]
        ax.stairs(shares[1:-1], edges[1:-1], fill=True, alpha=0.7, color=colour)
        for end in (slice(0, 1), slice(bins - 1, bins)):
            between = edges[end.start : end.stop + 1]
            ax.stairs(shares[end], between, baseline=1e-4, hatch="/////", edgecolor=colour, alpha=0.7)
            if (share := shares[end].item()) >= 0.01:
                side, at = ("left", between[0]) if end.start == 0 else ("right", between[1])
                ax.annotate(
                    f"{share:.0%}\nbeyond", (at, share), xytext=(0, 3), textcoords="offset points", ha=side,
                    color=colour, fontsize=8,
                )  # fmt: skip
    names(ax, table.constraint.unique())
    ax.set_yscale("log")
    ax.set_ylim(1e-4, 20)  # room for the names, above whatever can be there
    ax.set_yticks([1e-4, 1e-2, 1])
    ax.set_xlabel("alignment score")
    ax.set_ylabel("share of features")


def dead_over_training(ax: Axes, table: pd.DataFrame) -> None:
    """The share of features that have not fired for a fifth of the budget, while training; a line an SAE.

    Args:
        ax: where.
        table: of `aligned.records(..., measure="scores")`.
    """
    for arm, rows in table.groupby("constraint", sort=False):
        for row in rows.itertuples():
            ax.plot(np.array(row.log_tokens) / 1e6, row.log_dead, color=COLOURS[str(arm)], alpha=0.7)
        _at_end(ax, label(str(arm)), np.mean([log[-1] for log in rows.log_dead]), COLOURS[str(arm)])
    ax.set_xlabel("million tokens")
    ax.set_ylabel("share of dead features")


def against_score(ax: Axes, row: pd.Series, metric: str, name: str) -> None:
    """A metric of every alive feature of one SAE over its alignment score, with the line at 1.

    Args:
        ax: where.
        row: of `aligned.records(..., measure="features")`.
        metric: `mcs` or `f1`.
        name: of the metric, for the axis.
    """
    alive = np.array(row.density) > 0
    x, y = np.array(row.score)[alive], np.array(row[metric])[alive]
    ax.scatter(x, y, s=5, alpha=0.4, linewidths=0, color=COLOURS[row.constraint], rasterized=True)
    ax.axvline(1, color=COLOURS["projected"], linewidth=1)
    ax.set_xlabel("alignment score")
    ax.set_ylabel(name)


def convergence(ax: Axes, table: pd.DataFrame) -> None:
    """What two seeds have in common while they train: the mean over pairs of seeds, a line an arm; the dashed line is
    of cosines after the dictionary's mean row was subtracted.

    Args:
        ax: where.
        table: of `aligned.records(..., measure="convergence")`.
    """
    for arm, rows in table.groupby("constraint", sort=False):
        tokens = np.array(rows.moments.iloc[0]) * rows.batch.iloc[0] / 1e6
        for metric, dashes in (("pw_mcc", "-"), ("pw_mcc_centred", "--")):
            mean = np.mean(list(rows[metric]), axis=0)
            ax.plot(tokens, mean, color=COLOURS[str(arm)], linestyle=dashes, marker="o", markersize=3)
    ax.set_xscale("symlog", linthresh=float(tokens[1]))
    ax.set_xticks(tokens, [f"{t:.2g}" for t in tokens], fontsize=8)
    ax.minorticks_off()
    ax.set_xlabel("million tokens")
    ax.set_ylabel("PW-MCC, all features")
    names(ax, table.constraint.unique())


def accuracy_over_k(ax: Axes, tables: dict[str, pd.DataFrame]) -> None:
    """Accuracy of k-sparse probes over k, mean over attributes, with its interval over seeds, a line an arm; dotted,
    that of probes on all dimensions of the activations.

    Args:
        ax: where.
        tables: for each arm, the rows of `aligned.records(..., measure="probing")`.
    """
    for arm, rows in tables.items():
        each = [
            dict(zip(("k", "accuracy", "full"), map(np.array, row))) for row in zip(rows.k, rows.accuracy, rows.full)
        ]
        ks = np.unique(each[0]["k"])
        of_seeds = np.array([[seed["accuracy"][seed["k"] == k].mean() for k in ks] for seed in each])
        ax.plot(ks, of_seeds.mean(0), color=COLOURS[arm], marker="o", markersize=4)
        if len(of_seeds) > 1:
            found = [interval(values) for values in of_seeds.T]
            ax.fill_between(ks, [i.low for i in found], [i.high for i in found], color=COLOURS[arm], alpha=0.18, lw=0)
        ax.axhline(np.mean([seed["full"].mean() for seed in each]), color="0.4", linewidth=1, linestyle=":")
    ax.set_xscale("log")
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
    ax.set_xlabel("features that the probe may use (m)")
    names(ax, tables, high=False)


def scr_over_n(ax: Axes, tables: dict[str, pd.DataFrame], direction: str) -> None:
    """SCR over the number of ablated features, with its interval over seeds, a line an arm.

    Args:
        ax: where.
        tables: for each arm, of `aligned.evals.spurious.intervals_over_seeds`.
        direction: `harder`, `both`, `a` or `b`.
    """
    for arm, table in tables.items():
        rows = table[table.direction == direction]
        ax.plot(rows.n, rows.scr, color=COLOURS[arm], marker="o", markersize=4)
        ax.fill_between(rows.n, rows.low, rows.high, color=COLOURS[arm], alpha=0.18, linewidth=0)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(rows.n, [str(n) for n in rows.n])
    ax.minorticks_off()
    ax.set_xlabel("features taken out")
    ax.set_ylabel("SCR")
    names(ax, tables, high=False)


def _log_l0(ax: Axes, values: pd.Series) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    ax.set_xscale("log")
    low, high = values.min() * 0.8, values.max() * 1.25
    ticks = [m * 10**e for e in range(-1, 5) for m in ((1, 2, 5) if high < 20 * low else (1, 3))]
    ax.xaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    ax.set_xlim(low, high)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("L0 (active features per token)")


def inline_svg(figure: Figure) -> HTML:
    """A figure as HTML, for `glue` to carry to another page."""
    from io import StringIO

    from IPython.display import HTML

    drawn = StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]  # without the XML header
    return HTML(f'<div style="text-align: center">{svg}</div>')


def step_times(axes: Iterable[Axes], record: dict[str, Any]) -> None:
    """One panel for each shape; in it one row for each activation and one mark for each arm, at the milliseconds of a
    training step. The standard arm and the floor stand where the steps that were timed in turns put them beside the
    aligned arm: alone, each was timed at another moment, and the machine's other work moves it more than arms differ.
    """
    import pandas as pd
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    from aligned.report.cost import in_turns

    rows = pd.DataFrame(record["rows"])
    rows = rows[~rows.arm.str.contains(r"\+")]
    activations = list(rows.activation.unique())
    turns = {arm: in_turns(record, arm).set_index(["shape", "activation"]).cost for arm in ("standard", "floor")}
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
            if arm in turns and shape in turns[arm]:
                beside = panel[panel.arm == "aligned"].set_index("activation").seconds / (1 + turns[arm][shape])
                best = beside.dropna()
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
