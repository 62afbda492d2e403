"""What a page asks `aligned.records` for, known before it runs: of which SAEs, which measure, on how much text.

A page's cells ask for the same; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from aligned.report.claims import SEEDS
from aligned.report.results import NothingPublished, foreseen
from aligned.spec import RunSpec, grid, kinds, variants

PAGES = (
    "bimodality",
    "recovered_ce",
    "dead_features",
    "stability",
    "scr",
    "feature_quality",
    "features",
    "weight_tying",
    "is_it_the_constraint",
)


OF_THEIR_OWN = {  # pages that train by rules of their own
    "own_work": "an SAE that SAELens trains anew each time, and one that is trained unless the store has it",
    "write_it_yourself": "small SAEs of made-up data, which take seconds",
}


@dataclass(frozen=True)
class Wanted:
    """A measure of some SAEs.

    Attributes:
        specs: of the SAEs.
        measure: one of `aligned.report.measures.MEASURES`.
        size: of the text, as `aligned.records` takes it.
        needed: whether the page can't be drawn without one of them.
    """

    specs: list[RunSpec]
    measure: str
    size: int
    needed: bool = True


def wanted(page: str, p: Mapping[str, Any]) -> list[Wanted]:
    """What a page asks for; nothing, if it is not one of `PAGES`.

    Args:
        page: the notebook's name.
        p: the page's parameters, all of them (`aligned.report.parameters.parameters`, a preset's written over them).
    """
    if page not in PAGES:
        return []
    spec = _spec(p)
    pair = {"seed": p["seeds"], "constraint": list(dict.fromkeys(["none", p["constraint"]]))}
    every = pair | {"constraint": list(dict.fromkeys([*pair["constraint"], *p.get("controls", [])]))}
    base = kinds(spec, p["activations"], p["penalties"], p["ks"], **every)

    def others(of: Iterable[RunSpec]) -> list[RunSpec]:
        """At the sparsities of which a page asks where something else is changed."""
        few = (p["other_activations"], p["other_penalties"], p["other_ks"])
        return [s for changed in of for s in kinds(changed, *few, **pair)]

    def settings() -> list[RunSpec]:
        return list(variants(spec, p["settings"]).values())

    if page in ("recovered_ce", "dead_features"):
        widths = others([spec, *(replace(spec, d_sae=width) for width in p["other_widths"])])
        of_text = [Wanted(base, "recovery", p["eval_tokens"]), Wanted(widths, "recovery", p["eval_tokens"])]
    if page in ("bimodality", "dead_features"):
        extremes = kinds(spec, p["other_activations"], p["extreme_penalties"], p["extreme_ks"], **pair)
        scores = Wanted([*base, *extremes, *others(settings())], "scores", 1)
    match page:
        case "bimodality":
            return [scores]
        case "dead_features":
            return [*of_text, scores]
        case "recovered_ce":
            budgets = [spec, *variants(spec, p["budgets"]).values()]
            of_relu = [s for changed in budgets for s in kinds(changed, ["relu"], p["other_penalties"], [], **pair)]
            rates = {"seed": p["seeds"], "constraint": ["none"], "lr": p["rates"]}
            first = (p["other_activations"], p["other_penalties"][:1], p["other_ks"][:1])
            searched = kinds(replace(spec, tokens=p["rate_tokens"]), *first, **rates)
            before = [
                s
                for changed in variants(spec, p["earlier"]).values()
                for s in kinds(changed, p["other_activations"], p["penalties"], p["ks"], **pair)
            ]
            beside = Wanted([*of_relu, *searched], "recovery", p["read_tokens"], needed=False)
            return [*of_text, beside, Wanted(before, "recovery", p["eval_tokens"], needed=False)]
        case "stability":
            watched = kinds(spec, p["activations"], p["watched_penalties"], p["watched_ks"], **pair)
            return [
                Wanted(base, "recovery", p["eval_tokens"]),
                Wanted(base, "stability", p["read_tokens"]),
                Wanted(watched, "convergence", 1, needed=False),
            ]
        case "scr":
            return [
                Wanted(base, "recovery", p["eval_tokens"]),
                Wanted(base, "scr", p["windows"]),
                Wanted(base, "probing", p["probed"], needed=False),
            ]
        case "feature_quality":
            contexts = Wanted(base, "contexts", p["read_tokens"], needed=False)
            return [Wanted(base, "features", p["read_tokens"]), contexts]
        case "features":
            two = [s for s in base if s.seed in p["seeds"][:2]]
            return [Wanted(two, "browser", p["eval_tokens"], needed=False)]
        case "weight_tying":
            return [Wanted(base, "recovery", p["eval_tokens"])]

    def concerned(of: RunSpec) -> list[str]:
        """Another start is one of ReLU SAEs alone."""
        return [a for a in p["activations"] if of.init == spec.init or a in ("relu", "p_anneal")]

    changed = [s for of in settings() for s in kinds(of, concerned(of), p["penalties"], p["ks"], **pair)]
    first_two = kinds(spec, p["activations"], p["penalties"][:1], p["ks"][:1], **pair)
    return [
        Wanted(base, "recovery", p["eval_tokens"]),
        Wanted(changed, "recovery", p["eval_tokens"], needed=False),
        Wanted(first_two, "behaviour", p["read_tokens"], needed=False),
    ]


def _spec(p: Mapping[str, Any]) -> RunSpec:
    return RunSpec(
        **{field.name: p[field.name] for field in fields(RunSpec) if field.name in p and field.name != "seed"}
    )


def _of_a_measure(page: str, p: Mapping[str, Any]) -> list[RunSpec]:
    """The SAEs of a page below "The measures", which opens or trains them."""
    if not page.startswith("measure_") or "sparsity" not in p:
        return []
    return grid(_spec(p), constraint=["none", p["constraint"]], seed=p.get("seeds", [p.get("seed", 0)]))


def asked(page: str, p: Mapping[str, Any]) -> list[RunSpec]:
    """The SAEs of a page.

    Args:
        page, p: as for `wanted`.
    """
    return list(dict.fromkeys(spec for of in wanted(page, p) for spec in of.specs))


def to_train(page: str, p: Mapping[str, Any]) -> list[RunSpec]:
    """The SAEs that a page trains: those that are neither published, nor planned, nor in the store.

    Args:
        page, p: as for `wanted`.
    """
    from aligned.store.runs import folders

    here = _of_a_measure(page, p) or [spec for _, state in _foreseen(page, p) for spec in state["here"]]
    there = {folder.name for folder in folders()}
    return list(dict.fromkeys(spec for spec in here if spec.name not in there))


def ahead(page: str, p: Mapping[str, Any]) -> str:
    """What a page still has to do, in a line: how many SAEs it asks for, how many of them are published, or planned and
    left out, or in the store, how many it trains, and in about what time by `cost-cpu`, the record of two cores; and
    how long measuring takes. "" for a page that asks for none.

    Args:
        page, p: as for `wanted`.
    """
    from aligned.report import cost

    coming = _foreseen(page, p)
    states = [state for _, state in coming]
    if opened := _of_a_measure(page, p):
        states = [{"published": set(), "left": set(), "here": set(opened)}]
    if not states:
        return OF_THEIR_OWN.get(page, "")
    taken, left, here = ({spec for state in states for spec in state[name]} for name in ("published", "left", "here"))
    missing = to_train(page, p)
    line = f"{len(taken | left | here)} SAEs: {len(taken - left - here)} published"
    if part := len((taken & left) - here):
        line += f", {part} with some of their measures alone"
    line += f", {len(here) - len(missing)} in the store"
    if later := len(left - taken - here):
        line += f", {later} planned and left out until they are published"
    line += f"; {len(missing)} to train"
    if missing:
        line += cost.in_about(missing)
    to_measure = {of.measure for of, state in coming if state["to_measure"]}
    recovered = {(s, of.size) for of, state in coming if of.measure == "recovery" for s in state["to_measure"]}
    line += cost.measuring(p["model"], recovered, bool(to_measure - {"recovery", "scores"}))
    if len(p.get("seeds", range(SEEDS))) < SEEDS:
        line += f" (claims are judged from {SEEDS} seeds on)"
    return line


def check_published(page: str, p: Mapping[str, Any]) -> None:
    """Raise `NothingPublished` for a page that can't be drawn, since nothing is published of a measure that it needs.

    Args:
        page, p: as for `wanted`.
    """
    for of, state in _foreseen(page, p):
        if of.needed and state["left"] and not state["published"] and not state["here"]:
            raise NothingPublished(
                f"{page}: nothing of its {len(state['left'])} SAEs is published yet ({of.measure}): "
                "-p use_published False trains and measures them here"
            )


def only_drawn(page: str, p: Mapping[str, Any]) -> bool:
    """Whether a page needs neither the language model nor its text, since all that it shows is published."""
    of = _foreseen(page, p)
    return bool(of) and not any(state["here"] for _, state in of)


def _foreseen(page: str, p: Mapping[str, Any]) -> list[tuple[Wanted, dict[str, set[RunSpec]]]]:
    """What a page asks for, each with what `aligned.records` would do."""
    return [(of, foreseen(of.specs, of.size, of.measure, p["use_published"])) for of in wanted(page, p)]
