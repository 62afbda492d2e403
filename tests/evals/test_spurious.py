"""SCR with planted features: taking the spurious one out repairs the probe, taking others out does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aligned.evals.spurious import Probe, Probes, Texts, fit, intervals_over_seeds, mean_codes, scr, train_probes
from aligned.sae import SAE
from tests.peer import by_saebench


def texts(count: int, seed: int, strength: float = 1.5) -> Texts:
    """Activations of width 16: the first axis says a, the second b (louder), the rest is noise. One special token."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, count, generator=generator) < 0.5
    x = 3 * torch.randn(count, 8, 16, generator=generator)
    x[:, :, 0] += (2.0 * a - 1)[:, None]
    x[:, :, 1] += strength * (2.0 * b - 1)[:, None]
    keep = torch.ones(count, 8, dtype=torch.bool)
    keep[:, 0] = False
    x[:, 0] = 1000
    return Texts(4 * x, keep, a, b)  # so large that 20 epochs are enough for the probes to settle


def axes() -> SAE:
    """A feature for each direction of each axis."""
    sae = SAE(16, 32, "relu", 0.0, "none")
    rows = torch.cat([torch.eye(16), -torch.eye(16)])
    with torch.no_grad():
        sae.W_dec.copy_(rows), sae.free.copy_(rows)
    return sae


@pytest.fixture(scope="module")
def data() -> tuple[Texts, Texts, Texts]:
    return texts(800, 0), texts(800, 1), texts(3000, 2)


