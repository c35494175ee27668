"""Classifier-free guidance, on denoisers whose scores are known in closed form."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float

from asyncpatch.guidance import ClassifierFree
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, RectifiedFlow
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction, per_channel
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField

SHAPE = (2, 3, 1)
FACTOR = np.random.default_rng(0).normal(size=(6, 6)) / 3
COVARIANCE = jnp.asarray(FACTOR @ FACTOR.T + 0.3 * np.eye(6), jnp.float32)
MEANS = jnp.asarray(np.random.default_rng(1).normal(size=(3, *SHAPE)), jnp.float32)
NO_LABEL = jnp.asarray(NULL_LABEL, jnp.int32)


class _SharedShape(AbstractDenoiser):
    """Each class is a Gaussian around its own mean; without a label, one around their average."""

    means: Float[Array, "classes height width channel"]
    covariance: Float[Array, "entries entries"]
    schedule: AbstractNoiseSchedule

    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        mean = jnp.where(label == NULL_LABEL, self.means.mean(axis=0), self.means[label])
        return GaussianDenoiser(mean, self.covariance, self.schedule)(z, t, label)


class _Mixture(AbstractDenoiser):
    """Each class is a unit Gaussian around its own mean; without a label, the even mixture of them."""

    means: Float[Array, "classes height width channel"]
    schedule: AbstractNoiseSchedule

    def log_density(self, z: Image, t: TimeField, label: Label) -> Float[Array, ""]:
        alpha, sigma = (per_channel(f(t), z) for f in (self.schedule.alpha, self.schedule.sigma))
        gaps = (z[None] - alpha[None] * self.means) ** 2 / (alpha**2 + sigma**2)[None]
        by_class = -0.5 * gaps.sum(axis=(1, 2, 3))
        return jnp.where(label == NULL_LABEL, jax.nn.logsumexp(by_class), by_class[label])

    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return Prediction.from_score(self.schedule, z, t, jax.grad(self.log_density)(z, t, label))


@pytest.fixture(params=[RectifiedFlow(), Cosine()], ids=["rectified flow", "cosine"])
def schedule(request):
    return request.param


def _state() -> tuple[Image, TimeField]:
    return jr.normal(jr.key(0), SHAPE), jr.uniform(jr.key(1), SHAPE[:2], minval=0.2, maxval=0.9)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5, -0.5])
def test_guided_gaussians_are_a_gaussian_whose_mean_is_moved(schedule, weight):
    """With one covariance for all, the guided score is that of the mean `null + w (class - null)`."""
    z, t = _state()
    t = t.at[0, 0].set(0.0).at[1, 1].set(1.0)
    null = MEANS.mean(axis=0)
    guided = ClassifierFree(_SharedShape(MEANS, COVARIANCE, schedule), weight)(z, t, jnp.asarray(2, jnp.int32))
    moved = GaussianDenoiser(null + weight * (MEANS[2] - null), COVARIANCE, schedule)(z, t, NO_LABEL)
    np.testing.assert_allclose(guided.data, moved.data, atol=2e-5)
    np.testing.assert_allclose(guided.noise, moved.noise, atol=2e-5)


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_guided_score_is_the_gradient_of_the_tilted_density(schedule, weight):
    (z, t), label = _state(), jnp.asarray(1, jnp.int32)
    mixture = _Mixture(MEANS, schedule)

    def tilted(z):
        null, labelled = mixture.log_density(z, t, NO_LABEL), mixture.log_density(z, t, label)
        return null + weight * (labelled - null)

    score = ClassifierFree(mixture, weight)(z, t, label).score(schedule, t)
    np.testing.assert_allclose(score, jax.grad(tilted)(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label", [NULL_LABEL, 0, 2])
def test_neutral_weight_is_the_identity_to_the_bit(schedule, label):
    (z, t), label = _state(), jnp.asarray(label, jnp.int32)
    mixture = _Mixture(MEANS, schedule)
    # Both compiled alike, in a batch of two: other programs may round the mixture itself differently.
    plain = jax.vmap(mixture, in_axes=(None, None, 0))(z, t, jnp.stack([label, NO_LABEL]))
    guided = ClassifierFree(mixture, 1.0)(z, t, label)
    assert (guided.data == plain.data[0]).all()
    assert (guided.noise == plain.noise[0]).all()


def test_null_label_is_left_alone_by_any_weight(schedule):
    z, t = _state()
    mixture = _Mixture(MEANS, schedule)
    guided, plain = ClassifierFree(mixture, 7.0)(z, t, NO_LABEL), mixture(z, t, NO_LABEL)
    np.testing.assert_allclose(guided.data, plain.data, rtol=1e-5, atol=1e-6)


def test_guidance_keeps_the_schedule(schedule):
    assert ClassifierFree(_Mixture(MEANS, schedule), 3.0).schedule is schedule


def test_one_program_serves_all_weights_and_labels():
    z, t = _state()
    call = jax.jit(lambda guided, label: guided(z, t, label))
    for weight, label in [(1.0, 0), (3, 1), (jnp.asarray(0.5), NULL_LABEL)]:
        call(ClassifierFree(_Mixture(MEANS, RectifiedFlow()), weight), jnp.asarray(label, jnp.int32))
    assert call._cache_size() == 1
