"""What a process holds after training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, torch
from aligned.training.memory import freed_memory_kept

def held():
    status = open("/proc/self/status").read()
    return int(status.split("RssAnon:")[1].split()[0]) / 1000

with freed_memory_kept():
    torch.zeros(10_000_000)
before, kept = held(), []
for _ in range(8):  # as losses are kept and logits are not
    logits = torch.zeros(10_000_000)
    kept.append(torch.zeros(2000))
    del logits
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_what_is_measured_after_training_does_not_grow_by_each_logits() -> None:
    grown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 80  # megabytes; one of the eight has 40
