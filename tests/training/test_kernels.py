"""The compiled inner loops, those of a CPU and those of a GPU (here in Triton's interpreter), against plain ones."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from aligned.alignment import Constraint, projected
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training import kernels_cpu
from aligned.training.fused import Trainer


def triton_interpreted() -> ModuleType:
    pytest.importorskip("triton", reason="not installed: `make setup` does it")
    from aligned.training import kernels_cuda

    return kernels_cuda


@pytest.fixture(params=["cpu", "cuda"])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return kernels_cpu if request.param == "cpu" else triton_interpreted()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ragged(lengths: list[int], n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, places and values of a sparse matrix with rows of these lengths, and the same matrix dense."""
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    places = torch.cat(
        [torch.randperm(n, generator=torch.Generator().manual_seed(i))[:k] for i, k in enumerate(lengths)]
    )
    return starts, places.int(), random(len(places), seed=3)


def dense(starts: Tensor, places: Tensor, values: Tensor, n: int) -> Tensor:
    f = torch.zeros(len(starts) - 1, n)
    f[torch.repeat_interleave(starts.diff()), places.long()] = values
    return f


LENGTHS = [0, 1, 5, 12, 0, 4, 7, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rectify(kernels: ModuleType, dtype: torch.dtype) -> None:
    pre = (random(40, 33) - 1.5).to(dtype)
    pre[:, 3], pre[0, 5], pre[:, 7] = -1.0, 0.0, -0.0
    expected = pre.relu()
    active, fired = kernels.rectify(pre)
    assert torch.equal(pre, expected)
    assert int(active) == int((expected > 0).sum())
    assert torch.equal(fired, (expected > 0).any(0))
    assert not fired[[3, 7]].any()


@pytest.mark.parametrize("d_in", [16, 21])
def test_reconstruct(kernels: ModuleType, d_in: int) -> None:
    starts, features, values = ragged(LENGTHS, 13)
    W_dec, b_dec, x = random(13, d_in), random(d_in, seed=1), random(len(LENGTHS), d_in, seed=2)
    difference, dots = kernels.reconstruct(values, features, starts, W_dec, b_dec, x)
    expected = dense(starts, features, values, 13) @ W_dec + b_dec - x
    assert torch.allclose(difference, expected, atol=1e-5)
    tokens = torch.repeat_interleave(starts.diff())
    assert torch.allclose(dots, (expected[tokens] * W_dec[features.long()]).sum(1), atol=1e-4)


def test_weighted_sums(kernels: ModuleType) -> None:
    starts, rows, weights = ragged(LENGTHS, 13)
    x = random(13, 21)
    assert torch.allclose(
        kernels.weighted_sums(starts, rows, weights, x), dense(starts, rows, weights, 13) @ x, atol=1e-5
    )


@pytest.mark.parametrize("aligned", [False, True])
def test_pull_back_is_autograds_without_what_lies_along_the_decoder(kernels: ModuleType, aligned: bool) -> None:
    v, d = random(9, 21).requires_grad_(), (0.3 * random(9, 21, seed=1)).requires_grad_()
    g_e, g_d = random(9, 21, seed=2), random(9, 21, seed=3)
    e = projected(v, d) if aligned else v * 1
    e.backward(g_e)
    by_d = g_d if d.grad is None else g_d + d.grad
    by_d = by_d - (by_d * d).sum(1, keepdim=True) * d / d.square().sum(1, keepdim=True)
    squares = kernels.pull_back(g_e, g_d, v.detach(), d.detach(), aligned)
    assert torch.allclose(g_e, v.grad, atol=1e-4)  # type: ignore[arg-type]
    assert torch.allclose(g_d, by_d, atol=1e-4)
    assert torch.allclose(squares, g_e.square().sum(1) + g_d.square().sum(1), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_encoder(kernels: ModuleType, aligned: bool, normalise: bool, dtype: torch.dtype) -> None:
    v, d, out = random(9, 21), 0.3 * random(9, 21, seed=1), torch.full((9, 25), 7, dtype=dtype)
    row = d / d.norm(dim=1, keepdim=True) if normalise else d.clone()
    kernels.encoder(v, d, aligned, normalise, out)
    assert torch.allclose(d, row, atol=1e-6)
    expected = projected(v, row) if aligned else v
    assert (out[:, 21:] == 7).all()
    assert torch.allclose(
        out[:, :21].float(), expected.to(dtype).float(), atol=1e-5 if dtype == torch.float32 else 0.02
    )


@pytest.mark.parametrize("constraint", ["none", "projected"])
@pytest.mark.parametrize("activation", ["relu", "topk", "batchtopk"])
def test_a_run_with_the_gpus_loops_is_a_run_with_the_cpus(
    activation: str, constraint: Constraint, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = triton_interpreted()

    class Mixed:  # a ReLU's codes are all that are over 0, which a GPU does not list: there its products are dense
        @staticmethod
        def above(pre: Tensor, largest: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
            return kernels_cpu.above(pre) if largest is None else gpus.above(pre, largest)

        def __getattr__(self, name: str) -> object:
            return getattr(gpus, name)

    def run() -> SAE:
        sparsity = 0.05 if activation == "relu" else 4
        spec = RunSpec(
            d_sae=24, activation=activation, sparsity=sparsity, constraint=constraint, tokens=40, batch=8, lr=1e-2
        )
        trainer = Trainer(SAE(12, 24, activation, sparsity, constraint), spec, bf16=False)
        # With Adam's own eps a gradient that is nothing but rounding would move a weight by a whole learning rate.
        trainer.optimizer.param_groups[0]["eps"] = 1e-3
        for step in range(spec.steps):
            trainer.update(random(8, 12, seed=step))
        return trainer.sae

    ours = run()
    monkeypatch.setattr("aligned.training.fused.kernels", lambda _: Mixed())
    monkeypatch.setattr("aligned.training.sparse.kernels", lambda _: Mixed())
    for name, value in run().state_dict().items():
        assert torch.allclose(value, ours.state_dict()[name], atol=1e-5), name


def test_bf16_is_rounded_to_the_nearest() -> None:
    v = random(50, 64)
    out = torch.empty(50, 64, dtype=torch.bfloat16)
    kernels_cpu.encoder(v, v.clone(), False, False, out)
    assert torch.equal(out, v.bfloat16())
