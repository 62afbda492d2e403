"""Speed and memory of one training step, beside the peers' and beside the machine's own limit.

    aligned bench speed                       # S, M and L (M, L and XL on a GPU), half an hour on two cores
    aligned bench speed --shapes M --arms aligned standard

Every arm is measured in a process of its own, so that its peak of memory is its own and none runs with what another
has set. A step is the whole of it: forward, backward, optimizer, bookkeeping. The table is printed, and written as
JSON for the page "Cost" of the book.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aligned.files import write_json
from aligned.precision import dtype, precision
from aligned.provenance import commit, device

BATCH, K, RELU_L0 = 2048, 32, 64
STEPS, TURNS, WARM_UP = (
    7,
    61,
    3,
)  # of ours; of the peers, whose steps take seconds, 5 after 1; arms that take turns, 61 after 3
SHAPES = {"S": (128, 2048), "M": (768, 16384), "L": (768, 65536), "XL": (2304, 65536)}
OURS = ("aligned", "standard")
SAELENS = ("SAELens", "SAELens, sparse", "SAELens, autocast", "SAELens, both")
ARMS = {
    "topk": (
        "aligned+standard+floor",
        "floor",
        "floor, our selection",
        "roofline",
        *OURS,
        *SAELENS,
        "dictionary_learning",
        "dictionary_learning, autocast",
    ),
    "batchtopk": ("aligned+standard", *OURS, *SAELENS, "dictionary_learning", "dictionary_learning, autocast"),
    "relu": (
        "aligned+standard",
        *OURS,
        "SAELens",
        "SAELens, autocast",
        "dictionary_learning",
        "dictionary_learning, autocast",
    ),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESULT = Path(__file__).parents[1] / "results" / f"cost-{DEVICE}.json"
Step = Callable[[Tensor], object]


def bias_for_l0(pre: Tensor) -> Tensor:
    """The bias with which RELU_L0 features a token are over 0."""
    rows = pre[:64].float()
    return -rows.kthvalue(rows.shape[1] - RELU_L0, dim=1).values.mean()


def ours(activation: str, d_in: int, d_sae: int, arm: str, x: Tensor) -> Step:
    from aligned.sae import SAE
    from aligned.spec import RunSpec
    from aligned.training.fused import Trainer
    from aligned.training.memory import keep_freed_memory

    keep_freed_memory()
    sparsity, constraint = (1e-3 if activation == "relu" else K), ("none" if arm == "standard" else "projected")
    spec = RunSpec(d_sae=d_sae, activation=activation, sparsity=sparsity, constraint=constraint)  # type: ignore[arg-type]
    sae = SAE(d_in, d_sae, spec.activation, spec.sparsity, spec.constraint).to(DEVICE)
    if activation == "relu":
        sae.b_enc.data += bias_for_l0(x @ sae.W_enc)
    return Trainer(sae, spec).update


def saelens(activation: str, d_in: int, d_sae: int, arm: str, x: Tensor) -> Step:
    import sae_lens as s
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "device": DEVICE}
    if arm in ("SAELens, sparse", "SAELens, both"):
        common["use_sparse_activations"] = True
        if activation == "topk":  # its rescaling by decoder norms, on by default, knows no sparse codes
            common["rescale_acts_by_decoder_norm"] = False
    if activation == "topk":
        sae = s.TopKTrainingSAE(s.TopKTrainingSAEConfig(**common, k=K))
    elif activation == "batchtopk":
        sae = s.BatchTopKTrainingSAE(s.BatchTopKTrainingSAEConfig(**common, k=K))
    else:
        sae = s.StandardTrainingSAE(s.StandardTrainingSAEConfig(**common, l1_coefficient=1e-3))
        sae.b_enc.data += bias_for_l0(x @ sae.W_enc)
    config = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=BATCH, lr_end=3e-5, device=DEVICE,
        autocast=arm in ("SAELens, autocast", "SAELens, both"),
    )  # fmt: skip
    return SAETrainer(config, sae, iter([x])).step


def dictionary_learning(activation: str, d_in: int, d_sae: int, arm: str, x: Tensor) -> Step:
    from tests import peer

    sparsity = 1e-3 if activation == "relu" else K
    trainer = peer.trainer(activation, 10**6, d_in, d_sae, sparsity, 3e-4, DEVICE)
    if activation == "relu":
        trainer.ae.encoder.bias.data += bias_for_l0(x @ trainer.ae.encoder.weight.T + trainer.ae.encoder.bias)
    number = iter(range(10**6))

    def step(x: Tensor) -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=arm.endswith("autocast")):
            trainer.update(next(number), x)

    return step


def floor(activation: str, d_in: int, d_sae: int, arm: str, x: Tensor) -> Step:
    """What no step can do without: the product that finds the codes, in the precision of this processor, and the
    selection of the largest, with torch's `topk` or with ours."""
    from aligned.training import sparse
    from aligned.training.memory import keep_freed_memory

    select = sparse.topk if arm.endswith("our selection") else lambda pre, k: pre.topk(k, sorted=False)
    keep_freed_memory()
    W_enc = torch.randn(d_sae, d_in, device=DEVICE, dtype=dtype()).T
    pre = torch.empty(BATCH, d_sae, device=DEVICE, dtype=dtype())
    return lambda x: select(torch.mm(x.to(pre.dtype), W_enc, out=pre), K)