def test_ablating_the_planted_spurious_feature_repairs_the_probe(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    probes = train_probes(train, validation)
    table = scr(axes(), probes, train, test, (1, 2, 10)).set_index(["removed", "n"])
    assert table.clean["b", 2] > 0.75
    assert table.biased["b", 2] < table.clean["b", 2] - 0.08  # it listens to b
    assert table.scr["b", 2] == pytest.approx(1, abs=0.15)
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
    codes = [torch.from_numpy(mean_codes(sae, train, learn & half).mean(0)) for half in (holds, ~holds)]
    effect = (codes[0] - codes[1]).abs() * (sae.W_dec @ probes.b.weight).abs()
    error = test.x - sae.decode(f)
    f[..., effect.topk(3).indices] = 0
    x = ((sae.decode(f) + error) * test.keep[..., None]).sum(1) / test.keep.sum(1, keepdim=True)
    even = test.balanced
    assert found == pytest.approx(probes.biased.accuracy(x[even].detach(), test.a[even]), abs=1e-6)


def axis(*of: int) -> Probe:
    weight = torch.zeros(16)
    weight[list(of)] = 1.0
    return Probe(weight, torch.tensor(0.0))


def test_where_nothing_is_to_be_gained_scr_is_0() -> None:
    table = scr(axes(), Probes(axis(0), axis(1), biased=axis(0)), texts(200, 0), texts(200, 1), (1, 2))
    assert table.scr[table.removed == "b"].tolist() == [0, 0]
    assert (table.scr[table.removed == "a"] != 0).any()


def test_features_that_have_no_effect_are_never_taken_out() -> None:
    """The probe of b reads one axis, which two features write: to take out 32 is to take out these two."""
    test = texts(2000, 1)
    table = scr(axes(), Probes(axis(0), axis(1), biased=axis(0, 1)), texts(800, 0), test, (2, 32))
    of_b = table[table.removed == "b"]
    assert of_b.ablated.nunique() == 1
    assert of_b.ablated.iloc[0] == axis(0).accuracy(test.mean[test.balanced], test.a[test.balanced])


def test_sets_are_balanced_and_of_one_size(data: tuple[Texts, Texts, Texts]) -> None:
    train = data[0]
    quadrants = [((train.a == a) & (train.b == b) & train.balanced).sum().item() for a in (0, 1) for b in (0, 1)]
    rarest = min(((train.a == a) & (train.b == b)).sum().item() for a in (0, 1) for b in (0, 1))
    assert quadrants == [rarest] * 4
    assert (train.a == train.b)[train.coinciding].all()
    ends = min(4 * rarest, 2 * int((train.a & train.b).sum()), 2 * int((~train.a & ~train.b).sum()))
    assert train.coinciding.sum() == 2 * train.a[train.coinciding].sum() == ends
    many = texts(4000, 0)  # of which more coincide than are needed
    apart = many.a != many.b
    apart[1000:] = False
    rare = replace(many, **{name: getattr(many, name)[apart | (many.a == many.b)] for name in ("x", "keep", "a", "b")})
    assert rare.coinciding.sum() == rare.balanced.sum()
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
        scr(SAE(8, 40), probes, train, test, (2,))
    with pytest.raises(ValueError, match=r"ablated has 50, 100, 500; .*numbers of features, 1 to 32"):
        scr(axes(), probes, train, test)


NS = [2, 5, 20]


def test_with_the_same_probes_scores_are_those_of_saebench(data: tuple[Texts, Texts, Texts]) -> None:
    train, validation, test = data
    sae = SAE(16, 60, "topk", 5, "none", seed=3).requires_grad_(False)
    torch.manual_seed(0)
    trained, theirs = by_saebench(sae, train, validation, test, NS, epochs=2)
    classes = ("professor / nurse", "male / female", "male_professor / female_nurse")
    nets = [trained[name].net for name in classes]
    ours = scr(sae, Probes(*(Probe(net.weight[0].detach(), net.bias[0].detach()) for net in nets)), train, test, NS)
    for row in ours.itertuples():
        direction = 1 if row.removed == "b" else 2
        assert row.scr == pytest.approx(theirs[f"scr_dir{direction}_threshold_{row.n}"], abs=1e-3)
        if row.harder:
            assert row.scr == pytest.approx(theirs[f"scr_metric_threshold_{row.n}"], abs=1e-3)


def test_with_probes_of_their_own_both_agree_within_the_probes_noise(data: tuple[Texts, Texts, Texts]) -> None:
    """Six trainings of the probes each; the epoch is chosen on the test texts, as SAEBench does."""
    train, _, test = data
    sae = axes()
    ours, theirs = [], []
    for seed in range(6):
        found = scr(sae, train_probes(train, test, seed), train, test, NS)
        ours.append(found[found.harder].scr.to_numpy())
        torch.manual_seed(seed)
        _, scores = by_saebench(sae, train, test, test, NS, epochs=20)
        theirs.append([scores[f"scr_metric_threshold_{n}"] for n in NS])
    ours, theirs = np.array(ours), np.array(theirs)
    error = ((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / 6) ** 0.5
    assert (abs(ours.mean(0) - theirs.mean(0)) < 3 * error + 1e-3).all()
    assert abs(ours.mean(0)).max() > 0.5  # and there is something to agree on


def test_intervals_are_those_over_saes() -> None:
    def table(of_b: float, of_a: float) -> pd.DataFrame:
        rows = [("b", 2, of_b, True), ("a", 2, of_a, False), ("b", 2, of_b + 0.2, True), ("a", 2, of_a + 0.2, False)]
        return pd.DataFrame(rows, columns=["removed", "n", "scr", "harder"])  # two pairs of attributes

    found = intervals_over_seeds([table(0.1, 0.5), table(0.2, 0.4), table(0.3, 0.3)]).set_index("direction")
    assert found.scr.to_dict() == pytest.approx({"b": 0.3, "a": 0.5, "harder": 0.3, "both": 0.4})
    assert found.seeds.eq(3).all()
    assert (found.low["b"], found.high["b"]) == pytest.approx(
        (0.3 - 0.2484, 0.3 + 0.2484), abs=1e-3
    )  # t with 2 degrees
    assert found.high["both"] - found.low["both"] == pytest.approx(0, abs=1e-9)
    alone = intervals_over_seeds([table(0.1, 0.5)]).set_index("direction")
    assert alone.scr["b"] == pytest.approx(0.2)
    assert alone.low.isna().all()
