"""A training step by hand, several times as fast as autograd's.

It does what `aligned.training.autograd` says in plain terms, for every constraint and the methods that say `by_hand`; a
test holds the two together. One product, x W_enc, is dense; it is in bf16 where the processor has units for that
(`aligned.precision`). Weights are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aligned.alignment import Constraint, Rows, alignment_penalty, projected
from aligned.precision import Precision, dtype
from aligned.sae import SAE
from aligned.spec import RunSpec
from aligned.training.schedule import CLIP, geometric_median, learning_rate_scale, remove_parallel_gradient
from aligned.training.sparse import Codes, batch_topk, kernels, positive, topk
from aligned.training.state import Training

# Constraints whose part of the step is folded into the pass over the rows that every step makes anyway (e = v, or e
# `projected`); the gradients of the others go through autograd.
FOLDED: tuple[Constraint, ...] = ("none", "post_step", "projected")
DENSE = 1 / 25  # share of active features from which on dense products are faster than sparse sums
LOOK = 32  # tokens that it is estimated from
MARGIN = 32  # columns beside those of d_in, to hold a bias and keep rows aligned for the hardware


@dataclass
class Gradients:
    """The loss of a batch, and its gradients by the encoder rows, the decoder, the encoder bias and x_hat."""

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]  # mean of |x - x_hat|^2
    e: Rows
    d: Rows
    b_enc: Float[Tensor, " d_sae"]
    x_hat: Float[Tensor, " d_in"]  # summed over the batch
    l0: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]


class Trainer(Training):
    """One SAE in training.

    The products with the batch are differentiated by hand, which saves half of them; where codes are few only one of
    them is dense, the one that finds the codes. Nothing in a step waits for a GPU.

    Args:
        sae: as initialised; it is trained in place.
        spec: how to train it.
        bf16: dense products in bf16, or in float32; by default as `aligned.precision` says.
    """

    def __init__(self, sae: SAE, spec: RunSpec, bf16: bool | None = None) -> None:
        # torch's fused Adam takes weights and gradients as they lie in memory, and steps a view by another's gradient.
        if views := [name for name, p in sae.named_parameters() if not p.is_contiguous()]:
            raise ValueError(f"{', '.join(views)} of this SAE is a view of other memory; give a contiguous copy of it")
        super().__init__(sae, spec, fused=True)
        device = sae.b_dec.device
        # [e, b_enc, 0 ...], to be multiplied with [x - b_dec, 1, 0 ...]: so the bias costs no pass of its own.
        of_products = dtype(device) if bf16 is None else torch.bfloat16 if bf16 else torch.float32
        self.encoder = torch.zeros(sae.d_sae, sae.d_in + MARGIN, device=device, dtype=of_products)
        self.inputs = self.encoder.new_empty(0)
        self.pre = self.encoder.new_empty(0)  # pre-activations; their memory is used again at each step
        self._write_encoder(normalise=False)

    @property
    def precision(self) -> Precision:
        return "bf16" if self.encoder.dtype == torch.bfloat16 else "float32"

    @torch.no_grad()
    def update(self, x: Float[Tensor, "batch d_in"]) -> dict[str, Tensor]:
        """One step. Returns loss, L0 and FVU of the batch, before the step."""
        sae, p = self.sae, self.encoder.dtype
        if self.step == 0 and self.method.counts:
            sae.b_dec.copy_(geometric_median(x))
        if len(self.pre) != len(x):
            self.pre = self.encoder.new_empty(len(x), sae.d_sae)
            self.inputs = self.encoder.new_zeros(len(x), self.encoder.shape[1])
            self.inputs[:, sae.d_in] = 1
        centred = x - sae.b_dec
        self.inputs[:, : sae.d_in] = centred
        torch.mm(self.inputs, self.encoder.T, out=self.pre)
        found = self._dense(x) if self._many_active() else self._sparse(x, centred)
        sae.b_enc.grad = found.b_enc
        sae.b_dec.grad = found.x_hat - (found.b_enc.to(p) @ self.encoder[:, : sae.d_in]).float()
        squares = self._pull_back(found)
        if self.method.counts:
            squares = squares + found.b_enc.square().sum() + sae.b_dec.grad.square().sum()
            self._clip(squares.sqrt())
        self.optimizer.param_groups[0]["lr"] = self.spec.lr * learning_rate_scale(self.step, self.spec.steps)
        self.optimizer.step()
        self._write_encoder(normalise=True)
        self._note(found.loss, found.fired, len(x))
        variance = (x - x.mean(0)).square().sum() / len(x)
        return {"loss": found.loss, "l0": found.l0, "fvu": found.error / variance}

    def _many_active(self) -> bool:
        """Whether so many features are active that dense products are faster. On a GPU this is not measured: dense
        products are cheap there, and measuring would mean waiting for the GPU. On a CPU, p-annealing with a p under 1
        is not done densely, because the powers of all entries cost too much."""
        if self.method.counts or self.pre.is_cuda:
            return not self.method.counts
        return self.penalty.exponent(self.step) == 1 and (self.pre[:LOOK] > 0).float().mean().item() > DENSE

    def _dense(self, x: Float[Tensor, "batch d_in"]) -> Gradients:
        """All codes at once, in the products' own precision."""
        sae, p = self.sae, self.encoder.dtype
        decoder, f = sae.W_dec.to(p), self.pre
        active, fired = kernels(f).rectify(f)
        difference = (f @ decoder).float() + sae.b_dec - x
        g = 2 / len(x) * difference
        penalty, by_code = self.penalty(f, self.step, len(x))
        g_pre = torch.ops.aten.threshold_backward(torch.addmm(by_code.to(p), g.to(p), decoder.T), f, 0)
        error = difference.square().sum() / len(x)
        by_encoder = (g_pre.T @ self.inputs).float()  # by e and, where the inputs are 1, by b_enc
        return Gradients(
            loss=error + penalty,
            error=error,
            e=by_encoder[:, : sae.d_in].contiguous(),
            d=(f.T @ g.to(p)).float(),
            b_enc=by_encoder[:, sae.d_in].contiguous(),
            x_hat=g.sum(0),
            l0=active / len(x),
            fired=fired,
        )

    def _sparse(self, x: Float[Tensor, "batch d_in"], centred: Float[Tensor, "batch d_in"]) -> Gradients:
        """The codes alone, in float32."""
        sae = self.sae
        codes = self._codes()
        active = codes.values > 0
        difference, dots = codes.reconstruct(sae.W_dec, sae.b_dec, x)
        penalty, by_code = self.penalty(codes.values, self.step, len(x))
        error = difference.square().sum() / len(x)
        g_pre = (2 / len(x) * dots + by_code) * active
        where = codes.by_feature()
        found = Gradients(
            loss=error + penalty,
            error=error,
            e=where.sum(g_pre, centred),
            d=where.sum(2 / len(x) * codes.values, difference),
            b_enc=where.total(g_pre),
            x_hat=2 / len(x) * difference.sum(0),
            l0=active.sum() / len(x),
            fired=torch.zeros_like(self.unfired).index_add_(0, codes.features, active.long()) > 0,
        )
        if self.spec.auxk:
            self._add_auxk(found, centred, difference)
        return found

    def _codes(self) -> Codes:
        if not self.method.counts:
            return positive(self.pre)
        codes = (topk if self.method.keeps == "token" else batch_topk)(self.pre, self.sae.k)
        self.method.observe(self.sae, codes.values, self.step / self.spec.steps)
        return codes

    def _add_auxk(
        self, found: Gradients, centred: Float[Tensor, "batch d_in"], difference: Float[Tensor, "batch d_in"]
    ) -> None:
        """Add the loss and gradients of the dead features' attempt at the error (arXiv 2406.04093, appendix A.2). This
        alone waits for a GPU: the number of dead features decides the shapes."""
        sae, batch = self.sae, len(centred)
        dead = ((self.unfired + batch >= self.patience) & ~found.fired).nonzero().squeeze(1)
        if not len(dead):
            return
        top = topk(self.pre[:, dead], min(sae.d_in // 2, len(dead)))
        codes = Codes(top.values, dead[top.features].int(), top.starts, sae.d_sae)
        off, dots = codes.reconstruct(sae.W_dec, torch.zeros_like(sae.b_dec), -difference)
        scale = self.spec.auxk * batch / (difference - difference.mean(0)).square().sum()
        g_pre = 2 / batch * scale * dots * (codes.values > 0)
        where = codes.by_feature()
        found.loss += scale * off.square().sum() / batch
        found.e += where.sum(g_pre, centred)
        found.d += where.sum(2 / batch * scale * codes.values, off)
        found.b_enc += where.total(g_pre)

    def _pull_back(self, found: Gradients) -> Float[Tensor, ""]:
        """Set the gradients of the free parameter and the decoder, computed from those with respect to the encoder rows
        and the decoder. The part of the decoder's gradient that lies along its own row is removed. Returns their
        squared norm."""
        sae = self.sae
        if sae.constraint in FOLDED:
            sae.free.grad, sae.W_dec.grad = found.e, found.d
            return kernels(found.e).pull_back(found.e, found.d, sae.free, sae.W_dec, self._aligned).sum()
        parameters = [p for p in (sae.free, sae.W_dec) if p is not None]  # `tied` has no free one
        for p in parameters:
            p.grad = None
        with torch.enable_grad():
            roots, gradients = [sae.encoder_rows], [found.e]
            if sae.constraint == "soft":
                roots.append(self.spec.soft * alignment_penalty(sae.encoder_rows, sae.W_dec))
                gradients.append(torch.ones_like(found.loss))
                found.loss += roots[1].detach()
        torch.autograd.backward(roots, gradients)
        sae.W_dec.grad = found.d if sae.W_dec.grad is None else sae.W_dec.grad.add_(found.d)
        remove_parallel_gradient(sae.W_dec)
        return sum(p.grad.square().sum() for p in parameters)

    @property
    def _aligned(self) -> bool:
        return self.sae.constraint == "projected"

    @torch.no_grad()
    def _write_encoder(self, normalise: bool) -> None:
        """Write e for the next step's product. If `normalise`, first scale the decoder rows to norm 1, and do the
        projection of `post_step`."""
        sae = self.sae
        self.encoder[:, sae.d_in] = sae.b_enc
        if sae.constraint in ("none", "projected"):
            kernels(sae.W_dec).encoder(sae.free, sae.W_dec, self._aligned, normalise, self.encoder)
            return
        if normalise:
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
            if sae.constraint == "post_step":
                sae.free.copy_(projected(sae.free, sae.W_dec))
        self.encoder[:, : sae.d_in] = sae.encoder_rows

    def _clip(self, norm: Float[Tensor, ""]) -> None:
        """Have the optimizer divide the gradients so that their norm is at most CLIP."""
        self.optimizer.grad_scale = ((norm + 1e-6) / CLIP).clamp_min(1)  # type: ignore[attr-defined]
        self.optimizer.found_inf = torch.zeros_like(norm)  # type: ignore[attr-defined]

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        super().restore(tensors, step)
        self._write_encoder(normalise=False)
