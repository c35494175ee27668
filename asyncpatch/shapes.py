"""Axes, array types and the direction of time. No arithmetic lives here.

**Direction of time.** A noise time `t` lies in [0, 1]. `t = 0` is the clean image, `t = 1` is pure noise.
Training corrupts from 0 towards 1; generation walks from 1 down to 0.

**Axes**, by name, everywhere in the package:

| name | meaning |
|---|---|
| `height width` | pixels of an image, or sites of a latent grid; one *token* each |
| `channel` | colours or latent features of one token, always the last axis of an image |
| `batch` | images; only data pipelines, the train step and the sampling loop have this axis |
| `steps` | network calls of one generation |

**Polarity of masks.** `Known` is True where a token is observed, and False where it is to be generated.
"""

from jaxtyping import Array, Bool, Float, Int

Image = Float[Array, "height width channel"]
"""Pixel values in [-1, 1], or latent features of unit scale."""

TimeField = Float[Array, "height width"]
"""One noise time per token, each in [0, 1]."""

Known = Bool[Array, "height width"]
"""True where a token is observed."""

Label = Int[Array, ""]
"""A class index, or `NULL_LABEL`."""

NULL_LABEL = -1
"""The label that says "no class": unconditional generation, and the dropped label in training."""
