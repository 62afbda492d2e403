"""What a record says of where it comes from: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from aligned.precision import precision

PACKAGES = ("torch", "numba", "transformers", "transformer-lens")  # whose version may change a number


def provenance() -> dict[str, Any]:
    """Commit of the code, whether the code was changed since, versions, device, threads and precision of this process.
    Records without the precision were made in bf16."""
    return {
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "--", ".")),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "device": device(),
        "threads": torch.get_num_threads(),
        "precision": precision(),
    }


def commit() -> str | None:
    """The commit of the checkout that this code runs from; None if it runs from no checkout. A package that is
    installed inside the checkout of another project does not count."""
    return _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) else None


def device() -> str:
    """The GPU's name, or the processor's with its number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")  # the standard library knows no more than x86_64
    named = re.search(r"model name\s*: (.+)", facts.read_text()) if facts.exists() else None
    return f"{named[1] if named else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
