"""The SAEs that the book's numbers rest on, and what is measured of them.

    aligned publish --train                 # trains and measures what the store does not have yet: a night
    aligned publish --train topk scr        # parts of it, by name; several processes may share the work
    aligned publish --train gemma-3-270m    # those of another language model; parts of it may follow
    aligned publish                         # only writes the records of the store to results/

The figures ask for these specs, and are drawn from their published records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aligned.language.model import EMBEDDED
from aligned.spec import RunSpec, kinds

ARMS = ("none", "projected")
CONTROLS = ("tied", "soft", "post_step", "detached", "rescaled", "householder")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Part:
    """Some SAEs, and the measures of them with their sizes."""

    specs: list[RunSpec]
    measures: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Plan:
    """What is published of one language model.

    Attributes:
        parts: by name. A name means the same in every plan, and a plan may lack some.
        recovery: tokens of held-out text, for the grid's CE recovered.
        quick: the same for controls.
    """

    parts: dict[str, Part]
    recovery: int
    quick: int

    @property
    def specs(self) -> list[RunSpec]:
        """Each SAE once."""
        return list(dict.fromkeys(spec for part in self.parts.values() for spec in part.specs))


RECOVERY, READ, WINDOWS = 1_048_576, 262_144, 4000  # tokens of held-out text, of two sizes; windows of code
PROBED = 1000  # windows of code, for k-sparse probing
SPEC = RunSpec(model=EMBEDDED, layer=3, d_sae=2048, tokens=10_000_000, lr=1e-2, init="small")
LAMBDA, K = (0.05, 0.1, 0.16, 0.25), (8, 16, 32, 64)
# two sparsities, for all that is compared beside the grid
FEW: dict[str, tuple[float, ...]] = {"penalties": (0.1, 0.25), "ks": (16, 64)}
_GRID = (("recovery", RECOVERY), ("scores", 1))
_QUICK = (("recovery", READ), ("scores", 1))


def _of(*activations, spec=SPEC, penalties=LAMBDA, ks=K, constraints=ARMS, **fields) -> list[RunSpec]:  # type: ignore[no-untyped-def]
    return kinds(replace(spec, **fields), activations, penalties, ks, seed=SEEDS, constraint=constraints)


BUDGETS: list[dict[str, Any]] = [{"tokens": 4_000_000}, {"lr": 1e-3}, {"lr": 3e-2}]
RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # `SPEC.lr` was chosen among them, on standard SAEs alone
_FIRST: dict[str, Any] = {"penalties": (0.1,), "ks": (16,)}
PARTS = {
    "topk": Part(_of("topk"), (*_GRID, ("stability", READ))),
    "relu": Part(_of("relu"), (*_GRID, ("stability", READ))),
    "batchtopk": Part(_of("batchtopk"), _GRID),
    "p_anneal": Part(_of("p_anneal"), _GRID),
    "narrow": Part(_of("topk", "relu", d_sae=512, **FEW), _GRID),
    "wide": Part(_of("topk", "relu", d_sae=8192, **FEW), _GRID),
    "controls": Part(_of("topk", "relu", constraints=(*ARMS, *CONTROLS), **FEW), _QUICK),
    "unit": Part(_of("relu", init="unit", **FEW), _QUICK),  # is it the start?
    "first_step": Part(  # or the small start's first step?
        _of("relu", init="small_encoder", **FEW), (*_QUICK, ("stability", READ))
    ),
    "centred": Part(_of("topk", "relu", center=True, **FEW), _QUICK),  # or the mean?
    "budgets": Part([s for change in BUDGETS for s in _of("relu", **change, **FEW)], _QUICK),
    "rates": Part(
        [s for r in RATES for s in _of("topk", "relu", constraints=("none",), tokens=4_000_000, lr=r, **_FIRST)], _QUICK
    ),
    # the grid that was trained, and seen, before SPEC.lr was chosen
    "earlier": Part(_of("topk", "relu", lr=1e-3), (("recovery", RECOVERY),)),
    "extremes": Part(_of("topk", "relu", penalties=(0.5, 1.0), ks=(2, 4)), (("scores", 1),)),
    "features": Part(
        _of("topk", "relu", **_FIRST),
        (("features", READ), ("behaviour", READ), ("contexts", READ), ("convergence", 1)),
    ),
    "browser": Part([s for s in _of("topk", "relu", **_FIRST) if s.seed < 2], (("browser", READ),)),
    "scr": Part(_of("topk", "relu", **FEW), (("scr", WINDOWS), ("probing", PROBED))),
}


def _real(
    model: str,
    layer: int,
    penalties: tuple[float, ...],
    lr: float,
    rates: tuple[float, ...],
    earlier: float,
) -> Plan:
    """What is published of a real model: fewer SAEs, of fewer tokens, since all of it costs more.

    Args:
        model: one of `aligned.language.wheels.MODELS`.
        layer: whose residual stream.
        penalties: three, for ReLU. `features` uses the middle one, `behaviour` the first; the comparisons outside the
            grid use the other two.
        lr: chosen among `rates`, on standard SAEs alone.
        earlier: a rate at which the grid was trained, and seen, before `lr` was chosen.
    """
    spec = RunSpec(
        model=model, layer=layer, d_sae=4096, tokens=4_000_000, distinct=1_000_000, outliers=10.0, lr=lr, init="small"
    )
    recovery, read, windows = 16_384, 65_536, 1000
    whole: dict[str, Any] = {"spec": spec, "penalties": penalties, "ks": (16, 64)}
    few = whole | {"penalties": (penalties[0], penalties[-1])}
    cheapest = whole | {"penalties": penalties[:1], "ks": (16,), "constraints": ("none",)}
    grid = (("recovery", recovery), ("scores", 1))
    parts = {
        "topk": Part(_of("topk", **whole), (*grid, ("stability", read))),
        "relu": Part(_of("relu", **whole), (*grid, ("stability", read))),
        "rates": Part([s for r in rates for s in _of("topk", "relu", **cheapest, lr=r)], grid),
        "features": Part(
            _of("topk", "relu", **(whole | {"penalties": penalties[1:2], "ks": (16,)})),
            (("features", read), ("contexts", read), ("convergence", 1)),
        ),
        "behaviour": Part(
            _of("topk", "relu", **(whole | {"penalties": penalties[:1], "ks": (16,)})), (("behaviour", read),)
        ),
        "browser": Part(
            [s for s in _of("topk", **(whole | {"ks": (16,), "penalties": ()})) if s.seed < 2], (("browser", read),)
        ),
        "batchtopk": Part(_of("batchtopk", **whole), grid),
        "wide": Part(_of("topk", "relu", d_sae=16384, **few), grid),
        "centred": Part(_of("topk", "relu", center=True, **few), grid),
        "unit": Part(_of("relu", init="unit", **few), grid),
        "first_step": Part(_of("relu", init="small_encoder", **few), (*grid, ("stability", read))),
        "controls": Part(_of("topk", "relu", constraints=(*ARMS, "tied"), **few), grid),
        "scr": Part(_of("topk", "relu", **few), (("scr", windows), ("probing", windows))),
        "earlier": Part(_of("topk", "relu", lr=earlier, **whole), (("recovery", recovery),)),  # some of them
    }
    return Plan(parts, recovery, recovery)


PLANS = {
    EMBEDDED: Plan(PARTS, RECOVERY, READ),
    "gemma-3-270m": _real("gemma-3-270m", 9, (0.003, 0.01, 0.03), 1e-3, (3e-4, 1e-3, 3e-3), 3e-3),
    "smollm2-135m": _real("smollm2-135m", 12, (0.03, 0.06, 0.1), 3e-3, (3e-4, 1e-3, 3e-3), 1e-3),
}
REAL = tuple(model for model in PLANS if model != EMBEDDED)


def planned(measure: str, size: int) -> frozenset[RunSpec]:
    """All planned SAEs for which this measure, at this size of text, is planned."""
    parts = [part for plan in PLANS.values() for part in plan.parts.values()]
    return frozenset(spec for part in parts if (measure, size) in part.measures for spec in part.specs)


def train(names: Sequence[str]) -> Iterator[str]:
    """Train and measure what the store does not have yet. Says, after each measure, what was measured.

    Args:
        names: of a language model, by default the embedded one; then of parts of its plan, by default all.

    Raises:
        ValueError: no such part; names those that there are.
    """
    from aligned.report.results import records

    model, names = (names[0], names[1:]) if names and names[0] in PLANS else (EMBEDDED, names)
    parts = PLANS[model].parts
    if unknown := set(names) - set(parts):
        raise ValueError(
            f"the plan of {model} has no part {', '.join(sorted(unknown))}; it has {', '.join(parts)} (and there are "
            f"plans of {', '.join(PLANS)}: the model's name comes first)"
        )
    for name in names or parts:
        for measure, size in parts[name].measures:
            records(parts[name].specs, size, use_published=False, measure=measure)
            yield f"{name}: {measure} of {len(parts[name].specs)} SAEs"
