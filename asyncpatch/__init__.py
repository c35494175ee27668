"""Spatially flexible diffusion: one network, trained once, with a noise time for every pixel.

The nouns are introduced in the README; `asyncpatch.shapes` states the axes and the direction of time.
"""

from asyncpatch.memory import keep_memory as _keep_memory

__version__ = "0.2.0"

_keep_memory()
