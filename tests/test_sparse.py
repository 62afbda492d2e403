"""Sparse codes against the dense result, and the gradients by hand against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aligned import alignment, sparse
from aligned.sae import SAE, keep_batch_topk, keep_topk
from aligned.spec import RunSpec
from aligned.train import Trainer


@pytest.fixture
def pre() -> Tensor:
    return torch.randn(24, 40, generator=torch.Generator().manual_seed(0))


def dense(codes: sparse.Codes, batch: int) -> Tensor:
    lengths = torch.diff(codes.starts, append=torch.tensor([len(codes.values)]))
    f = torch.zeros(batch, codes.d_sae)
    f[torch.repeat_interleave(lengths), codes.features] = codes.values
    return f


@pytest.mark.parametrize(
    ("select", "reference"), [(sparse.topk, keep_topk), (sparse.batch_topk, keep_batch_topk)], ids=["topk", "batchtopk"]
)
def test_codes_are_the_dense_ones(pre: Tensor, select, reference) -> None:  # type: ignore[no-untyped-def]
    for k in (1, 5, 40):  # at 40 some of the largest are negative, and no codes
        assert torch.equal(dense(select(pre, k), 24), reference(pre.relu(), k))


@pytest.mark.parametrize("select", [sparse.topk, sparse.batch_topk])
def test_decoding_and_its_gradients_are_the_dense_ones(pre: Tensor, select) -> None:  # type: ignore[no-untyped-def]
    codes = select(pre, 3)
    f = dense(codes, 24).requires_grad_()
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    g = torch.randn(24, 8, generator=torch.Generator().manual_seed(2))
    (f @ rows).backward(g)
    assert torch.allclose(codes.decode(rows), f @ rows, atol=1e-5)
    where = codes.by_feature()
    assert torch.allclose(where.sum(codes.values, g), rows.grad, atol=1e-5)
    values = codes.gradient(rows, g)
    assert torch.allclose(where.total(codes.values), f.sum(0), atol=1e-5)
    per_entry = dense(sparse.Codes(values, codes.features, codes.starts, 40), 24)
    assert torch.allclose(per_entry[f > 0], f.grad[f > 0], atol=1e-5)


def test_a_batch_in_which_some_tokens_keep_nothing() -> None:
    pre = torch.zeros(3, 4) - 1
    pre[1, 2] = 5
    codes = sparse.batch_topk(pre, 1)
    assert torch.equal(dense(codes, 3), keep_batch_topk(pre.relu(), 1))
    assert torch.equal(codes.decode(torch.eye(4))[1], torch.tensor([0.0, 0, 5, 0]))


@pytest.mark.parametrize("constraint", list(alignment.CONSTRAINTS))
@pytest.mark.parametrize(("activation", "sparsity"), [("relu", 0.3), ("topk", 4), ("batchtopk", 4)])
def test_gradients_by_hand_are_autograds(
    activation: str, sparsity: float, constraint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the optimizer sees, against a loss written down and differentiated in one piece."""
    spec = RunSpec(d_sae=48, activation=activation, sparsity=sparsity, constraint=constraint, soft=0.7, lr=1e-3)  # type: ignore[arg-type]
    sae, same = (SAE(12, 48, activation, sparsity, constraint, seed=3) for _ in range(2))  # type: ignore[arg-type]
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for a, b in zip(sae.parameters(), same.parameters()):
            a += 0.2 * torch.randn(a.shape, generator=noise)
            b.copy_(a)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(6))
    trainer = Trainer(sae, spec, bf16=False)
    trainer.step = 10_000  # past the warm-up
    seen: dict[str, Tensor] = {}
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda: seen.update({n: p.grad.clone() for n, p in sae.named_parameters()})
    )
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *_: None)
    monkeypatch.setattr("aligned.train.remove_parallel_gradient", lambda _: None)
    stats = trainer.update(x)

    f = same.pre_activations(x)
    if activation != "relu":
        f = (keep_topk if activation == "topk" else keep_batch_topk)(f, 4)
    loss = (x - same.decode(f)).square().sum(1).mean()
    if activation == "relu":
        loss = loss + sparsity * f.sum(1).mean()
    if constraint == "soft":
        loss = loss + 0.7 * (torch.diag(same.W_dec @ same.W_enc) - 1).square().mean()
    loss.backward()
    assert stats["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert stats["l0"].item() == pytest.approx((f > 0).sum().item() / 64, rel=1e-5)
    for name, p in same.named_parameters():
        assert torch.allclose(seen[name], p.grad, atol=2e-5 * p.grad.abs().max().item() + 1e-6), name
