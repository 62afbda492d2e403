"""The notebooks are tests: nbval runs each with the `smoke` preset, in a store of the test run's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ  # one of pytest's workers, of which each runs some of the files
if BESIDE_OTHERS:
    os.environ["OMP_NUM_THREADS"] = "1"  # two that use both cores wait for each other
else:
    os.environ["ALIGNED_STORE"] = tempfile.mkdtemp(prefix="aligned-tests-")  # the workers share it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs a network; fail at once, not after retries
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `aligned` has it, which tests import after torch: too late
# The same tests on every machine: the GPU's loops are tested without one, in the interpreter.
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}


def pytest_unconfigure() -> None:
    if not BESIDE_OTHERS:
        shutil.rmtree(os.environ["ALIGNED_STORE"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from papermill.translators import PythonTranslator

    from aligned.report.rerun import checked, preset

    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and "parameters" in cell.metadata.get("tags", ()):
            notebook = Path(item.path)
            cell.source += "\n" + PythonTranslator.codify(checked(notebook, preset("smoke", notebook)))
        if cell is not None:
            item.options["check"] = False  # other parameters, other outputs; cells assert what must hold
