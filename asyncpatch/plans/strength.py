"""Image-to-image with a strength per pixel: a plan whose times are scaled by a map.

    t_i = strength_i p_i,          p the times of a plan

A token of strength 0 is the given image's to the bit, one of strength 1 is made anew, and one between starts from the
image noised to its strength and falls to 0 in as many steps as the others (SDEdit, arXiv 2108.01073, with a map). So
strengths of 0 and 1 alone are inpainting, and one strength for all is synchronous image-to-image. Give the image to the
sampler as it is: it reads it wherever generation starts below time 1.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from asyncpatch.plans.fixed import FixedPlan


def with_strength(plan: FixedPlan, strength: ArrayLike) -> FixedPlan:
    """A plan at one strength in [0, 1], or a map of them (height width).

    Raises `ValueError` for a strength out of [0, 1] or not finite, and a map of another size than the plan's.
    """
    scale = jnp.asarray(strength, jnp.float32)
    if scale.ndim and scale.shape != plan.times.shape[-2:]:
        raise ValueError(
            f"a map of strengths is of the plan's size, {plan.times.shape[-2:]}, got {scale.shape}; resize it"
        )
    if not isinstance(scale, Tracer):
        values = np.asarray(scale)
        wrong = values[~((values >= 0) & (values <= 1))]
        if wrong.size:
            raise ValueError(f"a strength is in [0, 1], got {wrong[0]:g}; 0 keeps a pixel and 1 makes it anew")
    return FixedPlan(plan.times * (scale if scale.ndim == 0 else scale[None]))
