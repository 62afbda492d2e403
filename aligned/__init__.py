"""Aligned training of sparse autoencoders (arXiv 2605.18629), replicated."""

from aligned import evals
from aligned.alignment import alignment_score
from aligned.runs import Run, records, run, sweep
from aligned.sae import SAE
from aligned.spec import RunSpec, grid

__all__ = ["SAE", "Run", "RunSpec", "alignment_score", "evals", "grid", "records", "run", "sweep"]
