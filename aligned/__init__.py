"""Aligned training of sparse autoencoders (arXiv 2605.18629), replicated.

The folders, in the order in which data pass through them:

    methods/    published kinds of SAE, a file each
    language/   text, language models, and the activations of their tokens
    formats/    SAEs in files, ours and those of other programs
    training/   from activations to an SAE
    store/      a spec becomes a folder, once, by any number of workers
    evals/      measures of an SAE, one in each file
    report/     from runs to records, claims, figures and pages

Above them stand `alignment.py`, the idea of the paper; `sae.py`, the SAE; `spec.py`, all that decides a trained one;
`interop.py`, training in SAELens; and what all use: `checks.py`, `files.py`, `precision.py`, `progress.py`,
`provenance.py`, `errors.py`. A file imports from its own folder and from those before it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligned import evals
    from aligned.alignment import alignment_score
    from aligned.report.results import records
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

# Imported when first used: `import aligned` is fast, and a module that is run by name is not loaded before.
_PLACES = {
    "SAE": "sae", "Run": "store.runs", "RunSpec": "spec", "alignment_score": "alignment", "grid": "spec",
    "records": "report.results", "run": "store.runs", "sweep": "store.sweeps",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"aligned.{_PLACES[name]}"), name)
    if name == "evals":
        return import_module("aligned.evals")
    raise AttributeError(f"module 'aligned' has no attribute {name!r}; it has {', '.join(__all__)}")
