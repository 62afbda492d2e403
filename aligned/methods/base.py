"""What a method defines, and the defaults for what it leaves out, which are those of a ReLU SAE without a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

# The sparsity coefficient rises over the first 5000 of the 24,414 steps of `dictionary_learning`'s demo.
WARMUP = 5000 / 24414


class Autoencoder(Protocol):
    """What a method needs to know of an `aligned.SAE`."""

    W_dec: nn.Parameter
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    threshold: Tensor

    @property
    def W_enc(self) -> Tensor: ...
    @property
    def d_sae(self) -> int: ...
    @property
    def k(self) -> int: ...
    def pre_activations(self, x: Tensor) -> Tensor: ...
    def decode(self, f: Tensor) -> Tensor: ...
    def register_parameter(self, name: str, param: nn.Parameter | None) -> None: ...
    def get_parameter(self, target: str) -> nn.Parameter: ...


class Penalty:
    """What the size of the codes costs: here nothing.

    A penalty is a function of the codes alone and gives its gradient too, so that a step by hand can take it. `state`
    is what it remembers from step to step.
    """

    def __init__(self, coefficient: float, steps: int, device: torch.device) -> None:
        self.coefficient = torch.tensor(coefficient, device=device)
        self.steps = steps
        self.state: dict[str, Tensor] = {}

    def exponent(self, step: int) -> float:
        """p of |f|_p^p at this step."""
        return 1.0

    def __call__(self, f: Float[Tensor, " *n"], step: int, batch: int) -> tuple[Tensor, Tensor]:
        """The penalty of a batch, and its gradient by each code that is over 0.

        Args:
            f: the batch's codes, in any shape; those that are 0 may be left out.
            step: of training; what is remembered at each is needed later, so every step must be given.
            batch: how many tokens they belong to.
        """
        return self.coefficient * 0, self.coefficient * 0


@dataclass(frozen=True)
class Method:
    """A kind of SAE. A subclass in this folder is found by its `name`; its fields are its options.

    Attributes:
        name: what a spec calls it.
        keeps: which codes are kept in training: `all` that are positive, the k largest of each `token`, or the k x
            batch largest of a `batch`. Except for `all`, a spec's sparsity is k; for `all` it is a coefficient.
        architecture: what SAELens calls the trained SAE.
        saved: parameters of this kind beside `W_enc`, `W_dec` and `b_dec`, and SAELens's names of them.
        betas: Adam's.
        by_hand: whether `aligned.training.fused` trains it, by a step written by hand. `aligned.training.autograd` can
            train every method.
        auxk: whether it can have the dead features' auxiliary loss.
        costs_like: the method whose measured cost stands for its own.
    """

    name: ClassVar[str] = ""
    keeps: ClassVar[Literal["all", "token", "batch"]] = "all"
    architecture: ClassVar[str] = "standard"
    saved: ClassVar[Mapping[str, str]] = {"b_enc": "b_enc"}
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    by_hand: ClassVar[bool] = False
    auxk: ClassVar[bool] = False
    costs_like: ClassVar[str] = "relu"

    def __init_subclass__(cls) -> None:
        METHODS[cls.name] = cls

    @property
    def counts(self) -> bool:
        """Whether the sparsity is k, a number of codes."""
        return self.keeps != "all"

    def check(self, sparsity: float, d_sae: int) -> None:
        """Raise a `ValueError` that says what the sparsity is and may be."""
        if self.counts and not (1 <= sparsity <= d_sae and sparsity == int(sparsity)):
            raise ValueError(
                f"sparsity is {sparsity}; for {self.name} it is k, a whole number from 1 to d_sae = {d_sae}"
            )
        if not 0 <= sparsity < float("inf"):
            raise ValueError(f"sparsity is {sparsity}; for {self.name} it is the penalty's coefficient, 0 or more")

    # The SAE.

    def build(self, sae: Autoencoder) -> None:
        """Give the SAE the parameters that only this kind has."""

    def pre_activations(
        self, sae: Autoencoder, product: Float[Tensor, "*batch d_sae"]
    ) -> Float[Tensor, "*batch d_sae"]:
        """The codes before any are dropped, from the product (x - b_dec) W_enc."""
        return (product + sae.b_enc).relu()

    # Training.

    def codes(self, sae: Autoencoder, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The codes in training, which may be chosen otherwise than after it."""
        return sae.pre_activations(x)

    def penalty(self, sparsity: float, steps: int, device: torch.device) -> Penalty:
        """What the codes cost, over the course of a training run of so many steps."""
        return Penalty(0.0, steps, device)

    def loss(
        self,
        sae: Autoencoder,
        x: Float[Tensor, "batch d_in"],
        f: Float[Tensor, "batch d_sae"],
        coefficient: float,
    ) -> Tensor | float:
        """What is added to the squared error and the penalty.

        Args:
            sae: in training.
            x: the batch.
            f: its codes.
            coefficient: the sparsity, times its warm-up; of use where it is no k.
        """
        return 0.0

    def observe(self, sae: Autoencoder, f: Float[Tensor, " *n"], share: float) -> None:
        """See the codes of a batch, in any shape, after `share` of all steps, before the step is made."""

    def project(self, sae: Autoencoder) -> None:
        """Put the parameters where they are allowed to be, after a step."""


METHODS: dict[str, type[Method]] = {}


def method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of this name, with these of its options, the others having their defaults.

    Raises:
        ValueError: no such method or option, or a value that is not allowed; names those that are.
    """
    if name not in METHODS:
        raise ValueError(f"activation is {name!r}; it is one of {', '.join(sorted(METHODS))}")
    kind, given = METHODS[name], dict(options or {})
    defaults = {field.name: field.default for field in fields(kind)}
    for option, value in given.items():
        if option not in defaults:
            raise ValueError(f"{name} has no option {option}; it has {', '.join(defaults) or 'none'}")
        expected = type(defaults[option])
        if isinstance(value, int) and not isinstance(value, bool) and expected is float:
            given[option] = float(value)
        elif isinstance(value, list) and expected is tuple:
            given[option] = tuple(value)
        elif not isinstance(value, expected):
            raise ValueError(f"{option} is {value!r}; for {name} it is of type {expected.__name__}")
    return kind(**given)


def options(of: Method) -> dict[str, Any]:
    """A method's options, those that are not its defaults."""
    defaults = {field.name: field.default for field in fields(of)}
    return {name: value for name, value in asdict(of).items() if value != defaults[name]}


def warmed(coefficient: float, step: int, steps: int) -> float:
    """A sparsity coefficient at a step: it rises from 0 over the warm-up."""
    return coefficient * min(1.0, step / max(1, round(WARMUP * steps)))
