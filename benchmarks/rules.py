"""How often the rules of `aligned.report.claims` err: every rule on records simulated with a known effect.

    aligned bench rules                    # all claims, 400 draws each; a few minutes
    aligned bench rules --claims C2 C11    # these anew; the record's other rows stay

The effect is none, the smallest of interest, twice that, and the same as harm (-1), in every case of the claim; and,
for claims of several cases, twice that in the first case alone ("first"). The spread between seeds has a standard
deviation of 0.01, 0.03 or 0.1 in the measure's own unit (of the difference between arms; of r, for C7 and C8; of a seed
and of a pair, for C5). Two are scaled: a share near 0 (C1) varies by 0.1, 0.3 or 1 times its size, since it can't be
negative; and C10 has pairs of steps for seeds, 20 for each. C4's second statement, near zero dead, is false throughout.

A verdict is wrong if it says *holds*, or *holds in part*, where there is no effect or harm; *does not hold* where the
effect is the smallest of interest or more; *holds* or *does not hold* where it is in the first case alone, or *in part*
because of another case. For C11, "no harm", and C10, "at most 3 %", it is the mirror.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aligned.files import write_json
from aligned.report import claims, cost
from aligned.report.rules import Finding
from aligned.training.loop import SCORES

RESULT = Path(__file__).parents[1] / "results" / "rules.json"
EFFECTS: tuple[float | str, ...] = (0, 1, 2, -1, "first")  # in units of the smallest effect of interest
SPREADS, SEEDS, DRAWS = (0.01, 0.03, 0.1), (3, 5), 400
L0 = (10.0, 40.0)
Draw = tuple[list[float], float, int, np.random.Generator]  # each case's effect, in its unit's least; spread; seeds


def differences(
    cases: list[dict[str, Any]], metric: str, least: float, effects: list[float], spread: float, seeds: int,
    random: np.random.Generator, arms: tuple[str, str] = ("none", "projected"), pairs: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Two arms whose difference at equal L0 is the effect, and what each seed adds to it."""
    units = list(combinations(range(seeds), 2)) if pairs else [(seed,) for seed in range(seeds)]
    rows = []
    for case, effect in zip(cases, effects):
        of_seed = spread * random.standard_normal(seeds)
        for unit in units:
            own = sum(of_seed[list(unit)]) + pairs * spread * random.standard_normal()
            of = case | dict(zip(("seed", "other_seed"), unit))
            for (at, arm), l0 in product(enumerate(arms), L0):
                l0 *= 1.2**at
                value = 0.5 + 0.05 * np.log(l0) + at * (least * effect + own)
                rows.append({**of, "constraint": arm, "sparsity": l0, "l0": l0, metric: value})
    return pd.DataFrame(rows)


ACTIVATIONS = [{"activation": name} for name in ("relu", "topk")]
WIDTHS = [{"activation": "relu", "d_sae": width} for width in (512, 2048, 8192)]


def scores(effects: list[float], spread: float, seeds: int, random: np.random.Generator) -> pd.DataFrame:
    """Histograms of 1024 scores: a low mode of that share; one broad peak for none, one with a long tail for harm."""
    bins, first, last = SCORES
    rows = []
    for case, effect in zip(ACTIVATIONS, effects):
        for seed in range(seeds):
            a = random.normal(0.9, 0.12, 1024) if effect >= 0 else 1.1 - random.gamma(1.5, 0.15, 1024)
            if effect > 0:
                share = claims.LOW_MODE.size * effect * around_one(10 * spread, random)
                a = np.where(random.random(1024) < share, random.normal(0.2, 0.05, 1024), a)
            histogram = np.histogram(np.clip(a, first, last), bins, (first, last))[0] / len(a)
            of = {**case, "constraint": "none", "seed": seed, "below_half": (a < 0.5).mean()}
            rows.append({**of, "histogram": histogram, "dip_p": 1.0})
    return pd.DataFrame(rows)


def around_one(spread: float, random: np.random.Generator) -> float:
    return float(random.gamma(1 / spread**2, spread**2))


def alive(effects: list[float], spread: float, seeds: int, random: np.random.Generator) -> pd.DataFrame:
    """Standard SAEs with 30 % dead features, aligned ones with so much less that near zero is out of reach."""
    return differences(ACTIVATIONS, "alive", claims.ALIVE.size, effects, spread, seeds, random)


def tied(effects: list[float], spread: float, seeds: int, random: np.random.Generator) -> pd.DataFrame:
    """Tied SAEs with more features alive than standard ones, and less CE recovered than aligned ones."""
    of_alive, of_recovered = effects
    gain = differences([{}], "alive", claims.ALIVE.size, [of_alive], spread, seeds, random, ("none", "tied"))
    size = -claims.RECOVERED.size
    loss = differences([{}], "ce_recovered", size, [of_recovered], spread, seeds, random, ("projected", "tied"))
    of_tied = gain[gain.constraint == "tied"].assign(
        ce_recovered=loss[loss.constraint == "tied"].ce_recovered.to_numpy()
    )
    standard = gain[gain.constraint == "none"].assign(ce_recovered=0.5)
    return pd.concat([standard, of_tied, loss[loss.constraint == "projected"].assign(alive=0.5)])


