"""Cosines and matchings: against brute force, a planted permutation, and the bound beyond exactness."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from aligned.evals import matching
from aligned.evals.matching import centred, convergence, match, max_cosine, over_seeds, stability
from aligned.sae import SAE
from aligned.spec import RunSpec


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def planted(noise: float = 0.0, d_sae: int = 200) -> tuple[SAE, SAE, torch.Tensor]:
    """Two SAEs of which one has the other's features in another order."""
    a, b = SAE(32, d_sae, constraint="none", seed=0), SAE(32, d_sae, constraint="none", seed=1)
    order = torch.randperm(d_sae, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        b.W_dec.copy_(a.W_dec[order] + noise * rows(d_sae, 32, 3))
        b.free.copy_(a.free[order] + noise * rows(d_sae, 32, 4))
    return a, b, order


def test_max_cosine_is_the_greatest_of_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_CHUNK", 7)
    a, b = rows(20, 8, 0), 3 * rows(30, 8, 1)
    every = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    assert torch.allclose(max_cosine(a, b), every.amax(1), atol=1e-6)


def test_the_matching_is_the_best_of_all() -> None:
    a, b = rows(6, 4, 0), rows(7, 4, 1)
    every = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    best = max(sum(every[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(7), 6))
    found = match(a, b)
    assert found.cosine.sum().item() == pytest.approx(best.item(), abs=1e-5)
    assert found.bound == 0
    turned = match(b, a)
    assert turned.cosine.sum().item() == pytest.approx(best.item(), abs=1e-5)
    assert sorted(turned.of.tolist()) == [-1, 0, 1, 2, 3, 4, 5]
    assert turned.mean == pytest.approx(best.item() / 6, abs=1e-5)  # over the pairs


def test_a_planted_permutation_is_recovered() -> None:
    a, b, order = planted()
    assert torch.equal(match(b.W_dec, a.W_dec).of, order)
    found = stability(a, b)
    assert found["pw_mcc"] == pytest.approx(1, abs=1e-5)
    assert found["mmcs"] == pytest.approx(1, abs=1e-5)
    assert found["shared"] == 1
    assert found["features"] == 200


def test_features_whose_encoders_disagree_are_not_shared() -> None:
    a, b, _ = planted()
    with torch.no_grad():
        b.free[:50] = rows(50, 32, 5)
    assert stability(a, b)["shared"] == pytest.approx(0.75, abs=0.01)
    assert stability(a, b)["pw_mcc"] == pytest.approx(1, abs=1e-5)


def written(sae: SAE, decoder: list[list[float]], encoder: list[list[float]]) -> SAE:
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor(decoder)), sae.free.copy_(torch.tensor(encoder))
    return sae


def test_a_feature_is_shared_where_decoder_and_encoder_match_the_same_one_closely() -> None:
    """Of five features the first is the same; then one's encoder is too far off, one's decoder, and two have swapped
    their encoders."""
    e = torch.eye(8).tolist()
    near, far = [[0.0] * 8 for _ in range(2)], [[0.0] * 8 for _ in range(2)]
    for i in (0, 1):
        near[i][i + 1], near[i][i + 5], far[i][i + 1], far[i][i + 5] = 0.8, 0.6, 0.6, 0.8  # cosines 0.8 and 0.6
    a = written(SAE(8, 5, "relu", 0.0, "none"), e[:5], e[:5])
    b = written(
        SAE(8, 5, "relu", 0.0, "none"), [e[0], near[0], far[1], e[3], e[4]], [e[0], far[0], near[1], e[4], e[3]]
    )
    found = stability(a, b)
    assert found["shared"] == pytest.approx(1 / 5)
    assert found["pw_mcc"] == pytest.approx((3 + 0.8 + 0.6) / 5)


def test_mmcs_is_of_both_directions() -> None:
    a = written(SAE(3, 2, "relu", 0.0, "none"), [[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]])
    b = written(SAE(3, 2, "relu", 0.0, "none"), [[1, 0, 0], [0.6, 0, 0.8]], [[1, 0, 0], [0, 1, 0]])
    assert max_cosine(a.W_dec, b.W_dec).tolist() == pytest.approx([1, 0])
    assert max_cosine(b.W_dec, a.W_dec).tolist() == pytest.approx([1, 0.6])
    assert stability(a, b)["mmcs"] == stability(b, a)["mmcs"] == pytest.approx((0.5 + 0.8) / 2)


def test_stability_gives_the_bound_of_its_decoder_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "match", lambda a, b, exact=40, candidates=5: match(a, b, exact, candidates))
    a, b = SAE(32, 200, constraint="none", seed=0), SAE(32, 200, constraint="none", seed=1)
    assert stability(a, b)["bound"] == match(a.W_dec, b.W_dec, 40, 5).bound > 0


