"""What decides a trained SAE: one small record, which checks itself and has a stable name."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from typing import Any, get_type_hints

import numpy as np

from aligned import checks
from aligned.alignment import Constraint
from aligned.checks import number, said, whole
from aligned.language import text
from aligned.methods import METHODS, Method, method, options
from aligned.sae import LARGEST, SAE, Init, check_architecture

Options = tuple[tuple[str, Any], ...]
_LATER = ("outliers", "distinct", "options")  # fields that came when there were runs; a new one belongs here
_LEAST = {"d_sae": 1, "tokens": 1, "batch": 1, "context": 2}  # of whole numbers; of the others 0
_SIZES = ("layer", "d_sae", "batch", "context")  # bounded by `LARGEST`
_MOST = 1e9  # of a coefficient: with a larger one training is of nothing else
_GRID = 100_000  # specs in a grid


def _counts(activation: object) -> bool:
    """Whether the sparsity of an activation is a k; true of what is no activation, which is told elsewhere."""
    return not isinstance(activation, str) or activation not in METHODS or METHODS[activation]().counts


def _fields_named(kind: type) -> type:
    """Makes a dataclass suggest, in its error about an unknown field, which field may be meant; and ask for the
    sparsity of an activation for which the default, a k, is none."""
    make = kind.__init__  # type: ignore[misc]

    @wraps(make)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        if wrong := checks.unknown(given, (field.name for field in fields(kind))):
            raise TypeError(f"no field {wrong} in {kind.__name__}; there are {', '.join(f.name for f in fields(kind))}")
        if "activation" in given and "sparsity" not in given and not _counts(given["activation"]):
            raise ValueError(
                f"activation is {given['activation']!r}: give sparsity too, the coefficient of its penalty, such as "
                "0.1 (the default is the k of topk)"
            )
        make(self, *args, **given)

    kind.__init__ = checked  # type: ignore[misc]
    return kind


@_fields_named
@dataclass(frozen=True)
class RunSpec:
    """One SAE: on what it is trained, what it is, and how.

    Args:
        model: `embedded`, `gemma-3-270m` or `smollm2-135m`, a local Hugging Face folder, or a hub id.
        layer: the residual stream after this layer.
        d_sae: number of features.
        activation: the name of a method: relu, p_anneal, topk, batchtopk, jumprelu, gated or matryoshka
            (`aligned methods` lists them with their options).
        sparsity: k for topk, batchtopk and matryoshka; for the others the penalty's coefficient, which has no default.
        constraint: of the encoder; `none` is the standard SAE, `projected` the aligned one. The others are householder,
            rescaled, detached, tied, soft and post_step (`aligned.alignment`).
        init: `unit`, `small` (norm 0.1) or `small_encoder` (norm 0.1, decoder rows of norm 1): `aligned.sae.SAE`.
        seed: of the initialisation and of the data's order.
        tokens: to train on; rounded down to whole batches.
        batch: activations a step.
        lr: Adam's learning rate at its height.
        soft: coefficient of mean (a - 1)^2, used by the constraint `soft` alone.
        auxk: coefficient of the dead features' auxiliary loss (TopK and BatchTopK; the paper's stack has 1/32). For the
            standard SAE alone: aligned training goes without.
        center: whether the activations' mean is subtracted first. Where that mean is large, this alone brings most dead
            features back (arXiv 2605.31518). The same in every arm of a comparison.
        text: source of the training text, as `aligned.language.text.documents` takes it.
        context: tokens in a block, BOS included.
        outliers: tokens whose activation's norm exceeds this many times the median norm are left out of training, of
            the scale and of the mean; 0 keeps all. The paper's stack has 10.
        distinct: number of different tokens to train on. If `tokens` is larger, training goes over them repeatedly. 0
            means as many as `tokens`.
        options: of the method, a mapping of those that are not its defaults, such as `{"bandwidth": 0.002}`.

    Raises:
        TypeError, ValueError: a field of the wrong type or value; the message names it and what is allowed.
    """

    model: str = "embedded"
    layer: int = 3
    d_sae: int = 2048
    activation: str = "topk"
    sparsity: float = 32
    constraint: Constraint = "projected"
    init: Init = "unit"
    seed: int = 0
    tokens: int = 10_000_000
    batch: int = 2048
    lr: float = 3e-4
    soft: float = 1.0
    auxk: float = 0.0
    center: bool = False
    text: str = text.INSTALLED
    context: int = 256
    outliers: float = 0.0
    distinct: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(RunSpec).items():
            if name != "options":
                object.__setattr__(self, name, _checked(name, kind, getattr(self, name)))
        found = check_architecture(
            self.d_sae, self.activation, self.sparsity, self.constraint, self.init, _mapping(self.options)
        )
        object.__setattr__(self, "options", tuple(sorted(options(found).items())))
        if self.auxk and (self.constraint != "none" or not self.method.auxk):
            having = " or ".join(sorted((name for name, kind in METHODS.items() if kind.auxk), reverse=True))
            raise ValueError(
                f"auxk is {self.auxk} with {self.activation} and {self.constraint}; it goes with {having} and the "
                "constraint none, and is 0 for all others"
            )
        if self.outliers and not self.outliers > 1:
            raise ValueError(
                f"outliers is {self.outliers}; it is more than 1 (times the median norm), or 0 to keep all"
            )
        if not 0 < self.lr < 1:
            raise ValueError(f"lr is {self.lr}; it lies between 0 and 1")
        if self.tokens < self.batch:
            raise ValueError(f"tokens is {self.tokens}; it is at least one batch, {self.batch}")

    @property
    def steps(self) -> int:
        return self.tokens // self.batch

    @property
    def method(self) -> Method:
        return method(self.activation, dict(self.options))

    def start(self, d_in: int) -> SAE:
        """The SAE as training finds it: what stability at initialisation is measured on."""
        return SAE(
            d_in,
            self.d_sae,
            self.activation,
            self.sparsity,
            self.constraint,
            self.init,
            self.seed,
            dict(self.options),
        )

    @property
    def hash(self) -> str:
        """12 digits of the SHA-256 of what the fields hold, as JSON. A field of `_LATER` counts only where it differs
        from its default, so that it changes no older run's name."""
        later = {name: RunSpec.__dataclass_fields__[name].default for name in _LATER}
        counted = {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """A readable name with the hash, for a folder."""
        model = self.model.rstrip("/").rsplit("/", 1)[-1]
        kind = f"{self.d_sae}-{self.activation}{self.sparsity:g}-{self.constraint}"
        return f"{model}-l{self.layer}-{kind}-s{self.seed}-{self.hash}"


def _checked(name: str, kind: Any, value: Any) -> Any:
    """A field's value as the spec holds it: Python's own numbers, so that equal specs have one name."""
    if kind is int:
        return whole(name, value, _LEAST.get(name, 0), LARGEST if name in _SIZES else checks.WHOLE)
    if kind is float:  # what a sparsity may be, its method says
        return number(name, value, -_MOST if name == "sparsity" else 0, 1 if name == "lr" else _MOST)
    if kind is bool and isinstance(value, np.bool_):
        return bool(value)
    if name in ("model", "text"):
        return checks.name(name, value)
    kind = kind if isinstance(kind, type) else str
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {said(value)}; it is of type {kind.__name__}")
    return value


def _mapping(options: Any) -> dict[str, Any]:
    """Options as a dict. They may be given as a mapping, or as the pairs that a spec holds (it holds pairs so that it
    can be a key)."""
    try:
        given = dict(options)
    except (TypeError, ValueError):
        raise TypeError(f'options is {said(options)}; it is a mapping, such as {{"bandwidth": 0.002}}') from None
    return {k: number(k, v) if isinstance(v, float | np.floating) else v for k, v in given.items()}


def grid(spec: RunSpec, **choices: Iterable[Any]) -> list[RunSpec]:
    """Every combination of the choices, the last name varying fastest: `grid(spec, seed=[0, 1], sparsity=[8, 16])`.

    Raises:
        ValueError: a name that is no field of RunSpec; a list with nothing in it; more than 100,000 specs.
        TypeError: no spec; one value, or a mapping, where a list of values is needed.
    """
    if not isinstance(spec, RunSpec):
        raise TypeError(f"a grid is of a RunSpec, such as RunSpec(), and was given {said(spec)}")
    allowed = [field.name for field in fields(RunSpec)]
    if wrong := checks.unknown(choices, allowed):
        raise ValueError(f"no field {wrong} in RunSpec; there are {', '.join(allowed)}")
    for name, values in choices.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            one = getattr(spec, name) if isinstance(values, bytes | Mapping) else values
            raise TypeError(f"{name} is {said(values)}; give a list of values, such as [{one!r}]")
    lists = {name: list(itertools.islice(values, _GRID + 1)) for name, values in choices.items()}
    if empty := [name for name, values in lists.items() if not values]:
        raise ValueError(f"there is no value for {', '.join(empty)}")
    if math.prod(len(values) for values in lists.values()) > _GRID:
        raise ValueError(f"these choices make more than {_GRID:,} specs; take fewer values of each")
    of_kinds = {_counts(activation) for activation in (spec.activation, *lists.get("activation", ()))}
    if len(of_kinds) > 1 and "sparsity" not in lists:
        raise ValueError(
            f"the sparsity of some of these activations is k, that of others a penalty's coefficient, and the spec has "
            f"{spec.sparsity:g}: `aligned.spec.kinds` makes a grid with the sparsities of each"
        )
    return [replace(spec, **dict(zip(lists, values))) for values in itertools.product(*lists.values())]


def variants(spec: RunSpec, changes: Iterable[Mapping[str, Any]]) -> dict[str, RunSpec]:
    """One spec for each set of changes, under a name that says which fields are changed and to what. A change that
    leaves the spec as it was is left out."""

    def said(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)

    named = ((", ".join(f"{field} {said(value)}" for field, value in change.items()), change) for change in changes)
    return {name: changed for name, change in named if (changed := replace(spec, **change)) != spec}


def kinds(
    spec: RunSpec,
    activations: Iterable[str],
    penalties: Iterable[float],
    ks: Iterable[float],
    **choices: Iterable[Any],
) -> list[RunSpec]:
    """`grid` over several activations, each with its own sparsities: those that keep k codes take the ks, the others
    the penalties; an activation that has none of its sparsities gives no spec. Those that keep k start `unit`, as in
    the paper's stack, whatever the spec says."""
    specs: list[RunSpec] = []
    for activation in activations:
        counted = method(activation).counts
        if sparsities := list(ks if counted else penalties):
            of = replace(spec, init="unit") if counted else spec
            specs += grid(of, activation=[activation], **choices, sparsity=sparsities)
    return specs
