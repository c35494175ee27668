"""Denoisers in closed form: Gaussian data and finite data sets, for any time field.

With `A = diag(alpha(t))` and `Sigma = diag(sigma(t))`, data `x ~ N(m, S)` give `z ~ N(A m, A S A + Sigma^2)`:

    g = (A S A + Sigma^2)^-1 (z - A m),      E[x|z] = m + S A g,      E[eps|z] = Sigma g .

A finite data set gives a mean of its points, weighted by `softmax(-|z - A x_k|^2 / (2 sigma^2))`.

Invariants: the pair is the exact conditional mean, `alpha data + sigma noise = z`, and nothing is infinite for
times of 0 and 1 or any mixture of them. They are the truth that samplers, guidance and bounds are tested on.
"""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process.base import AbstractDenoiser, Prediction, per_channel
from asyncpatch.shapes import Image, Label, TimeField

# Truth is not to be rounded to the short multiplications that accelerators use by default.
_EXACT = jax.lax.Precision.HIGHEST


class GaussianDenoiser(AbstractDenoiser):
    """Exact for images drawn from `N(mean, covariance)`; the label is ignored.

    The matrix that is factorised depends on the times alone, so a batch that shares its time field shares one
    Cholesky factor. Raises `ValueError` if the covariance has the wrong size, is not symmetric, or has no Cholesky
    factor in its own precision.
    """

    mean: Float[Array, "height width channel"]
    covariance: Float[Array, "height*width*channel height*width*channel"]
    schedule: AbstractNoiseSchedule

    def __check_init__(self):
        size = self.mean.size
        if self.covariance.shape != (size, size):
            raise ValueError(
                f"a mean of shape {self.mean.shape} has {size} entries, got a covariance of shape "
                f"{self.covariance.shape}; give one of shape {(size, size)}, in the order (height width channel)"
            )
        if not isinstance(self.covariance, Tracer):
            _check_positive_definite(np.asarray(self.covariance))

    @property
    def num_classes(self) -> None:
        return None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        alpha = per_channel(self.schedule.alpha(t), z).reshape(-1)
        sigma = per_channel(self.schedule.sigma(t), z).reshape(-1)
        mean = self.mean.reshape(-1)
        covariance_z = alpha[:, None] * self.covariance * alpha[None, :] + jnp.diag(sigma**2)
        factor = jsl.cho_factor(covariance_z, lower=True)
        whitened_gap = jsl.cho_solve(factor, z.reshape(-1) - alpha * mean)
        data = mean + jnp.dot(self.covariance, alpha * whitened_gap, precision=_EXACT)
        return Prediction(data.reshape(z.shape), (sigma * whitened_gap).reshape(z.shape))


class FiniteDenoiser(AbstractDenoiser):
    """Exact for images drawn evenly from a finite set of points; the label is ignored.

    Tokens with `sigma = 0` are known exactly: only the points that agree with `z` there best take part, which is
    the limit of a vanishing `sigma` even if none agrees fully. Raises `ValueError` if there is no point.
    """

    points: Float[Array, "points height width channel"]
    schedule: AbstractNoiseSchedule

    def __check_init__(self):
        if self.points.shape[0] == 0:
            raise ValueError(f"a finite data set needs a point, got an array of shape {self.points.shape}; give one")

    @property
    def num_classes(self) -> None:
        return None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        alpha, sigma = self.schedule.alpha(t)[None, :, :, None], per_channel(self.schedule.sigma(t), z)
        squares = (z[None] - alpha * self.points) ** 2
        clean = (sigma == 0)[None]
        mismatch = jnp.sum(jnp.where(clean, squares, 0.0), axis=(1, 2, 3))
        precision = safe_divide(jnp.ones_like(sigma), sigma**2)[None]
        logits = jnp.where(mismatch == jnp.min(mismatch), -0.5 * jnp.sum(squares * precision, axis=(1, 2, 3)), -jnp.inf)
        data = jnp.tensordot(jax.nn.softmax(logits), self.points, axes=1, precision=_EXACT)
        return Prediction.from_data(self.schedule, z, t, data)


def _check_positive_definite(covariance: np.ndarray) -> None:
    asymmetry = np.abs(covariance - covariance.T).max()
    if not asymmetry <= 1e-5 * np.abs(covariance).max():  # the negation catches NaN
        raise ValueError(
            f"a covariance is symmetric, got entries that differ by {asymmetry} from their mirror images; "
            "give (S + S.T) / 2 if that is rounding"
        )
    try:
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"a covariance is positive definite, got a smallest eigenvalue of {np.linalg.eigvalsh(covariance)[0]}; "
            "add a small multiple of the identity"
        ) from error
