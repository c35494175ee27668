"""Spatially flexible diffusion: one network, trained once, with a noise time for every pixel.

The nouns are introduced in the README; `asyncpatch.shapes` states the axes and the direction of time.
"""

__version__ = "0.2.0"
