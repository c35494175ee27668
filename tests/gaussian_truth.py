"""A Gaussian of 8x8 correlated pixels, for which the denoiser is exact, and its exact flow along any plan."""

import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Float64
from scipy.integrate import solve_ivp

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.plans import AbstractPlan, Task, synchronous
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction
from asyncpatch.sampling import DDIM, AbstractStepRule, sample
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField

SIDE, SIZE = 8, 64
FLOW = RectifiedFlow()
PIXELS = np.stack(np.mgrid[:SIDE, :SIDE], axis=-1).reshape(SIZE, 2)
DISTANCE = np.linalg.norm(PIXELS[:, None] - PIXELS[None], axis=-1)
COVARIANCE = 0.9 * np.exp(-DISTANCE / 1.5) + 0.1 * np.eye(SIZE)
MEAN = np.random.default_rng(0).normal(size=SIZE) / 2


def gaussian(covariance: np.ndarray = COVARIANCE) -> GaussianDenoiser:
    mean = jnp.asarray(MEAN.reshape(SIDE, SIDE, 1), jnp.float32)
    return GaussianDenoiser(mean, jnp.asarray(covariance, jnp.float32), FLOW)


def run(denoiser, plan, rule, *, batch=4, seed=0, image=None, known=None, trail=0.0, **options):
    image = jnp.zeros((batch, SIDE, SIDE, 1)) if image is None else image
    label = jnp.full(image.shape[0], NULL_LABEL, jnp.int32)
    return sample(jr.key(seed), denoiser, Task(plan, known, trail), image, label, rule, **options)


class Echo(AbstractDenoiser):
    """Takes what it sees for the clean image, so that one step to 0 gives back where generation started."""

    schedule = FLOW
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return Prediction(z, jnp.zeros_like(z))


def start() -> Float64[np.ndarray, "batch size"]:
    """The noise that every run with the same key starts from, read off by an echo."""
    return np.asarray(run(Echo(), synchronous(1, SIDE, SIDE), DDIM(0.0)), np.float64).reshape(-1, SIZE)


def exact_flow(
    corners: Float[Array, "corners height width"] | Float[np.ndarray, "corners height width"],
    z: Float64[np.ndarray, "batch size"],
) -> Float64[np.ndarray, "batch size"]:
    """Where noise `z` flows between time fields in straight pieces, `dz/dr = t'(r) (E[eps|z] - E[x|z])`, in float64."""
    fields = np.asarray(corners, np.float64).reshape(len(corners), SIZE)

    def velocity(r, flat, before, after):
        t, slope = before + r * (after - before), after - before
        alpha, sigma = 1 - t, t
        gap = flat.reshape(z.shape) - alpha * MEAN
        whitened = np.linalg.solve(alpha[:, None] * COVARIANCE * alpha + np.diag(sigma**2), gap.T).T
        return (slope * (sigma * whitened - MEAN - (alpha * whitened) @ COVARIANCE)).reshape(-1)

    flat = z.reshape(-1)
    for piece in itertools.pairwise(fields):
        flat = solve_ivp(velocity, (0.0, 1.0), flat, args=piece, rtol=1e-6, atol=1e-8).y[:, -1]
    return flat.reshape(z.shape)


def error(plan: AbstractPlan, rule: AbstractStepRule, exact: Float64[np.ndarray, "batch size"]) -> float:
    """The largest of any pixel of four images."""
    return float(np.abs(np.asarray(run(gaussian(), plan, rule)).reshape(exact.shape) - exact).max())


def check_slope(counts: list[int], errors: list[float], order: int) -> None:
    """Errors fall with this power of the number of steps, and are small at the end."""
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + order) < 0.15 * order, errors
    assert errors[-1] < 0.1, errors
