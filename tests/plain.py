"""Plain definitions, to compare with."""

from torch import Tensor, zeros_like


def keep_batch_topk(f: Tensor, k: int) -> Tensor:
    """The batch's k x batch largest codes; all others 0 (arXiv 2412.06410)."""
    flat = f.flatten()
    top = flat.topk(k * len(f), sorted=False)
    return zeros_like(flat).scatter(0, top.indices, top.values).view_as(f)
