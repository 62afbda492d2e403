"""Aligned training of sparse autoencoders (arXiv 2605.18629), replicated."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligned import evals
    from aligned.alignment import alignment_score
    from aligned.results import records
    from aligned.sae import SAE
    from aligned.spec import RunSpec, grid
    from aligned.store.runs import Run, run
    from aligned.store.sweeps import sweep

__all__ = ["SAE", "Run", "RunSpec", "alignment_score", "evals", "grid", "records", "run", "sweep"]

# Threads that wait for others sleep. By default they spin for a while: torch's pool and Numba's, on the same cores,
# then take these from each other, and beside other work a step takes forty times as long. The runtimes read this when
# they are loaded, hence here, before torch.
for _name, _value in (("OMP_WAIT_POLICY", "passive"), ("KMP_BLOCKTIME", "0")):
    os.environ.setdefault(_name, _value)

# Imported when first used: `import aligned` is fast, and `python -m aligned.store.runs` runs a module that nobody has loaded.
_PLACES = {
    "SAE": "sae", "Run": "runs", "RunSpec": "spec", "alignment_score": "alignment", "grid": "spec",
    "records": "results", "run": "runs", "sweep": "sweeps",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"aligned.{_PLACES[name]}"), name)
    if name == "evals":
        return import_module("aligned.evals")
    raise AttributeError(f"module 'aligned' has no attribute {name!r}; it has {', '.join(__all__)}")
