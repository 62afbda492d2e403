"""Training: exact, resumable, aligned at every step, and the same as the stack behind the paper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aligned import files
from aligned.alignment import HARD, alignment_score
from aligned.methods.topk import keep_topk
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training import fused, state
from aligned.training.fused import Trainer
from aligned.training.loop import SCORES, train
from aligned.training.schedule import geometric_median, learning_rate_scale
from tests import peer
from tests.plain import keep_batch_topk

D_IN, D_SAE = 16, 64


class Synthetic:
    """Activations of sparse mixtures of planted directions, E|x|^2 = 1."""

    scale = 1.0
    model_fingerprint = text_fingerprint = "planted"

    def __init__(self, poison: int | None = None, d_in: int = D_IN, features: int = 40) -> None:
        self.poison, self.d_in = poison, d_in
        planted = torch.randn(features, d_in, generator=torch.Generator().manual_seed(0))
        self.planted = planted / planted.norm(dim=1, keepdim=True)

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + step)
        shape = (size, len(self.planted))
        on = torch.rand(shape, generator=generator) < 0.08
        x = (on * torch.rand(shape, generator=generator)) @ self.planted
        x = x / x.square().sum(1).mean().sqrt()
        return x * torch.nan if step == self.poison else x


def spec(**changes: object) -> RunSpec:
    return RunSpec(**{"d_sae": D_SAE, "sparsity": 4, "tokens": 100 * 128, "batch": 128, "lr": 2e-3, **changes})  # type: ignore[arg-type]


def new(s: RunSpec) -> SAE:
    return SAE(D_IN, s.d_sae, s.activation, s.sparsity, s.constraint, s.init, s.seed)


@pytest.mark.parametrize("constraint", HARD)
@pytest.mark.parametrize(("activation", "sparsity"), [("relu", 0.05), ("topk", 4), ("batchtopk", 4)])
def test_every_score_is_one_at_every_step(activation: str, sparsity: float, constraint: str) -> None:
    s = spec(activation=activation, sparsity=sparsity, constraint=constraint)
    trainer, data = Trainer(new(s), s), Synthetic()
    for step in range(60):
        trainer.update(data.batch(0, step, 128))
        assert (alignment_score(trainer.sae) - 1).abs().max() < 1e-5
        assert (trainer.sae.W_dec.norm(dim=1) - 1).abs().max() < 1e-5


def test_post_step_ends_each_step_aligned_and_soft_pulls_towards_it() -> None:
    data, off = Synthetic(), {}
    for constraint, strength in (("none", 0.0), ("soft", 10.0), ("post_step", 0.0)):
        s = spec(constraint=constraint, soft=strength, init="small", activation="relu", sparsity=0.05)
        trainer = Trainer(new(s), s)
        for step in range(100):
            trainer.update(data.batch(0, step, 128))
        off[constraint] = (alignment_score(trainer.sae) - 1).abs().mean().item()
    assert off["post_step"] < 1e-5 < off["soft"] < off["none"]


@pytest.mark.parametrize("constraint", ["none", "projected", "householder", "tied"])
@pytest.mark.parametrize(("activation", "sparsity"), [("relu", 0.05), ("topk", 4), ("batchtopk", 4)])
def test_training_learns(activation: str, sparsity: float, constraint: str) -> None:
    s = spec(activation=activation, sparsity=sparsity, constraint=constraint)
    trainer, data = Trainer(new(s), s), Synthetic()
    fvu = [trainer.update(data.batch(0, step, 128))["fvu"].item() for step in range(100)]
    assert sum(fvu[-5:]) < 0.75 * sum(fvu[:5])


@pytest.mark.parametrize("constraint", ["none", "projected", "householder"])
def test_resumed_training_ends_bit_for_bit_where_uninterrupted_training_does(tmp_path: Path, constraint: str) -> None:
    s = spec(activation="batchtopk", constraint=constraint)
    whole, _ = train(s, Synthetic(), tmp_path / "whole")

    class Stopped(Exception):
        pass

    steps = 0

    def stop_at_37(_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 37:
            raise Stopped

    with pytest.raises(Stopped):
        train(s, Synthetic(), tmp_path / "parts", save_every=0, progress=stop_at_37)
    assert (tmp_path / "parts" / "checkpoint.safetensors").exists()
    resumed, _ = train(s, Synthetic(), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "parts/log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()


def test_the_same_spec_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    a, b, c = (train(spec(seed=seed), Synthetic(), tmp_path / name)[0] for seed, name in ((0, "a"), (0, "b"), (1, "c")))
    assert torch.equal(a.W_dec, b.W_dec)
    assert not torch.allclose(a.W_dec, c.W_dec)


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_saved(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=f"step 70 of {spec().name}"):
        train(spec(), Synthetic(poison=70), tmp_path, save_every=0)
    _, meta = files.load(tmp_path / "checkpoint.safetensors")
    assert meta["step"] == 70


def test_a_checkpoint_on_other_activations_is_set_aside(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        train(spec(), Synthetic(poison=70), tmp_path, save_every=0)
    other = Synthetic()
    other.text_fingerprint = "another"
    with pytest.warns(UserWarning, match="a checkpoint of another text"):
        found, _ = train(spec(), other, tmp_path)
    assert (tmp_path / "checkpoint.safetensors.0").exists()
    assert torch.equal(found.W_dec, train(spec(), Synthetic(), tmp_path / "whole")[0].W_dec)


@pytest.mark.parametrize(("made", "now"), [("bf16", "float32"), ("float32", "bf16"), (None, "float32")])
def test_a_checkpoint_in_another_precision_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str | None, now: str
) -> None:
    monkeypatch.setenv("ALIGNED_PRECISION", made or "bf16")
    with pytest.raises(FloatingPointError):
        train(spec(), Synthetic(poison=70), tmp_path, save_every=0)
    place = tmp_path / "checkpoint.safetensors"
    if made is None:  # as checkpoints were before they said
        tensors, facts = files.load(place)
        files.save(place, tensors, {key: value for key, value in facts.items() if key != "precision"})
    before = place.read_bytes()
    monkeypatch.setenv("ALIGNED_PRECISION", now)
    with pytest.raises(ValueError, match=f"in {made or 'bf16'}, and training is in {now} here") as refused:
        train(spec(), Synthetic(), tmp_path)
    assert "\n" not in str(refused.value)
    assert place.read_bytes() == before
    monkeypatch.setenv("ALIGNED_PRECISION", made or "bf16")
    resumed, _ = train(spec(), Synthetic(), tmp_path)
    assert torch.equal(resumed.W_dec, train(spec(), Synthetic(), tmp_path / "whole")[0].W_dec)


@pytest.mark.parametrize("activation", ["relu", "p_anneal"])
def test_a_batch_without_an_active_feature_changes_no_penalty(activation: str) -> None:
    s = spec(activation=activation, sparsity=0.1)
    sae = new(s)
    with torch.no_grad():
        sae.b_enc.fill_(-1000)
    trainer = Trainer(sae, s)
    for step in range(s.steps):
        stats = trainer.update(Synthetic().batch(0, step, s.batch))
        assert stats["l0"] == 0
        assert stats["loss"].isfinite()
    assert trainer.penalty.coefficient == pytest.approx(0.1)


def test_the_log_has_loss_l0_fvu_dead_and_alignment(tmp_path: Path) -> None:
    train(spec(constraint="projected"), Synthetic(), tmp_path)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "step,tokens,loss,l0,fvu,dead,alignment_mean,alignment_p05,alignment_p95,scores"
    *numbers, scores = lines[-1].split(",")
    last = [float(v) for v in numbers]
    assert last[0] == 100
    assert last[1] == 12_800
    assert last[3] == pytest.approx(4, abs=0.1)
    assert 0 <= last[5] <= 1
    assert last[6:] == pytest.approx([1, 1, 1], abs=1e-5)
    bins, first, end = SCORES
    at_one = int((1 - first) / (end - first) * bins)
    assert [int(n) for n in scores.split()] == [spec().d_sae * (i == at_one) for i in range(bins)]


@pytest.mark.parametrize(
    ("activation", "sparsity", "init", "auxk", "steps", "dense"),
    [
        ("relu", 0.05, "small", 0, 50, False),
        ("relu", 0.05, "small", 0, 50, True),
        ("p_anneal", 0.05, "small", 0, 70, False),  # of 100; p falls in stages from step 41 on
        ("topk", 4, "unit", 0, 50, False),
        ("batchtopk", 4, "unit", 0, 50, False),
        ("topk", 2, "unit", 1 / 32, 50, False),
        ("batchtopk", 2, "unit", 1 / 32, 50, False),
    ],
)
def test_the_standard_arm_is_dictionary_learnings(
    activation: str, sparsity: float, init: str, auxk: float, steps: int, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one start, on the same batches, in float32: the same losses and, after a while, the same weights."""
    monkeypatch.setattr(fused, "DENSE", -1 if dense else 1)
    s, data = spec(activation=activation, sparsity=sparsity, init=init, constraint="none", auxk=auxk), Synthetic()
    theirs = peer.trainer(activation, s.steps, D_IN, D_SAE, sparsity, s.lr)
    theirs.auxk_alpha = auxk
    theirs.dead_feature_threshold = 3 * 128 if auxk else torch.inf
    monkeypatch.setattr(state, "DEAD", 3 * 128 / s.tokens)
    expected: list[float] = []
    loss = theirs.loss

    def recorded(*arguments: object, **named: object) -> Tensor:
        value = loss(*arguments, **named)
        expected.append(value.item())
        return value

    theirs.loss = recorded
    sae = new(s)
    with torch.no_grad():
        sae.free.copy_(theirs.ae.encoder.weight)
        sae.W_dec.copy_(theirs.ae.decoder.weight.T)
        b_enc = sae.b_enc.clone()
        sae.b_enc.copy_(theirs.ae.encoder.bias)
    assert b_enc.std() == pytest.approx(theirs.ae.encoder.bias.std().item(), rel=0.3)
    assert b_enc.abs().max() <= D_IN**-0.5
    assert (sae.W_dec.norm(dim=1) - (0.1 if init == "small" else 1)).abs().max() < 1e-5
    ours, reached_dead = Trainer(sae, s, bf16=False), False
    for step in range(steps):
        x = data.batch(0, step, 128)
        theirs.update(step, x)
        assert ours.update(x)["loss"].item() == pytest.approx(expected[-1], rel=1e-4), step
        reached_dead |= ours.dead() > 0
    assert reached_dead or not auxk
    near = 1e-3 if activation == "p_anneal" else 1e-4  # f^(p - 1) makes much of rounding where f is small
    assert torch.allclose(ours.sae.W_dec, theirs.ae.decoder.weight.T, atol=near)
    assert torch.allclose(ours.sae.W_enc.T, theirs.ae.encoder.weight, atol=near)
    if activation == "batchtopk":
        assert ours.sae.threshold.item() == pytest.approx(float(theirs.ae.threshold), rel=1e-4)
    if activation == "p_anneal":
        assert ours.penalty.exponent(steps - 1) == pytest.approx(theirs.p) != 1
        assert ours.penalty.coefficient.item() == pytest.approx(theirs.sparsity_coeff, rel=1e-3)