def features(paper: float) -> Callable[..., pd.DataFrame]:
    def draw(effects: list[float], spread: float, seeds: int, random: np.random.Generator) -> pd.DataFrame:
        """An SAE for each seed, compared with the next seed's; its r is the effect, and what both seeds add to it."""
        basis = np.linalg.qr(np.stack([np.ones(64), *random.standard_normal((3, 64))], 1))[0]
        _, often, score, noise = basis.T
        rows = []
        for case, effect in zip(ACTIVATIONS, effects):
            a = spread * random.standard_normal(seeds) / 2**0.5
            for seed in range(seeds):
                r = np.tanh(np.arctanh(paper / 2 * effect) + a[seed] + a[(seed + 1) % seeds])
                rows.append({**case, "constraint": "none", "seed": seed, "other_seed": (seed + 1) % seeds,
                             "score": score, "mcs": r * score + (1 - r**2) ** 0.5 * noise,
                             "density": np.exp(often - 5)})  # fmt: skip
        return pd.DataFrame(rows)

    return draw


def steps(effects: list[float], spread: float, seeds: int, random: np.random.Generator) -> pd.DataFrame:
    """What `aligned.report.cost.in_turns` makes of pairs of steps."""
    rows = []
    for case, effect in zip(ACTIVATIONS, effects):
        ratios = 1 + claims.COST.size * effect + spread * random.standard_normal(20 * seeds)
        rows.append({"shape": "M", **case, "turns": {"aligned": list(ratios), "standard": [1.0] * len(ratios)}})
    return cost.in_turns({"rows": rows}, "standard")


def over(
    cases: list[dict[str, Any]], metric: str, least: claims.Least, pairs: bool = False
) -> Callable[..., pd.DataFrame]:
    return lambda *draw: differences(cases, metric, least.size, *draw, pairs=pairs)


def scr(*draw: Any) -> pd.DataFrame:
    table = differences(ACTIVATIONS, "score", claims.SCR.size, *draw)
    return table.assign(scr=[[value, 9.0] for value in table.score], harder=[[True, False]] * len(table))


@dataclass(frozen=True)
class Simulated:
    """A claim's rule, from effects to a table, the number of cases, and the effects for which a claim is true."""

    rule: Callable[[pd.DataFrame], Finding]
    draw: Callable[..., pd.DataFrame]
    cases: int = 2
    true: tuple[float, ...] = (1, 2)
    false: tuple[float, ...] = (0, -1)
    never: bool = False  # the claim says more than the effect, and that is false


RULES = {
    "C1": Simulated(claims.bimodal, scores),
    "C2": Simulated(claims.recovers_more, over([{}], "ce_recovered", claims.RECOVERED), 1),
    "C3": Simulated(claims.recovers_more_where_dense, over(ACTIVATIONS, "ce_recovered", claims.RECOVERED)),
    "C4": Simulated(claims.leaves_few_dead, alive, never=True),
    "C5": Simulated(claims.more_stable, over(ACTIVATIONS, "pw_mcc_alive", claims.STABILITY, pairs=True)),
    "C6": Simulated(claims.separates_better, scr),
    "C7": Simulated(lambda table: claims.correlates(table, "mcs", 0.65), features(0.65)),
    "C8": Simulated(lambda table: claims.correlates(table, "mcs", 0.32), features(0.32)),
    "C9": Simulated(claims.tying_costs, tied),
    "C10": Simulated(claims.no_added_compute, steps, true=(0, -1), false=(1, 2)),
    "C11": Simulated(
        claims.needs_no_tuning, over(ACTIVATIONS, "ce_recovered", claims.RECOVERED), true=(0, 1, 2), false=(-1,)
    ),
    "C12": Simulated(claims.holds_everywhere, over(WIDTHS, "ce_recovered", claims.RECOVERED), 3),
}


def wrong(of: Simulated, effects: list[float], found: Finding) -> bool:
    """Whether a verdict says what is not so."""
    if found.verdict == "holds":
        return of.never or any(effect in of.false for effect in effects)
    if found.verdict == "does not hold":
        return any(effect in of.true for effect in effects)
    if found.verdict == "holds in part":
        each = len(found.outcomes) // len(effects)  # C4 says two things of each case
        return any(outcome.shown is True and effects[i // each] in of.false for i, outcome in enumerate(found.outcomes))
    return False


def simulate(names: list[str], draws: int, spreads: tuple[float, ...] = SPREADS) -> Iterator[dict[str, Any]]:
    """How often each verdict is said, and how often wrongly: a row a claim, effect, spread and number of seeds."""
    for name, effect, spread, seeds in product(names, EFFECTS, spreads, SEEDS):
        of = RULES[name]
        if effect == "first" and of.cases == 1:
            continue
        one, others = (of.true[-1], of.false[0]) if effect == "first" else (float(effect), float(effect))
        effects = [one] + [others] * (of.cases - 1)
        random = np.random.default_rng([int(name[1:]), seeds, round(1000 * spread), EFFECTS.index(effect)])
        found = [of.rule(of.draw(effects, spread, seeds, random)) for _ in range(draws)]
        said = Counter(finding.verdict for finding in found)
        yield {"claim": name, "effect": effect, "spread": spread, "seeds": seeds, "draws": draws,
               **{verdict: said[verdict] for verdict in ("holds", "holds in part", "does not hold", "undecided",
                                                         "not testable here")},
               "wrong": sum(wrong(of, effects, finding) for finding in found)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="aligned bench rules"
    )
    parser.add_argument("--claims", nargs="+", choices=RULES, default=list(RULES), help="which, by their numbers")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of each setting ({DRAWS})")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.claims:
        rows += (of := list(simulate([name], options.draws)))
        print(f"{name}: wrong in {max(row['wrong'] / row['draws'] for row in of):.1%} at worst", flush=True)
    before = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows += [row for row in before if row["claim"] not in options.claims]
    write_json(RESULT, {"rows": sorted(rows, key=lambda row: int(row["claim"][1:]))})


if __name__ == "__main__":
    main()
