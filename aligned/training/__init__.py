"""From activations to an SAE: the training loop, the step, sparse codes, and the compiled inner loops."""

import os

# Said here, before Numba is imported: its own error does not name the variable, and comes when training starts.
_threads = os.environ.get("NUMBA_NUM_THREADS") or "1"
if not (_threads.strip().isdecimal() and int(_threads) > 0):
    raise ValueError(f"NUMBA_NUM_THREADS is {_threads!r}; it is a whole number from 1, or not set")
