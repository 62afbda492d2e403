"""What the parameters of a figure's page may be, checked without a kernel and all at once.

The rules are those of `RunSpec` and of the language model's own configuration; here stands only what belongs to a page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

PAIRS = ("measure_seeds", "stability", "feature_quality", "features")  # pages that compare seeds with each other


def allowed(parameter: str) -> tuple[str, ...]:
    """The words that a parameter may be, or hold; none where it is a number, a name or a path."""
    from aligned.alignment import Constraint
    from aligned.methods import METHODS
    from aligned.sae import Init

    words = {"init": get_args(Init), "activation": tuple(sorted(METHODS)), "control": get_args(Constraint)[1:]}
    words["constraint"] = words["control"]  # not `none`: see `_of_page`
    return words.get(parameter.removeprefix("other_").removesuffix("s"), ())


def problems(page: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What is wrong with a page's parameters, a line each; none for a page that names no language model.

    Args:
        page: the notebook's name.
        known: its parameters, as they stand in the notebook.
        given: what some of them become, of the same types.
    """
    p = {**known, **given}
    if "model" not in p:
        return list(_of_any(page, p))
    found = [
        *_of_any(page, p),
        *_of_specs(p),
        *_of_sparsity(known, given),
        *_of_kinds(p),
        *_of_page(page, p),
        *_of_model(p),
    ]
    found = list(dict.fromkeys([*found, *_of_sources(page, p)]))
    found = [said for said in found if not any(longer.startswith(said) for longer in found if longer != said)]
    if not found:
        from aligned.report.wanted import asked

        try:  # what no parameter shows by itself
            asked(page, p)
        except (TypeError, ValueError) as error:
            found = [str(error)]
    return found


def _of_specs(p: Mapping[str, Any]) -> Iterator[str]:
    """Each parameter as a field of a spec by itself, so that one error does not hide another."""
    from aligned.methods import METHODS
    from aligned.spec import RunSpec

    def tried(said: str = "", **given: Any) -> Iterator[str]:
        try:
            RunSpec(**{"activation": "relu", "sparsity": 0.1, **given})
        except (TypeError, ValueError) as error:
            yield f"{said}{error}"

    alone = {field.name for field in fields(RunSpec)} - {"sparsity", "options", "soft", "auxk"}
    for name in sorted(alone & set(p), key=list(p).index):
        if name == "activation":
            both = ("sparsity", "d_sae") if p[name] in METHODS and "sparsity" in p else ()
            yield from tried(**{name: p[name] for name in ("activation", *both)})
        else:
            yield from tried(**{name: p[name]})
    several = {"seeds": "seed", "rates": "lr", "other_widths": "d_sae", "controls": "constraint"}
    for name, field in several.items():
        for value in p.get(name, []):
            yield from tried(f"{name}: ", **{field: value})
    for name in [name for name in p if name.endswith("activations")]:
        for value in p[name]:
            yield from tried(f"{name}: ", activation=value, sparsity=1)
    for name in [name for name in p if name.endswith("penalties")]:
        for value in p[name]:
            yield from tried(f"{name}: ", sparsity=value)
    for name in [name for name in p if (name.endswith("ks") or name == "k") and p["d_sae"] > 0]:
        for value in p[name] if isinstance(p[name], list) else [p[name]]:
            yield from tried(f"{name}: ", activation="topk", sparsity=value, d_sae=p["d_sae"])
    if "rate_tokens" in p:
        yield from tried("rate_tokens: ", tokens=p["rate_tokens"])
    for name in ("settings", "budgets", "earlier"):
        for change in p.get(name, []):
            yield from tried(f"{name}: ", **change)


def _of_sparsity(known: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """The notebook's sparsity is either k or a penalty, depending on its activation. An activation of the other kind
    needs its own sparsity."""
    from aligned.methods import METHODS

    if "sparsity" not in known or "sparsity" in given or given.get("activation") not in METHODS:
        return
    counts = METHODS[given["activation"]]().counts
    if counts != METHODS[known["activation"]]().counts:
        needs = "k, a whole number" if counts else "a penalty's coefficient, such as 0.1"
        was = f"sparsity {known['sparsity']:g} is that of {known['activation']}"
        yield f"activation is {given['activation']!r}, and {was}: give sparsity too ({needs})"


def _of_any(page: str, p: Mapping[str, Any]) -> Iterator[str]:
    """What holds of every page, and what belongs to one that names no language model."""
    for name, value in p.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name} is {value}; it is a finite number"
        elif name.startswith("length_") and value <= 0:
            yield f"{name} is {value:g}; a length is above 0"
    if page == "cost":
        from aligned.report import cost

        try:
            cost.record(p["record"])
        except (OSError, ValueError) as error:
            yield f"record: {error}"
    if page == "toy_to_gemma":
        yield from _of_plans(p)
    given = p.get("published_sae", "")
    if p.get("sae_id") and not given:
        yield f"sae_id is {p['sae_id']!r}, of a release: give published_sae too, the release's name"
    if given.startswith((".", "/", "~")) and not Path(given).expanduser().exists():
        yield f"published_sae is {given}, and there is no such folder"


