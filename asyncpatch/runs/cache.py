"""Compiled programs, kept on disk: the second start of a run does not compile again.

JAX's own persistent cache, switched on where nobody has chosen one. `ASYNCPATCH_CACHE` names another folder, or `off`.
"""

import os
from pathlib import Path

import jax

SWITCH = "ASYNCPATCH_CACHE"
"""The environment variable: a folder, or `off`."""

OFF = "off"


def cache_folder() -> Path | None:
    """Where compiled programs are kept; None if they are not."""
    chosen = os.environ.get(SWITCH, "")
    if chosen == OFF:
        return None
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncpatch" / "compiled"


def keep_compiled() -> None:
    """Let JAX keep what it compiles from now on, unless its own settings say where already, or the switch is off."""
    folder = cache_folder()
    if folder is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # JAX would leave out what compiles within a second: a start compiles a hundred such programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