@pytest.mark.parametrize("constraint", ["none", "projected"])
@pytest.mark.parametrize(("activation", "sparsity"), [("relu", 0.02), ("topk", 8), ("batchtopk", 8)])
def test_speed_is_not_paid_for_with_numerics(activation: str, sparsity: float, constraint: str) -> None:
    """The processor's products, sparse sums and hand-written gradients against plain dense float32, over 200 steps."""
    data = Synthetic(d_in=64, features=256)
    s = spec(activation=activation, sparsity=sparsity, constraint=constraint, d_sae=512, batch=512, tokens=200 * 512)
    sae, same = (SAE(64, 512, s.activation, sparsity, s.constraint) for _ in range(2))
    fast, plain = Trainer(sae, s), DenseReference(same, s)
    for step in range(200):
        x = data.batch(0, step, 512)
        ours, reference = fast.update(x), plain.update(x)
        assert ours["loss"].item() == pytest.approx(reference["loss"], rel=0.01), step
    assert ours["fvu"].item() == pytest.approx(reference["fvu"], rel=0.01)


class DenseReference:
    """The training step written down once more: autograd, dense codes, float32, plain Adam."""

    def __init__(self, sae: SAE, s: RunSpec) -> None:
        self.sae, self.spec, self.step = sae, s, 0
        self.optimizer = torch.optim.Adam(sae.parameters())

    def update(self, x: Tensor) -> dict[str, float]:
        sae, s = self.sae, self.spec
        if self.step == 0 and sae.activation != "relu":
            sae.b_dec.data = geometric_median(x)
        f = sae.pre_activations(x)
        if sae.activation != "relu":
            f = (keep_topk if sae.activation == "topk" else keep_batch_topk)(f, sae.k)
        error = (sae.decode(f) - x).square().sum(1).mean()
        loss = error
        if sae.activation == "relu":
            loss = error + s.sparsity * min(1, self.step / round(s.steps * 5000 / 24414)) * f.sum(1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            d, g = sae.W_dec, sae.W_dec.grad
            g -= (g * d).sum(1, keepdim=True) * d / d.square().sum(1, keepdim=True)
            if sae.activation != "relu":
                torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            self.optimizer.param_groups[0]["lr"] = s.lr * learning_rate_scale(self.step, s.steps)
            self.optimizer.step()
            d /= d.norm(dim=1, keepdim=True)
        self.step += 1
        return {"loss": loss.item(), "fvu": (error / (x - x.mean(0)).square().sum(1).mean()).item()}


def test_schedule_warms_up_and_decays() -> None:
    scale = [learning_rate_scale(step, 1000) for step in range(1000)]
    assert scale[:42] == pytest.approx([step / 41 for step in range(42)])  # 1000 of the demo's 24,414 steps
    assert set(scale[41:801]) == {1}
    assert scale[900] == pytest.approx(0.5)
    assert scale[999] == pytest.approx(0.005)


def test_geometric_median_of_points_on_a_line_is_their_median() -> None:
    x = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0], [100, 0]])
    assert geometric_median(x, steps=2000, tolerance=0)[0].item() == pytest.approx(2, abs=0.05)
    x = torch.cat([torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.full((20, 3), 100.0)])
    at = geometric_median(x)  # where the unit vectors to all points cancel out
    assert torch.nn.functional.normalize(x - at, dim=1).sum(0).norm() < 0.01