def test_unrelated_dictionaries_share_nothing() -> None:
    a, b = SAE(64, 200, seed=0), SAE(64, 200, seed=1)
    found = stability(a, b)
    assert found["shared"] < 0.01
    assert found["pw_mcc"] < found["mmcs"] < 0.6


def test_at_initialisation_seeds_share_nothing_but_what_chance_gives() -> None:
    spec = RunSpec(d_sae=500, constraint="projected")
    a, b = (replace(spec, seed=seed).start(128) for seed in (0, 1))
    assert torch.equal(a.W_dec, spec.start(128).W_dec)
    found = stability(a, b)
    assert found["shared"] == 0
    assert found["mmcs"] == pytest.approx((2 * math.log(500) / 128) ** 0.5, abs=0.05)  # of random directions


def test_centring_takes_a_common_direction_away() -> None:
    """Unrelated dictionaries whose rows all lean one way look alike by raw cosines, and not by centred ones."""
    a, b = SAE(64, 200, constraint="none", seed=0), SAE(64, 200, constraint="none", seed=1)
    plain = stability(a, b, centre=True)
    with torch.no_grad():
        for sae in (a, b):
            for rows_ in (sae.W_dec, sae.free):
                rows_[:, 0] += 2
    leaning, less = stability(a, b), stability(a, b, centre=True)
    assert leaning["pw_mcc"] > 0.8
    assert leaning["shared"] > 0.05
    assert less["pw_mcc"] == pytest.approx(plain["pw_mcc"], abs=0.03)
    assert less["shared"] < 0.01


