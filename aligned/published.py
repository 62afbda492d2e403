"""The SAEs that the book's numbers rest on, and what is measured of them.

    python -m aligned.published                # trains and measures all that the store does not have yet: a night
    python -m aligned.published topk scr       # parts of it, by name; several processes may share the work
    python -m aligned.results                  # then writes their records to results/

The figures ask for these specs, and are drawn from their published records.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from aligned.spec import RunSpec, kinds

RECOVERY, READ, WINDOWS = 1_048_576, 262_144, 4000  # tokens of held-out text, of two sizes; windows of code
PROBED = 1000  # windows of code, for k-sparse probing
SPEC = RunSpec(model="embedded", layer=3, d_sae=2048, tokens=10_000_000, lr=1e-2, init="small")
ARMS = ("none", "projected")
CONTROLS = ("tied", "soft", "post_step", "detached", "rescaled", "householder")
LAMBDA, K = (0.05, 0.1, 0.16, 0.25), (8, 16, 32, 64)
# two sparsities, for all that is compared beside the grid
FEW: dict[str, tuple[float, ...]] = {"penalties": (0.1, 0.25), "ks": (16, 64)}
SEEDS = (0, 1, 2)


_GRID = (("recovery", RECOVERY), ("scores", 1))
_QUICK = (("recovery", READ), ("scores", 1))


@dataclass(frozen=True)
class Part:
    """Some SAEs, and the measures of them with their sizes."""

    specs: list[RunSpec]
    measures: tuple[tuple[str, int], ...] = _GRID


def _of(*activations, penalties=LAMBDA, ks=K, constraints=ARMS, **fields) -> list[RunSpec]:  # type: ignore[no-untyped-def]
    return kinds(replace(SPEC, **fields), activations, penalties, ks, seed=SEEDS, constraint=constraints)


BUDGETS: list[dict[str, Any]] = [{"tokens": 4_000_000}, {"lr": 1e-3}, {"lr": 3e-2}]
RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # `SPEC.lr` was chosen among them, on standard SAEs alone
_FIRST: dict[str, Any] = {"penalties": (0.1,), "ks": (16,)}
PARTS = {
    "topk": Part(_of("topk"), (*_GRID, ("stability", READ))),
    "relu": Part(_of("relu"), (*_GRID, ("stability", READ))),
    "batchtopk": Part(_of("batchtopk")),
    "p_anneal": Part(_of("p_anneal")),
    "narrow": Part(_of("topk", "relu", d_sae=512, **FEW)),
    "wide": Part(_of("topk", "relu", d_sae=8192, **FEW)),
    "controls": Part(_of("topk", "relu", constraints=(*ARMS, *CONTROLS), **FEW), _QUICK),
    "unit": Part(_of("relu", init="unit", **FEW), _QUICK),  # is it the start?
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
    "scr": Part(_of("topk", "relu", **FEW), (("scr", WINDOWS), ("probing", PROBED))),
}


def planned(measure: str, size: int) -> frozenset[RunSpec]:
    """The SAEs of all parts of which this is to be measured, on text of this size."""
    return frozenset(spec for part in PARTS.values() if (measure, size) in part.measures for spec in part.specs)


def main(names: list[str]) -> None:
    """Train and measure some parts, or all."""
    from aligned.results import records

    if unknown := set(names) - set(PARTS):
        sys.exit(f"error: there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in names or PARTS:
        for measure, size in PARTS[name].measures:
            records(PARTS[name].specs, size, use_published=False, measure=measure)
            print(f"{name}: {measure} of {len(PARTS[name].specs)} SAEs", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