def roofline(activation: str, d_in: int, d_sae: int, arm: str, x: Tensor) -> Step:
    """The machine's own limit, with the best that torch has for either: the product that finds the codes, and the
    optimizer's pass over weights, gradients and moments. All else that a step does would be free."""
    from aligned.training.memory import keep_freed_memory

    keep_freed_memory()
    weights = [torch.nn.Parameter(torch.randn(d_sae, d_in, device=DEVICE)) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.Adam(weights, fused=True)
    W_enc, pre = weights[0].detach().to(dtype()).T, torch.empty(BATCH, d_sae, device=DEVICE, dtype=dtype())

    def step(x: Tensor) -> None:
        torch.mm(x.to(pre.dtype), W_enc, out=pre)
        optimizer.step()

    return step


def measure(shape: str, activation: str, arm: str) -> dict[str, Any]:
    """Median seconds of a step, its spread, and the process's peak of memory. For several arms, joined by a plus sign,
    they take turns step by step, so that what slows the machine slows all of them; their seconds come as lists."""
    import resource

    d_in, d_sae = SHAPES[shape]
    torch.manual_seed(0)
    batches = torch.randn(8, BATCH, d_in, device=DEVICE) / d_in**0.5
    makers = {"r": roofline, "f": floor, "a": ours, "s": ours, "S": saelens, "d": dictionary_learning}
    names = arm.split("+")
    steps = [makers[name[0]](activation, d_in, d_sae, name, batches[0]) for name in names]
    seconds: list[list[float]] = [[] for _ in names]
    warm_up, timed = (1, 5) if arm[0] in "Sd" else (WARM_UP, STEPS if len(names) == 1 else TURNS)
    for number in range(warm_up + timed):
        for step, times in zip(steps, seconds):
            wait()
            start = time.perf_counter()
            step(batches[number % len(batches)])
            wait()
            if number >= warm_up:
                times.append(time.perf_counter() - start)
    gpu = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
    peak = gpu if gpu is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"shape": shape, "d_in": d_in, "d_sae": d_sae, "activation": activation, "arm": arm, "peak_gb": peak / 1e9}
    if len(names) > 1:
        return facts | {"turns": dict(zip(names, seconds)), "seconds": statistics.median(seconds[0])}
    return facts | {"seconds": statistics.median(seconds[0]), "least": min(seconds[0]), "most": max(seconds[0])}


def print_shares(rows: Iterable[dict[str, Any]]) -> None:
    """How near ours come to the machine's own limit."""
    seconds = {(row["shape"], row["activation"], row["arm"]): row["seconds"] for row in rows}
    for (shape, activation, arm), taken in seconds.items():
        limit = seconds.get((shape, "topk", "roofline"))
        if arm == "aligned" and limit is not None:
            print(f"{shape:3s} {activation:10s} aligned: {limit / taken:.0%} of the roofline ({1000 * limit:.1f} ms)")


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def each_in_its_own_process(jobs: list[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    for job in jobs:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed", "--one", *job], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
            print(f"{'/'.join(job):60s} failed: {reason}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{row['shape']:3s} {row['activation']:10s} {row['arm']:32s} {1000 * row['seconds']:9.1f} ms/step "
            f"{BATCH / row['seconds']:11,.0f} tokens/s {row['peak_gb']:6.1f} GB",
            flush=True,
        )
        for name, times in row.get("turns", {}).items():
            ratio = statistics.median(a / b for a, b in zip(next(iter(row["turns"].values())), times))
            seconds = statistics.median(times)
            print(f"{'':14s} in turns: {name:22s} {1000 * seconds:9.1f} ms/step; aligned is {ratio:.3f} of it")
        yield row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=["S", "M", "L"] if DEVICE == "cpu" else ["M", "L", "XL"]
    )
    parser.add_argument("--activations", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--arms", nargs="+", default=None, help="some of the arms; by default all that there are")
    parser.add_argument(
        "--out", type=Path, default=RESULT, help="the JSON record; rows that are there stay, unless measured again"
    )
    parser.add_argument("--one", nargs=3, metavar=("SHAPE", "ACTIVATION", "ARM"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    arms = list(dict.fromkeys(arm for activation in options.activations for arm in ARMS[activation]))
    if unknown := set(options.arms or ()) - set(arms):
        parser.error(f"no arm {', '.join(sorted(unknown))}; there are: {'; '.join(arms)}")
    jobs = [
        (shape, activation, arm)
        for shape in options.shapes
        for activation in options.activations
        for arm in ARMS[activation]
        if options.arms is None or arm in options.arms
    ]
    facts = {
        "machine": device(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": precision(),
        "batch": BATCH,
        "k": K,
        "relu_l0": RELU_L0,
    }
    rows = {}
    if options.out.exists():
        before = json.loads(options.out.read_text())
        if other := [key for key in facts if {"precision": "bf16", **before}.get(key) != facts[key]]:
            parser.error(
                f"{options.out} was measured with another {', '.join(other)}, and rows of two machines are not to be "
                "compared: name another file with --out, or move that one away"
            )
        rows = {(row["shape"], row["activation"], row["arm"]): row for row in before["rows"]}
    for row in each_in_its_own_process(jobs):
        rows[row["shape"], row["activation"], row["arm"]] = row | {"commit": commit()}
        write_json(options.out, facts | {"rows": list(rows.values())})  # as they come, so that none is lost
    print_shares(rows.values())
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