def test_centred_rows_sum_to_zero_and_lengths_do_not_matter() -> None:
    a = rows(30, 8, 0)
    lengths = torch.rand(30, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    plain = torch.nn.functional.normalize(a, dim=1)
    assert torch.allclose(centred(a), plain - plain.mean(0), atol=1e-6)
    assert torch.allclose(centred(lengths * a), centred(a), atol=1e-6)


def test_each_dictionary_is_centred_by_itself_over_the_features_looked_at() -> None:
    a, b, order = planted()
    with torch.no_grad():  # lean the dead half of one dictionary far away: it must not move the mean of the others
        b.W_dec[:100, 0] += 5
    alive_a, alive_b = torch.zeros(200, dtype=torch.bool), torch.arange(200) >= 100
    alive_a[order[100:]] = True
    assert stability(a, b, (alive_a, alive_b), centre=True)["pw_mcc"] == pytest.approx(1, abs=1e-5)
    assert stability(a, b, centre=True)["pw_mcc"] < 0.9


def test_only_alive_features_are_looked_at() -> None:
    a, b, order = planted()
    with torch.no_grad():
        b.W_dec[:100], b.free[:100] = rows(100, 32, 6), rows(100, 32, 7)
    alive_b = torch.arange(200) >= 100
    alive_a = torch.zeros(200, dtype=torch.bool)
    alive_a[order[100:]] = True
    assert stability(a, b)["shared"] == pytest.approx(0.5, abs=0.05)
    found = stability(a, b, (alive_a, alive_b))
    assert found["shared"] == 1
    assert found["features"] == 100
    assert stability(a, b, (torch.ones(200, dtype=torch.bool), alive_b))["shared"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("candidates", [2, 5, 20])
@pytest.mark.parametrize(("n", "m"), [(150, 150), (120, 150), (150, 120)])
def test_beyond_exactness_the_bound_holds(n: int, m: int, candidates: int) -> None:
    a = rows(n, 8, 0)
    b = torch.cat([a[: m // 2] + 0.3 * rows(m // 2, 8, 1), rows(m - m // 2, 8, 2)])
    exact, near = match(a, b), match(a, b, exact=40, candidates=candidates)
    pairs = near.of[near.of >= 0]
    assert len(pairs) == len(pairs.unique()) == min(n, m)
    assert near.mean <= exact.mean + 1e-6
    assert exact.mean <= near.mean + near.bound + 1e-6
    if candidates == 20:
        assert near.bound < 0.02


def test_what_cannot_be_compared_is_refused() -> None:
    one, two, three = (SAE(16, 20, sparsity=2, seed=seed) for seed in range(3))
    with pytest.raises(ValueError, match="widths 16 and 32"):
        stability(one, SAE(32, 20, sparsity=2))
    with pytest.raises(ValueError, match="at least 2 SAEs, and there is 1"):
        over_seeds([one])
    with pytest.raises(ValueError, match=r"alive is torch.int64 \(20,\); a mask, bool"):
        stability(one, two, (torch.ones(20, dtype=torch.long),) * 2)
    with pytest.raises(ValueError, match="no alive feature"):
        stability(one, two, (torch.zeros(20, dtype=torch.bool), torch.ones(20, dtype=torch.bool)))
    with pytest.raises(ValueError, match="alive has 2 masks, and there are 3 SAEs"):
        over_seeds([one, two, three], [torch.ones(20, dtype=torch.bool)] * 2)


def test_over_seeds_every_pair_is_compared_over_its_own_alive_features() -> None:
    saes = [SAE(16, 20, sparsity=2, seed=seed) for seed in range(3)]
    alive = [torch.arange(20) < count for count in (5, 10, 15)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert over_seeds(saes) == [stability(saes[i], saes[j]) for i, j in pairs]
    assert over_seeds(saes, alive) == [stability(saes[i], saes[j], (alive[i], alive[j])) for i, j in pairs]
    assert [found["features"] for found in over_seeds(saes, alive)] == [7.5, 10, 12.5]


def test_convergence_is_seen_where_two_trainings_meet_and_not_where_they_stay() -> None:
    starts = [SAE(32, 100, constraint="none", seed=seed).W_dec.detach() for seed in (0, 1)]
    goal = rows(100, 32, 9)
    meeting = [[(1 - t) * start + t * goal for t in (0, 0.5, 1)] for start in starts]
    found = convergence(*meeting)
    for name in ("pw_mcc", "pw_mcc_centred"):
        assert found[name][0] < 0.6
        assert found[name][0] < found[name][1] < found[name][2]
        assert found[name][2] == pytest.approx(1, abs=1e-5)
    assert found["pw_mcc"][0] == pytest.approx(match(*starts).mean)
    assert found["own_start"][0] == found["other_own_start"][0] == pytest.approx(1, abs=1e-5)
    cosines = torch.nn.functional.cosine_similarity(goal, starts[1], dim=1).abs()
    assert found["other_own_start"][2] == pytest.approx(cosines.mean().item(), abs=1e-5)
    still = convergence([starts[0]] * 2, [starts[1]] * 2)
    assert still["pw_mcc"][0] == still["pw_mcc"][1]
    with pytest.raises(ValueError, match="3 moments of the one training and 2 of the other"):
        convergence(meeting[0], meeting[1][:2])
