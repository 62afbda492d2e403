"""SCR with planted features: taking the spurious one out repairs the probe, taking others out does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aligned.evals.scr import Texts, fit, mean_codes, scr, train_probes
from aligned.sae import SAE


def texts(count: int, seed: int, strength: float = 1.5) -> Texts:
    """Activations of width 16: the first axis says a, the second b (louder), the rest is noise. One special token."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, count, generator=generator) < 0.5
    x = torch.randn(count, 8, 16, generator=generator)
    x[:, :, 0] += (2.0 * a - 1)[:, None]
    x[:, :, 1] += strength * (2.0 * b - 1)[:, None]
    keep = torch.ones(count, 8, dtype=torch.bool)
    keep[:, 0] = False
    x[:, 0] = 1000
    return Texts(x, keep, a, b)


def axes() -> SAE:
    """A feature for each direction of each axis."""
    sae = SAE(16, 32, "relu", 0.0, "none")
    rows = torch.cat([torch.eye(16), -torch.eye(16)])
    with torch.no_grad():
        sae.W_dec.copy_(rows), sae.free.copy_(rows)
    return sae


@pytest.fixture(scope="module")
def data() -> tuple[Texts, Texts, Texts]:
    return texts(1200, 0), texts(400, 1), texts(800, 2)


def test_ablating_the_planted_spurious_feature_repairs_the_probe(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    probes = train_probes(train, validation)
    table = scr(axes(), probes, train, test, (1, 2, 10)).set_index(["removed", "n"])
    assert table.clean["b", 2] > 0.9
    assert table.biased["b", 2] < 0.7  # it listens to b
    assert table.scr["b", 2] == pytest.approx(1, abs=0.1)
    assert table.harder["b", 2]
    assert not table.harder["a", 2]


def test_features_that_say_nothing_of_it_repair_nothing(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    sae = axes()
    with torch.no_grad():  # the planted axes have no feature
        sae.W_dec[[0, 1, 16, 17]], sae.free[[0, 1, 16, 17]] = sae.W_dec[[4, 5, 20, 21]], sae.free[[4, 5, 20, 21]]
    table = scr(sae, train_probes(train, validation), train, test, (2, 5)).set_index(["removed", "n"])
    assert table.scr["b"].abs().max() < 0.1


def test_the_shortcut_by_mean_codes_is_the_ablation_token_by_token(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    probes, sae = train_probes(train, validation), axes()
    found = scr(sae, probes, train, test, (3,)).set_index("removed").ablated["b"]
    f = sae.encode(test.x)
    holds, learn = train.b, train.balanced
    codes = mean_codes(sae, train)
    effect = (codes[learn & holds].mean(0) - codes[learn & ~holds].mean(0)).abs() * (sae.W_dec @ probes.b.weight).abs()
    error = test.x - sae.decode(f)
    f[..., effect.topk(3).indices] = 0
    x = ((sae.decode(f) + error) * test.keep[..., None]).sum(1) / test.keep.sum(1, keepdim=True)
    even = test.balanced
    assert found == pytest.approx(probes.biased.accuracy(x[even].detach(), test.a[even]), abs=1e-6)


def test_sets_are_balanced_and_of_one_size(data: tuple[Texts, Texts, Texts]) -> None:
    train = data[0]
    quadrants = [((train.a == a) & (train.b == b) & train.balanced).sum().item() for a in (0, 1) for b in (0, 1)]
    assert len(set(quadrants)) == 1
    assert (train.a == train.b)[train.coinciding].all()
    with pytest.raises(ValueError, match="all four combinations"):
        _ = replace(train, b=train.a).balanced


def test_a_probe_is_that_of_scikit_learn(data: tuple[Texts, Texts, Texts]) -> None:
    from sklearn.linear_model import LogisticRegression

    train, validation, test = data
    ours = fit(train.mean, train.a, validation.mean, validation.a).accuracy(test.mean, test.a)
    theirs = LogisticRegression(C=1.0).fit(train.mean, train.a).score(test.mean, test.a)
    assert ours == pytest.approx(theirs, abs=0.02)


def test_what_does_not_fit_is_refused(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    probes = train_probes(train, validation)
    with pytest.raises(ValueError, match="width 16, and the SAE reads 8"):
        scr(SAE(8, 40), probes, train, test)
    with pytest.raises(ValueError, match="500 features are to be ablated, and the SAE has 32"):
        scr(axes(), probes, train, test)
