"""The SAEs that the book's numbers rest on, and what is measured of them.

    python -m aligned.published                # trains and measures all that the store does not have yet: a night
    python -m aligned.published topk scr       # parts of it, by name
    python -m aligned.results                  # then writes their records to results/

The figures ask for these specs, and are drawn from their published records.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from aligned.results import records
from aligned.spec import RunSpec, grid
from aligned.sweeps import sweep

BASE = RunSpec(model="embedded", layer=3, d_sae=2048, tokens=10_000_000, lr=1e-3)
ARMS, SEEDS = ["none", "projected"], [0, 1, 2]
CONTROLS = ["tied", "soft", "post_step", "detached", "rescaled", "householder"]
K, LAMBDA = [8.0, 16.0, 32.0, 64.0], [0.01, 0.02, 0.05, 0.1, 0.25]
RECOVERY, PAIRS, FEATURES, WINDOWS = 1_048_576, 262_144, 262_144, 4000  # tokens of held-out text; windows of code


@dataclass(frozen=True)
class Part:
    """Some SAEs, and the measures of them with their sizes."""

    specs: list[RunSpec]
    measures: tuple[tuple[str, int], ...] = (("recovery", RECOVERY), ("scores", 1))


def of(activation: str, sparsities: list[float], constraints: list[str] = ARMS, **fields: object) -> list[RunSpec]:
    """Every seed, sparsity and constraint of one kind of SAE."""
    alike = {name: [value] for name, value in fields.items()}
    return grid(BASE, activation=[activation], seed=SEEDS, sparsity=sparsities, constraint=constraints, **alike)


_COMMON = (("recovery", RECOVERY), ("scores", 1), ("stability", PAIRS))
PARTS = {
    "topk": Part(of("topk", K), _COMMON),
    "relu": Part(of("relu", LAMBDA, init="small"), _COMMON),
    "batchtopk": Part(of("batchtopk", K)),
    "p_anneal": Part(of("p_anneal", [0.01, 0.02, 0.05, 0.1], init="small")),
    "unit": Part(of("relu", LAMBDA, init="unit")),  # is it the start?
    "narrow": Part(of("topk", [16.0, 64.0], d_sae=512) + of("relu", LAMBDA[1:], init="small", d_sae=512)),
    "scr": Part(of("topk", [16.0, 64.0]) + of("relu", [0.02, 0.05, 0.1], init="small"), (("scr", WINDOWS),)),
    "features": Part(of("topk", [16.0]) + of("relu", [0.05], init="small"), (("features", FEATURES),)),
    "controls": Part(of("topk", [16.0, 64.0], CONTROLS), _COMMON),
    "small controls": Part(of("relu", LAMBDA[1:], CONTROLS, init="small"), _COMMON),
    "wide": Part(of("topk", [16.0, 64.0], d_sae=8192) + of("relu", LAMBDA[1:], init="small", d_sae=8192)),
}


def main(names: list[str]) -> None:
    """Train and measure some parts, or all."""
    if unknown := set(names) - set(PARTS):
        sys.exit(f"error: there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in names or PARTS:
        part = PARTS[name]
        sweep(part.specs, engine="loky")
        for measure, size in part.measures:
            records(part.specs, size, use_published=False, measure=measure)
            print(f"{name}: {measure} of {len(part.specs)} SAEs", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
