"""Tokens per second of a training step, ours beside SAELens's trainer, in one run: `make bench`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.train import Trainer

D_IN, D_SAE, BATCH, K = 128, 2048, 2048, 32
WARM_UP, STEPS = 3, 9


def ours(constraint: str) -> Callable[[torch.Tensor], object]:
    spec = RunSpec(d_sae=D_SAE, sparsity=K, constraint=constraint)  # type: ignore[arg-type]
    trainer = Trainer(SAE(D_IN, D_SAE, "topk", K, spec.constraint), spec)
    return trainer.update


def saelens() -> Callable[[torch.Tensor], object]:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K, device="cpu"))
    optimizer = torch.optim.Adam(sae.parameters())

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        sae.training_forward_pass(
            TrainStepInput(sae_in=x, dead_neuron_mask=None, coefficients={}, n_training_steps=0, is_logging_step=False)
        ).loss.backward()
        optimizer.step()

    return step


def main() -> None:
    arms = {
        "standard": ours("none"),
        "aligned": ours("projected"),
        "SAELens, its forward pass and plain Adam": saelens(),
    }
    x = torch.randn(BATCH, D_IN)
    x /= x.square().sum(1).mean().sqrt()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(WARM_UP + STEPS):  # in turn, so that a machine that slows down slows all of them
        for name, step in arms.items():
            start = time.perf_counter()
            step(x)
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    print(
        f"TopK, d_in {D_IN}, d_sae {D_SAE}, k {K}, batch {BATCH}, {torch.get_num_threads()} threads; median of {STEPS}"
    )
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:44s} {1000 * median:7.1f} ms/step {BATCH / median:10,.0f} tokens/s")


if __name__ == "__main__":
    main()
