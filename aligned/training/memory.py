"""What the C library does with freed memory: it keeps it for the next step while an SAE trains, and returns it else."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # options of mallopt


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`keep_freed_memory` within a block, or a function. What was kept is returned at its end: large pieces of memory
    that small ones lie between are not used again, so that what allocates logits by the hundred megabytes afterwards
    would grow by each of them."""
    keep_freed_memory()
    try:
        yield
    finally:
        if libc := _libc():
            libc.mallopt(_MMAP_THRESHOLD, 128 * 1024)  # both as the C library has them by itself
            libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
            libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of returning it page by page. Fresh pages cost
    more than what is done with them: without this a step of the larger shapes takes about twice as long."""
    if libc := _libc():
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)


def _libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library: slower, and the same result
        return None
    return libc if hasattr(libc, "mallopt") else None
