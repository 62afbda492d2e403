"""Training: the settings of the paper's stack (`dictionary_learning`'s demo), scaled to the token budget.

Adam with a linear warm-up and a linear decay over the last fifth; squared error summed over d_in and averaged over the
batch; for ReLU plus lambda |f|_1 with a warm-up of its own; decoder rows of norm 1 (the gradient along a row is
removed, the row is rescaled after the step); products in bf16, weights in float32. Nothing here depends on the
constraint but the three lines that say so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from aligned import checkpoint
from aligned.activations import Activations
from aligned.alignment import Rows, alignment_penalty, alignment_score, dot, projected
from aligned.sae import SAE
from aligned.sparse import batch_topk, topk
from aligned.spec import RunSpec

# Of the demo's 24,414 steps (50M tokens): 1000 steps of warm-up, 5000 of sparsity warm-up, decay over the last 20 %,
# the threshold from step 1000 on; a feature is dead that has not fired for 10M tokens.
WARMUP, SPARSITY_WARMUP, DECAY, THRESHOLD_START, DEAD = 1000 / 24414, 5000 / 24414, 0.2, 1000 / 24414, 0.2
THRESHOLD_MEMORY = 0.999
CLIP = 1.0  # of the gradient's norm, TopK and BatchTopK only, as in the paper's stack
LOG_ROWS = 50
COLUMNS = ("step", "tokens", "loss", "l0", "fvu", "dead", "alignment_mean", "alignment_p05", "alignment_p95")


@dataclass
class Gradients:
    """The loss of a batch, and its gradients by the encoder rows, the decoder and the biases."""

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]  # mean of |x - x_hat|^2
    g: Float[Tensor, "batch d_in"]  # by x_hat
    e: Rows
    d: Rows
    b_enc: Float[Tensor, " d_sae"]
    l0: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]


class Trainer:
    """One SAE in training: what changes from step to step, and how.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it.
        bf16: products with the batch in bf16; float32 otherwise.
    """

    def __init__(self, sae: SAE, spec: RunSpec, bf16: bool = True) -> None:
        self.sae, self.spec = sae, spec
        self.products = torch.bfloat16 if bf16 else torch.float32
        self.step = 0
        self.optimizer = torch.optim.Adam([p for p in sae.parameters()], lr=spec.lr, fused=True)
        self.unfired = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.b_dec.device)  # tokens since a feature fired

    @torch.no_grad()
    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step.

        The products with the batch are differentiated by hand, which saves half of them; what is left, the encoder as
        a function of the free parameter and the decoder, goes through autograd.
        """
        sae, spec = self.sae, self.spec
        if self.step == 0 and sae.activation != "relu":
            sae.b_dec.copy_(geometric_median(x))
        with torch.enable_grad():
            e = sae.encoder_rows
        found = self._dense(x, e) if sae.activation == "relu" else self._sparse(x, e)
        roots, gradients = [e], [found.e]
        if sae.constraint == "soft":
            with torch.enable_grad():
                roots.append(spec.soft * alignment_penalty(e, sae.W_dec))
            gradients.append(torch.ones_like(found.loss))
            found.loss += roots[-1].detach()
        torch.autograd.backward(roots, gradients)
        sae.W_dec.grad = found.d if sae.W_dec.grad is None else sae.W_dec.grad.add_(found.d)
        sae.b_enc.grad = found.b_enc
        sae.b_dec.grad = found.g.sum(0) - found.b_enc @ e

        self.optimizer.param_groups[0]["lr"] = spec.lr * learning_rate_scale(self.step, spec.steps)
        remove_parallel_gradient(sae.W_dec)
        if sae.activation != "relu":
            torch.nn.utils.clip_grad_norm_(sae.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
        if sae.constraint == "post_step":
            sae.free.copy_(projected(sae.free, sae.W_dec))
        self.unfired += len(x)
        self.unfired[found.fired] = 0
        self.step += 1
        variance = (x - x.mean(0)).square().sum(1).mean()
        return {"loss": found.loss, "l0": found.l0, "fvu": found.error / variance}

    def _dense(self, x: Float[Tensor, "batch d_in"], e: Rows) -> Gradients:
        """ReLU: all codes at once, in the products' own precision."""
        sae, p = self.sae, self.products
        encoder, decoder, centred = e.detach().to(p), sae.W_dec.to(p), (x - sae.b_dec).to(p)
        f = torch.addmm(sae.b_enc.to(p), centred, encoder.T).relu_()
        difference = (f @ decoder).float() + sae.b_dec - x
        penalty = self.spec.sparsity * self._sparsity_scale()
        g = 2 / len(x) * difference
        g_f = (g.to(p) @ decoder.T).add_(penalty / len(x))
        g_pre = torch.ops.aten.threshold_backward(g_f, f, 0)
        error = difference.square().sum(1).mean()
        one = x.new_ones(1).to(p)  # sums as products with 1, which in bf16 are far faster than sums
        one_each = one.expand(sae.d_sae)
        return Gradients(
            loss=error + penalty * (f @ one_each).float().mean(),
            error=error,
            g=g,
            e=(g_pre.T @ centred).float(),
            d=(f.T @ g.to(p)).float(),
            b_enc=(g_pre.T @ one.expand(len(x))).float(),
            l0=((f > 0).to(p) @ one_each).float().mean(),
            fired=f.amax(0) > 0,
        )

    def _sparse(self, x: Float[Tensor, "batch d_in"], e: Rows) -> Gradients:
        """TopK and BatchTopK: one dense product, to find the codes; all else is sparse, in float32."""
        sae, p = self.sae, self.products
        centred = x - sae.b_dec
        pre = torch.addmm(sae.b_enc.to(p), centred.to(p), e.detach().to(p).T)
        codes = (topk if sae.activation == "topk" else batch_topk)(pre, sae.k)
        if sae.activation == "batchtopk" and self.step > THRESHOLD_START * self.spec.steps:
            self._follow_threshold(codes.values)
        difference = codes.decode(sae.W_dec) + sae.b_dec - x
        g = 2 / len(x) * difference
        g_values = codes.gradient(sae.W_dec, g) * (codes.values > 0)
        where = codes.by_feature()
        error = difference.square().sum(1).mean()
        return Gradients(
            loss=error.clone(),
            error=error,
            g=g,
            e=where.sum(g_values, centred),
            d=where.sum(codes.values, g),
            b_enc=where.total(g_values),
            l0=(codes.values > 0).sum() / len(x),
            fired=where.total((codes.values > 0).float()) > 0,
        )

    def _follow_threshold(self, values: Float[Tensor, " n"]) -> None:
        """BatchTopK's threshold: a running mean of the least positive code that each batch keeps."""
        least = torch.where(values > 0, values, torch.inf).min()
        least = torch.where(least.isfinite(), least, 0.0)
        memory = torch.where(self.sae.threshold < 0, 0.0, THRESHOLD_MEMORY)
        self.sae.threshold.copy_(memory * self.sae.threshold + (1 - memory) * least)

    def _sparsity_scale(self) -> float:
        return min(1.0, self.step / max(1, round(SPARSITY_WARMUP * self.spec.steps)))

    @torch.no_grad()
    def dead(self) -> float:
        """Share of features that have not fired for a fifth of the token budget (10M of the demo's 50M)."""
        return (self.unfired >= DEAD * self.spec.tokens).float().mean().item()

    def tensors(self) -> dict[str, Tensor]:
        """All that a later step depends on."""
        state = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        return state | checkpoint.optimizer_tensors(self.optimizer, "adam") | {"unfired": self.unfired}

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on where `tensors` were taken."""
        self.sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        checkpoint.restore_optimizer(self.optimizer, "adam", tensors)
        self.unfired.copy_(tensors["unfired"])
        self.step = step


def train(
    spec: RunSpec,
    activations: Activations,
    folder: Path,
    save_every: float = 60.0,
    progress: Callable[[int], object] | None = None,
) -> tuple[SAE, float]:
    """Train an SAE to the end, from the checkpoint in `folder` if there is one.

    Args:
        spec: what to train.
        activations: where its batches come from.
        folder: for `checkpoint.safetensors` and `log.csv`.
        save_every: seconds between checkpoints.
        progress: called with the number of tokens after each step; a bar of its own by default.

    Returns:
        The SAE, for scaled activations, and the seconds that training took, those before an interruption included.

    Raises:
        FloatingPointError: the loss is no longer finite; names the step; the last checkpoint is kept.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = SAE(
        activations.d_in, spec.d_sae, spec.activation, spec.sparsity, spec.constraint, spec.init, spec.seed
    ).to(device)  # fmt: skip
    trainer = Trainer(sae, spec)
    place, log = folder / "checkpoint.safetensors", folder / "log.csv"
    rows: list[str] = []
    before = 0.0
    if place.exists():
        tensors, meta = checkpoint.load(place, device)
        trainer.restore(tensors, meta["step"])
        rows, before = meta["log"], meta["seconds"]
    started = saved = time.perf_counter()
    bar = None
    if progress is None:
        bar = tqdm(total=spec.tokens, initial=trainer.step * spec.batch, unit="tok", unit_scale=True, desc=spec.name)
        progress = bar.update
    every = max(1, spec.steps // LOG_ROWS)
    while trainer.step < spec.steps:
        stats = trainer.update(activations.batch(spec.seed, trainer.step, spec.batch).to(device))
        progress(spec.batch)
        if not math.isfinite(stats["loss"].item()):
            raise FloatingPointError(
                f"the loss is {stats['loss'].item()} at step {trainer.step - 1} of {spec.name}; a smaller lr than "
                f"{spec.lr:g} may help. The last checkpoint is kept in {folder}"
            )
        last = trainer.step == spec.steps
        if trainer.step % every == 0 or last:
            rows.append(_log_row(trainer, stats))
            if bar is not None:
                bar.set_postfix_str(f"loss {stats['loss']:.4f}, L0 {stats['l0']:.1f}, FVU {stats['fvu']:.4f}")
        if last or time.perf_counter() - saved > save_every:
            saved = time.perf_counter()
            meta = {"step": trainer.step, "log": rows, "seconds": before + saved - started}
            checkpoint.save(place, trainer.tensors(), meta)
    checkpoint.write_text(log, "\n".join([",".join(COLUMNS), *rows]) + "\n")
    if bar is not None:
        bar.close()
    return sae, before + time.perf_counter() - started


def _log_row(trainer: Trainer, stats: dict[str, Tensor]) -> str:
    a = alignment_score(trainer.sae)
    low, high = torch.quantile(a, torch.tensor([0.05, 0.95], device=a.device)).tolist()
    values = [stats["loss"].item(), stats["l0"].item(), stats["fvu"].item(), trainer.dead(), a.mean().item(), low, high]
    return ",".join([str(trainer.step), str(trainer.step * trainer.spec.batch), *(f"{v:.6g}" for v in values)])


def learning_rate_scale(step: int, steps: int) -> float:
    """Up from 0 over the warm-up, level, down to 0 over the last fifth."""
    warmup, decay_start = round(WARMUP * steps), round((1 - DECAY) * steps)
    if step < warmup:
        return step / warmup
    return 1.0 if step < decay_start else (steps - step) / (steps - decay_start)


@torch.no_grad()
def remove_parallel_gradient(rows: Tensor) -> None:
    """Take from a gradient what would only change the length of a row."""
    assert rows.grad is not None
    unit = rows / rows.norm(dim=1, keepdim=True)
    rows.grad -= dot(rows.grad, unit) * unit


@torch.no_grad()
def geometric_median(x: Float[Tensor, "n d_in"], steps: int = 100, tolerance: float = 1e-5) -> Float[Tensor, " d_in"]:
    """The point with the least sum of distances to the rows of x, by Weiszfeld's iteration."""
    guess = x.mean(0)
    for _ in range(steps):
        weight = 1 / (x - guess).norm(dim=1, keepdim=True).clamp_min(1e-12)
        last, guess = guess, (weight * x).sum(0) / weight.sum()
        if (guess - last).norm() < tolerance:
            break
    return guess
