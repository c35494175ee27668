"""Memory that a program gives back to the system and takes again at every call, kept instead.

XLA's CPU programs take one block for all that they compute on the way, tens or hundreds of megabytes, and free it at
their end. The allocator of GNU's C library passes blocks of that size to the system and back, and the system clears
every page anew: a third of the time of a small network's train step, and more with larger batches.

The process then holds on to the most memory that it ever had.

The allocator gives every thread a heap of its own. Those of all but the first hold no block of 64 MB, and are given
back when they are empty. One heap for all is no way out: the compiler's threads wait for each other there, and take a
quarter to three quarters longer. So JAX is told to run a program in the thread that calls it instead of one of its own.
"""

import ctypes
import os

import jax

SWITCH = "ASYNCPATCH_MEMORY"
"""The environment variable: `off` leaves the allocator and JAX as they are."""

OFF = "off"

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from GNU's malloc.h."""

SETTINGS = {
    MMAP_MAX: 0,  # large blocks come from the heap too,
    TRIM_THRESHOLD: -1,  # which never shrinks
}


def keep_memory() -> bool:
    """Let the allocator keep what is freed, and say whether it will: it must be GNU's, and the switch not `off`.

    JAX reads where to run programs when it starts its CPU devices, so this comes before its first computation:
    `asyncpatch` calls it when it is imported.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or os.environ.get(SWITCH, "") == OFF:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    accepted = [mallopt(parameter, value) for parameter, value in SETTINGS.items()]
    return all(accepted)