def _of_plans(p: Mapping[str, Any]) -> Iterator[str]:
    """Models and kinds of SAE of which SAEs are planned, for a page that draws published ones alone."""
    from aligned.methods import METHODS
    from aligned.report.published import PLANS

    everywhere = [kind for kind in METHODS if all(kind in plan.parts for plan in PLANS.values())]
    for name, may in (("models", list(PLANS)), ("activations", everywhere)):
        if not p[name] or set(p[name]) - set(may):
            yield f"{name} is {p[name]}; it names one or more of {', '.join(may)}"


def _of_kinds(p: Mapping[str, Any]) -> Iterator[str]:
    """Kinds of SAE of which a page would show nothing, since no sparsity is given for them."""
    from aligned.methods import METHODS

    kinds = p.get("activations")
    if kinds == []:
        yield f"activations is []; it names one or more of {', '.join(sorted(METHODS))}"
    for name in ("activations", "penalties", "ks", "controls"):
        if len(set(values := p.get(name, []))) < len(values):
            yield f"{name} is {values}; each stands there once"
    if p.get("controls") == [] or "none" in p.get("controls", []):
        yield f"controls is {p['controls']}; it names one or more other constraints, such as tied, and not none"
    for name, counts in (("penalties", False), ("ks", True)):
        of = [kind for kind in kinds or () if kind in METHODS and METHODS[kind]().counts == counts]
        if of and p.get(name) == []:
            yield f"{name} is [], and activations has {', '.join(of)}: give {name}, or leave out these activations"


def _of_page(page: str, p: Mapping[str, Any]) -> Iterator[str]:
    from aligned.report.measures import MEASURES

    if p.get("constraint") == "none":
        yield (
            "constraint is 'none', the standard SAE, with which the page compares another; give another, such as "
            "projected"
        )
    seeds = p.get("seeds")
    if seeds is not None:
        least = 2 if page in PAIRS else 1
        if len(set(seeds)) < len(seeds) or len(seeds) < least:
            yield f"seeds is {seeds}; it must have {least} or more different whole numbers"
    for name in [name for name in p if name.endswith("_tokens") and name != "rate_tokens"]:
        if p[name] < p["context"]:
            yield f"{name} is {p[name]}; it is at least one block, context = {p['context']}"
    windows, least = p.get("windows"), MEASURES["scr"].least
    if isinstance(windows, list) and (len(windows) != 3 or min(windows) < 4):
        yield f"windows is {windows}; it has 3 whole numbers from 4: for training, for choosing an epoch, for testing"
    for name, fewest in (("windows", least), ("probed", least), ("steered", 1)):
        if isinstance(p.get(name), int) and p[name] < fewest:
            yield f"{name} is {p[name]}; it is a whole number from {fewest}"


def _of_sources(page: str, p: Mapping[str, Any]) -> Iterator[str]:
    """A model or a text that is not there, unless the page is drawn from published records alone."""
    from aligned.language import model, text

    def missing() -> Iterator[str]:
        for check, name in ((model.check_there, "model"), (text.check_there, "text")):
            try:
                check(p[name])
            except (OSError, ValueError, RuntimeError) as error:
                yield str(error)

    if (found := list(missing())) and not _only_drawn(page, p):
        yield from found


def _only_drawn(page: str, p: Mapping[str, Any]) -> bool:
    from aligned.report.wanted import only_drawn

    try:
        return only_drawn(page, p)
    except (TypeError, ValueError):  # which `problems` says
        return False


def _of_model(p: Mapping[str, Any]) -> Iterator[str]:
    """Of a model in a folder, its layer and context; of one that comes as a package, its layer; of a model elsewhere
    nothing can be known without fetching it."""
    from aligned.language.model import EMBEDDED, EMBEDDED_FOLDER
    from aligned.language.wheels import MODELS

    if p["model"] in MODELS:
        yield from _of_layer(p, MODELS[p["model"]].layers)
    folder = EMBEDDED_FOLDER if p["model"] == EMBEDDED else Path(p["model"]).expanduser()
    if not (folder / "config.json").is_file():
        return
    config = json.loads((folder / "config.json").read_text())
    layers, longest = (
        next((config[key] for key in keys if key in config), None)
        for keys in (("num_hidden_layers", "n_layer"), ("max_position_embeddings", "n_positions"))
    )
    yield from _of_layer(p, layers)
    if longest and p["context"] > longest:
        yield f"context is {p['context']}; {p['model']} takes blocks of at most {longest} tokens"


def _of_layer(p: Mapping[str, Any], layers: int | None) -> Iterator[str]:
    if layers and p["layer"] >= layers:
        yield f"layer is {p['layer']}; {p['model']} has {layers} layers, 0 to {layers - 1}"
