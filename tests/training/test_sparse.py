"""Sparse codes against the dense result, and the gradients by hand against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aligned import alignment
from aligned.methods.topk import keep_topk
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training import sparse
from aligned.training.fused import Trainer
from tests.plain import keep_batch_topk


@pytest.fixture
def pre() -> Tensor:
    return torch.randn(24, 96, generator=torch.Generator().manual_seed(0))


def dense(codes: sparse.Codes) -> Tensor:
    f = torch.zeros(len(codes.starts) - 1, codes.d_sae)
    tokens = torch.repeat_interleave(codes.starts.diff())
    return f.index_put_((tokens, codes.features.long()), codes.values, accumulate=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("select", "reference"), [(sparse.topk, keep_topk), (sparse.batch_topk, keep_batch_topk)], ids=["topk", "batchtopk"]
)
@pytest.mark.parametrize("d_sae", [96, 95, 7])  # in groups of several sizes
def test_codes_are_the_dense_ones(pre: Tensor, select, reference, dtype: torch.dtype, d_sae: int) -> None:  # type: ignore[no-untyped-def]
    pre = pre[:, :d_sae].to(dtype).contiguous()
    for k in (1, 3, d_sae // 2, d_sae):  # at the last some of the largest are negative, and no codes
        found, expected = dense(select(pre, k)), reference(pre.relu(), k).float()
        if dtype == torch.bfloat16:  # in which equal values abound, and any of them may be kept
            assert ((found == 0) | (found == pre)).all()
            shape = (1, -1) if select is sparse.batch_topk else (24, -1)
            found, expected = (a.view(shape).sort(1).values for a in (found, expected))
        assert torch.equal(found, expected)


def test_positive_codes_are_all_that_are_over_0(pre: Tensor) -> None:
    for x in (pre, pre.bfloat16(), pre[:, :95].contiguous()):
        assert torch.equal(dense(sparse.positive(x)), x.relu().float())
    assert len(sparse.positive(-pre.abs()).values) == 0


@pytest.mark.parametrize("select", [sparse.topk, sparse.batch_topk])
def test_decoding_and_its_gradients_are_the_dense_ones(pre: Tensor, select) -> None:  # type: ignore[no-untyped-def]
    codes = select(pre, 7)
    f = dense(codes).requires_grad_()
    W_dec = torch.randn(96, 20, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x, b_dec = (torch.randn(n, 20, generator=torch.Generator().manual_seed(2)) for n in (24, 1))
    expected = f @ W_dec + b_dec - x
    (0.5 * expected.square().sum()).backward()
    difference, dots = codes.reconstruct(W_dec.detach(), b_dec[0], x)
    assert torch.allclose(difference, expected, atol=1e-5)
    tokens = torch.repeat_interleave(codes.starts.diff())
    assert torch.allclose(dots, f.grad[tokens, codes.features.long()], atol=1e-4)  # type: ignore[index]
    where = codes.by_feature()
    assert torch.allclose(where.sum(codes.values, difference), W_dec.grad, atol=1e-4)  # type: ignore[arg-type]
    assert torch.allclose(where.total(codes.values), f.sum(0), atol=1e-5)


def test_a_batch_in_which_some_tokens_keep_nothing() -> None:
    pre = torch.zeros(3, 4) - 1
    pre[1, 2] = 5
    codes = sparse.batch_topk(pre, 1)
    assert torch.equal(dense(codes), keep_batch_topk(pre.relu(), 1))
    difference, _ = codes.reconstruct(torch.eye(4), torch.zeros(4), torch.ones(3, 4))
    assert torch.equal(difference, torch.tensor([[-1.0, -1, -1, -1], [-1, -1, 4, -1], [-1, -1, -1, -1]]))


@pytest.mark.parametrize("constraint", list(alignment.CONSTRAINTS))
@pytest.mark.parametrize(
    ("activation", "sparsity", "dense_products"),
    [("relu", 0.3, False), ("relu", 0.3, True), ("topk", 4, False), ("batchtopk", 4, False)],
)
def test_gradients_by_hand_are_autograds(
    activation: str, sparsity: float, dense_products: bool, constraint: str, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr("aligned.training.fused.DENSE", -1 if dense_products else 1)
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda: seen.update({n: p.grad.clone() for n, p in sae.named_parameters()})
    )
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
    same.W_dec.grad -= (
        (same.W_dec.grad * same.W_dec).sum(1, keepdim=True) * same.W_dec / same.W_dec.square().sum(1, keepdim=True)
    )
    for name, p in same.named_parameters():
        assert torch.allclose(seen[name], p.grad, atol=2e-5 * p.grad.abs().max().item() + 1e-6), name
    if activation != "relu":  # the divisor that clips the gradient's norm at 1
        norm = torch.nn.utils.clip_grad_norm_(same.parameters(), 1.0).item()
        assert trainer.optimizer.grad_scale.item() == pytest.approx(max(1.0, norm), rel=1e-4)  # type: ignore[attr-defined]
