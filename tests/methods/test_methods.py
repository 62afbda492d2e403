"""Every method trains at once, aligned or not, agrees with a peer where the definitions do, and opens in SAELens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from aligned.alignment import alignment_score
from aligned.formats import load_saelens, save_saelens
from aligned.methods import METHODS, Method, method
from aligned.methods.base import Autoencoder, warmed
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training import autograd
from aligned.training.loop import train
from aligned.training.schedule import learning_rate_scale, remove_parallel_gradient
from tests import peer
from tests.training.test_training import D_IN, D_SAE, Synthetic, spec

SPARSITY = {"jumprelu": 0.02, "gated": 0.05, "relu": 0.05, "p_anneal": 0.05}  # the others keep k
NEW = ("jumprelu", "gated", "matryoshka")
IN_SAELENS = {"relu": "standard", "p_anneal": "standard", "topk": "topk", "batchtopk": "jumprelu",
              "matryoshka": "jumprelu", "jumprelu": "jumprelu", "gated": "gated"}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {"jumprelu": {"bandwidth": 0.05, "start": 0.05}}  # wide, for a few steps
STEPS = 50


def of(name: str, **changes: object) -> RunSpec:
    return spec(**{"activation": name, "sparsity": SPARSITY.get(name, 4), "options": OPTIONS.get(name, {}), **changes})


def start(s: RunSpec) -> SAE:
    return s.start(D_IN)


@pytest.mark.parametrize("constraint", ["none", "projected"])
@pytest.mark.parametrize("name", list(METHODS))
def test_it_trains_and_saelens_opens_it_with_equal_codes(name: str, constraint: str, tmp_path: Path) -> None:
    import sae_lens

    s, data = of(name, constraint=constraint), Synthetic()
    sae, _ = train(s, data, tmp_path, progress=lambda _: None)  # type: ignore[arg-type]
    losses = [float(row.split(",")[2]) for row in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
    if constraint == "projected":
        assert (alignment_score(sae) - 1).abs().max() < 1e-5

    raw, x = sae.for_raw_activations(3.0), data.batch(0, 0, 256) / 3
    save_saelens(raw, tmp_path / "sae", {})
    stock, again = sae_lens.SAE.load_from_disk(str(tmp_path / "sae")), load_saelens(tmp_path / "sae")
    assert stock.cfg.architecture() == IN_SAELENS[name]
    codes = sae.encode(3 * x)
    assert 0 < (codes > 0).sum() < codes.numel()
    for other in (raw, stock, again):
        assert torch.allclose(other.encode(x), codes, atol=1e-5)
    assert again.method == sae.method
    assert torch.allclose(alignment_score(again), alignment_score(sae), atol=1e-5)


@pytest.mark.parametrize("name", NEW)
def test_a_run_that_is_stopped_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    s, data = of(name), Synthetic()
    whole, _ = train(s, data, tmp_path / "a", progress=lambda _: None)  # type: ignore[arg-type]

    class Stop(Exception):
        pass

    steps = iter(range(STEPS))

    def stops(_: int) -> None:
        if next(steps) == STEPS - 1:
            raise Stop

    with pytest.raises(Stop):
        train(s, data, tmp_path / "b", save_every=0, progress=stops)  # type: ignore[arg-type]
    resumed, _ = train(s, data, tmp_path / "b", progress=lambda _: None)  # type: ignore[arg-type]
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def taken(sae: SAE, W_enc: Tensor, W_dec: Tensor) -> None:
    """The same start for both."""
    with torch.no_grad():
        sae.free.copy_(W_enc.T)
        sae.W_dec.copy_(W_dec)


def test_jumprelu_is_saelenss() -> None:
    """SAELens's loss with the mode `step` is the paper's. Its optimizer and schedule are not; ours are taken."""
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    s, data = of("jumprelu", constraint="none"), Synthetic()
    theirs = JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(
            d_in=D_IN, d_sae=D_SAE, jumprelu_init_threshold=0.05, jumprelu_bandwidth=0.05, decoder_init_norm=1.0
        )
    )
    ours = autograd.Trainer(start(s), s)
    taken(ours.sae, theirs.W_enc, theirs.W_dec)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=s.lr, betas=(0.0, 0.999))
    for step in range(STEPS):
        x = data.batch(0, step, s.batch)
        coefficient = warmed(s.sparsity, step, s.steps)
        output = theirs.training_forward_pass(
            TrainStepInput(
                sae_in=x,
                coefficients={"l0": coefficient},
                dead_neuron_mask=None,
                n_training_steps=step,
                is_logging_step=False,
            )
        )
        optimizer.zero_grad()
        output.loss.backward()
        remove_parallel_gradient(theirs.W_dec)
        optimizer.param_groups[0]["lr"] = s.lr * learning_rate_scale(step, s.steps)
        optimizer.step()
        with torch.no_grad():
            theirs.W_dec /= theirs.W_dec.norm(dim=1, keepdim=True)
        assert ours.update(x)["loss"].item() == pytest.approx(output.loss.item(), rel=1e-4), step
    assert torch.allclose(ours.sae.W_dec, theirs.W_dec, atol=1e-4)
    assert torch.allclose(ours.sae.threshold, theirs.threshold.clamp_min(0), atol=1e-4)
    assert (ours.sae.threshold - 0.05).abs().max() > 1e-3  # they were learned


@pytest.mark.parametrize("name", ["gated", "matryoshka"])
def test_a_method_is_dictionary_learnings(name: str) -> None:
    s, data = of(name, constraint="none"), Synthetic()
    theirs = peer.trainer(name, s.steps, D_IN, D_SAE, s.sparsity, s.lr)
    theirs.auxk_alpha = 0.0
    ours = autograd.Trainer(start(s), s)
    if name == "gated":
        taken(ours.sae, theirs.ae.encoder.weight.T, theirs.ae.decoder.weight.T)
    else:
        taken(ours.sae, theirs.ae.W_enc, theirs.ae.W_dec)
    for step in range(STEPS):
        x = data.batch(0, step, s.batch)
        expected = theirs.loss(x, step=step).item() if step else None  # at 0 it has not set b_dec yet
        theirs.update(step, x)
        found = ours.update(x)["loss"].item()
        if expected is not None:
            assert found == pytest.approx(expected, rel=1e-4), step
    W_dec = theirs.ae.decoder.weight.T if name == "gated" else theirs.ae.W_dec
    assert torch.allclose(ours.sae.W_dec, W_dec, atol=1e-4)
    if name == "gated":
        for mine, its in (("r_mag", "r_mag"), ("b_mag", "mag_bias"), ("b_enc", "gate_bias")):
            assert torch.allclose(ours.sae.get_parameter(mine), theirs.ae.get_parameter(its), atol=1e-4), mine


def test_the_first_features_of_a_matryoshka_reconstruct_better_by_themselves() -> None:
    def fvu_of_half(name: str) -> float:
        s, data = of(name, options={"prefixes": (0.5, 1.0)} if name == "matryoshka" else {}), Synthetic()
        trainer = autograd.Trainer(start(s), s)
        for step in range(s.steps):
            trainer.update(data.batch(0, step, s.batch))
        x = data.batch(1, 0, 512)
        f = trainer.sae.encode(x)
        f[:, D_SAE // 2 :] = 0
        return float((x - trainer.sae.decode(f).detach()).square().sum() / (x - x.mean(0)).square().sum())

    assert fvu_of_half("matryoshka") < 0.9 * fvu_of_half("batchtopk")


def test_a_method_that_only_says_its_equation_trains_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aligned.methods.base.METHODS", dict(METHODS))

    @dataclass(frozen=True)
    class Squared(Method):
        """A ReLU SAE that pays for the square of its codes."""

        name: ClassVar[str] = "squared"

        def loss(
            self, sae: Autoencoder, x: Float[Tensor, "batch d_in"], f: Float[Tensor, "batch d_sae"], coefficient: float
        ) -> Tensor:
            return coefficient * f.square().sum(1).mean()

    sizes = []
    for coefficient in (0.0, 10.0):
        s = spec(activation="squared", sparsity=coefficient, init="unit")
        sae, _ = train(s, Synthetic(), tmp_path / str(coefficient), progress=lambda _: None)  # type: ignore[arg-type]
        sizes.append(sae.encode(Synthetic().batch(1, 0, 256)).square().sum())
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jump", {}, "activation is 'jump'; it is one of batchtopk, gated, jumprelu, matryoshka, p_anneal, relu, topk"),
        ("topk", {"bandwidth": 1.0}, "topk has no option bandwidth; it has none"),
        ("jumprelu", {"width": 1.0}, "jumprelu has no option width; it has bandwidth, start"),
        ("jumprelu", {"bandwidth": "x"}, "bandwidth is 'x'; for jumprelu it is of type float"),
        ("jumprelu", {"bandwidth": 0}, "bandwidth is 0.0"),
        ("matryoshka", {"prefixes": [0.5, 0.25, 1]}, "prefixes are (0.5, 0.25, 1.0); they grow"),
    ],
)
def test_what_is_not_allowed_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        method(name, options)


def test_options_decide_a_run_where_they_are_not_the_defaults() -> None:
    default = RunSpec(activation="jumprelu", sparsity=0.1)
    assert RunSpec(activation="jumprelu", sparsity=0.1, options={"bandwidth": 0.001}) == default  # type: ignore[arg-type]
    other = RunSpec(activation="jumprelu", sparsity=0.1, options={"bandwidth": 0.01})  # type: ignore[arg-type]
    assert other.hash != default.hash
    assert other.method.bandwidth == 0.01  # type: ignore[attr-defined]
