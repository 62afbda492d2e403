"""k-sparse probing with planted features: the one that is the class is enough, others say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aligned.evals.sparse_probes import probing
from aligned.evals.spurious import Texts, mean_codes
from aligned.sae import SAE


def texts(count: int, seed: int) -> Texts:
    """Activations of width 16 of which one says whether a holds, and two together whether b does; the rest is noise.
    One special token."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, count, generator=generator) < 0.5
    x = torch.randn(count, 8, 16, generator=generator).abs()
    x[:, :, 0] = 5.0 * a[:, None]
    half = torch.rand(count, generator=generator) < 0.5  # b shows in one of two places
    x[:, :, 1], x[:, :, 2] = 4.0 * (b & half)[:, None], 4.0 * (b & ~half)[:, None]
    keep = torch.ones(count, 8, dtype=torch.bool)
    keep[:, 0] = False
    x[:, 0] = 1000
    return Texts(x, keep, a, b)


def axes(of: list[int]) -> SAE:
    """A feature for each of some axes."""
    sae = SAE(16, len(of), "relu", 0.0, "none")
    rows = torch.eye(16)[of]
    with torch.no_grad():
        sae.W_dec.copy_(rows), sae.free.copy_(rows)
    return sae


@pytest.fixture(scope="module")
def data() -> tuple[Texts, Texts]:
    return texts(600, 0), texts(1200, 1)


def test_a_feature_that_is_the_class_is_enough(data: tuple[Texts, Texts]) -> None:
    table = probing(axes([5, 2, 9, 0, 1, 7]), *data, ks=(1, 2)).set_index(["attribute", "k"])
    assert table.accuracy["a", 1] == 1
    assert table.accuracy["a", 2] == 1
    assert table.accuracy["b", 1] == pytest.approx(0.75, abs=0.03)  # it shows in that place half of the time
    assert table.accuracy["b", 2] == 1
    assert table.full.eq(1).all()


def test_features_of_noise_guess_and_the_full_probe_does_not(data: tuple[Texts, Texts]) -> None:
    table = probing(axes(list(range(3, 16))), *data, ks=(1, 2, 5))
    assert table.accuracy.between(0.45, 0.55).all()
    assert table.full.eq(1).all()


def test_labels_at_random_cannot_be_told_by_anything(data: tuple[Texts, Texts]) -> None:
    generator = torch.Generator().manual_seed(2)
    train, test = (replace(t, a=torch.rand(len(t.a), generator=generator) < 0.5) for t in data)
    of_a = probing(axes(list(range(16))), train, test).query("attribute == 'a'")
    assert of_a.accuracy.between(0.45, 0.55).all()
    assert of_a.full.between(0.45, 0.55).all()


def test_one_feature_is_a_threshold_on_the_one_whose_means_differ_most(data: tuple[Texts, Texts]) -> None:
    """k = 1 by brute force: mean codes token by token, the largest difference, scikit-learn on it alone."""
    from sklearn.linear_model import LogisticRegression

    train, test = data
    sae = SAE(16, 40, "topk", 5, "none", seed=3).requires_grad_(False)
    means, classes = [], []
    for part in data:
        even = part.balanced
        f = sae.encode(part.x[even]) * part.keep[even][..., None]
        means.append((f.sum(1) / part.keep[even].sum(1, keepdim=True)).numpy())
        classes.append(part.b[even].numpy())
        assert np.allclose(mean_codes(sae, part, even).toarray(), means[-1], atol=1e-5)
    top = np.abs(means[0][classes[0]].mean(0) - means[0][~classes[0]].mean(0)).argmax()
    column, centre = [m[:, [top]] for m in means], means[0][:, top]
    column = [(c - centre.mean()) / centre.std() for c in column]
    expected = LogisticRegression().fit(column[0], classes[0]).score(column[1], classes[1])
    found = probing(sae, train, test, ks=(1,)).set_index("attribute").accuracy["b"]
    assert found == pytest.approx(expected, abs=2 / len(classes[1]))


def test_accuracies_do_not_depend_on_the_scale_of_the_codes(data: tuple[Texts, Texts]) -> None:
    sae = axes([0, 1, 2, 3, 4])
    plain = probing(sae, *data, ks=(1, 2, 5))
    with torch.no_grad():
        sae.free.mul_(1e-3)
    assert probing(sae, *data, ks=(1, 2, 5)).accuracy.tolist() == pytest.approx(plain.accuracy.tolist(), abs=1e-3)


def test_what_does_not_fit_is_refused(data: tuple[Texts, Texts]) -> None:
    with pytest.raises(ValueError, match=r"ks has 16; .* numbers of features, 1 to 6"):
        probing(axes([0, 1, 2, 3, 4, 5]), *data, ks=(1, 16))
    with pytest.raises(ValueError, match="all four combinations"):
        probing(axes([0, 1]), replace(data[0], b=data[0].a), data[1], ks=(1,))
