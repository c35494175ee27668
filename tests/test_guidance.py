"""Both guidances, on denoisers whose scores are known in closed form."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.guidance import ClassifierFree, GuidingRegion, InputGuidance
from asyncpatch.guidance.one_batch import in_one_batch
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, RectifiedFlow
from asyncpatch.plans import Task, synchronous
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction, per_channel
from asyncpatch.runs import SamplingConfig, guide, run_task
from asyncpatch.sampling import DDIM, sample
from asyncpatch.shapes import NULL_LABEL, Image, Known, Label, TimeField

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


# --- weights by token and by time ---


def test_a_map_of_weights_acts_token_by_token(schedule):
    (z, t), label = _state(), jnp.asarray(2, jnp.int32)
    mixture = _Mixture(MEANS, schedule)
    weights = jnp.asarray([[1.0, 2.5, 0.0], [1.0, 2.5, 2.5]])
    mapped = ClassifierFree(mixture, weights)(z, t, label)
    for weight in (1.0, 2.5, 0.0):
        here = np.asarray(weights == weight)
        np.testing.assert_array_equal(mapped.data[here], ClassifierFree(mixture, weight)(z, t, label).data[here])


def test_guidance_acts_in_its_interval_alone(schedule):
    (z, t), label = _state(), jnp.asarray(2, jnp.int32)
    t = t.at[0, 0].set(0.25).at[0, 1].set(0.75)
    mixture = _Mixture(MEANS, schedule)
    inside = np.asarray((t >= 0.25) & (t <= 0.75))
    assert inside.any()
    assert not inside.all()
    guided, plain, strong = (
        ClassifierFree(mixture, weight, interval)(z, t, label).noise
        for weight, interval in ((3.0, (0.25, 0.75)), (1.0, (0.0, 1.0)), (3.0, (0.0, 1.0)))
    )
    np.testing.assert_array_equal(guided[~inside], plain[~inside])
    np.testing.assert_array_equal(guided[inside], strong[inside])


# --- input guidance ---

GUIDING = jnp.asarray([[True, True, False], [False, False, False]])
"""A region whose tokens are clean, or nearly so."""


def _gaussian(schedule: AbstractNoiseSchedule) -> GaussianDenoiser:
    return GaussianDenoiser(MEANS[0], COVARIANCE, schedule)


def _inpainting() -> tuple[Image, TimeField]:
    """A known region at 0, the others at one time."""
    z, _ = _state()
    return z, jnp.where(GUIDING, 0.0, 0.6)


def _marginal(schedule: AbstractNoiseSchedule, z: Image, t: TimeField) -> Prediction:
    """The prediction for the tokens outside of the region, by one who never sees the region."""
    rest = np.flatnonzero(~np.asarray(GUIDING).ravel())
    mean = MEANS[0].reshape(-1)[rest].reshape(1, -1, 1)
    covariance = COVARIANCE[np.ix_(rest, rest)]
    return GaussianDenoiser(mean, covariance, schedule)(
        z.reshape(-1)[rest].reshape(1, -1, 1), t.reshape(-1)[rest].reshape(1, -1), NO_LABEL
    )


@pytest.mark.parametrize("region", [None, GUIDING], ids=["clean tokens", "a region"])
def test_noisiest_region_is_the_same_as_none(schedule, region):
    """At weight -1 the answer is that of the look to get away from: at time 1 it knows nothing of the region."""
    z, t = _inpainting()
    guided = InputGuidance(_gaussian(schedule), [GuidingRegion(-1.0, region)], jr.key(3))(z, t, NO_LABEL)
    dropped, outside = _marginal(schedule, z, t), ~np.asarray(GUIDING)
    np.testing.assert_allclose(guided.data[outside], dropped.data[0], atol=2e-5)
    np.testing.assert_allclose(guided.noise[outside], dropped.noise[0], atol=2e-5)


@pytest.mark.parametrize("weight", [0.7, 3.0])
def test_guided_score_is_the_closed_form(schedule, weight):
    """`s + g (s - s')` with both scores written down from the Gaussian's matrices, region included."""
    z, t = _state()
    t = t.at[0, 0].set(0.1)
    further = jnp.where(GUIDING, jnp.maximum(t, 0.8), t)
    noise = jr.normal(jr.key(9), SHAPE)
    guided = InputGuidance(_gaussian(schedule), [GuidingRegion(weight, GUIDING, noisier=0.8)], noise)(z, t, NO_LABEL)

    def scores(z, t):
        alpha, sigma = (np.repeat(np.asarray(f(t), np.float64).ravel(), 1) for f in (schedule.alpha, schedule.sigma))
        matrix = alpha[:, None] * np.asarray(COVARIANCE, np.float64) * alpha + np.diag(sigma**2)
        return -np.linalg.solve(matrix, np.asarray(z, np.float64).ravel() - alpha * np.asarray(MEANS[0]).ravel())

    a = schedule.alpha(further) / schedule.alpha(t)
    b = jnp.sqrt(jnp.maximum(schedule.sigma(further) ** 2 - (a * schedule.sigma(t)) ** 2, 0.0))
    there = jnp.where(GUIDING[..., None], a[..., None] * z + b[..., None] * noise, z)
    wanted = scores(z, t) + weight * (scores(z, t) - scores(there, further))
    np.testing.assert_allclose(guided.score(schedule, t).ravel(), wanted, rtol=2e-3, atol=2e-3)
    whole = schedule.alpha(t)[..., None] * guided.data + schedule.sigma(t)[..., None] * guided.noise
    np.testing.assert_allclose(whole, z, atol=2e-5)


def test_no_weight_is_the_identity_to_the_bit(schedule):
    z, t = _inpainting()
    mixture, label = _Mixture(MEANS, schedule), jnp.asarray(1, jnp.int32)
    plain = jax.vmap(lambda z, t: mixture(z, t, label))(jnp.stack([z, z]), jnp.stack([t, t]))
    for regions in ([GuidingRegion(0.0)], [GuidingRegion(0.0, GUIDING), GuidingRegion(0.0, ~GUIDING, 0.9, 0.7)]):
        guided = InputGuidance(mixture, regions, jr.key(3))(z, t, label)
        np.testing.assert_array_equal(guided.data, plain.data[0])
        np.testing.assert_array_equal(guided.noise, plain.noise[0])


def test_equal_looks_are_taken_once():
    """A chain of two regions that share a look, and classifier-free guidance around it: one call of three times two."""
    calls = []

    class Counted(AbstractDenoiser):
        """Counts its calls, and the batch of each by the ordered callback of every image."""

        schedule = RectifiedFlow()
        num_classes = None

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            jax.debug.callback(lambda _: calls.append(1), z[0, 0, 0] + label.astype(z.dtype))
            return Prediction(z, z)

    z, t = _state()
    chain = [GuidingRegion(1.0, GUIDING, noisier=0.95), GuidingRegion(2.0, GUIDING, noisier=1.0, cleaner=0.95)]
    guided = ClassifierFree(InputGuidance(Counted(), chain, jr.key(0)), 2.0)
    guided(z, t, jnp.asarray(0, jnp.int32)).data.block_until_ready()
    jax.effects_barrier()
    assert len(calls) == 3 * 2
    assert len(InputGuidance(Counted(), [*chain, GuidingRegion(1.0)], jr.key(0)).looks) == 3


def test_the_order_of_wrappers_does_not_matter(schedule):
    z, t = _inpainting()
    mixture, label, noise = _Mixture(MEANS, schedule), jnp.asarray(1, jnp.int32), jr.normal(jr.key(2), SHAPE)
    regions = [GuidingRegion(1.5)]
    inside = InputGuidance(ClassifierFree(mixture, 3.0), regions, noise)(z, t, label)
    outside = ClassifierFree(InputGuidance(mixture, regions, noise), 3.0)(z, t, label)
    np.testing.assert_allclose(inside.data, outside.data, rtol=1e-4, atol=1e-4)


def test_fresh_noise_differs_by_image_and_step_and_repeats_for_equal_calls():
    z, t = _inpainting()
    guidance = InputGuidance(_gaussian(RectifiedFlow()), [GuidingRegion(1.0, noisier=0.5)], jr.key(3))
    draws = [guidance._noise(*at) for at in ((z, t), (z.at[0, 0, 0].add(1e-3), t), (z, t * 0.999), (z[::-1], t))]
    assert len({np.asarray(draw).tobytes() for draw in draws}) == 4
    np.testing.assert_array_equal(draws[0], guidance._noise(z, t))
    # 6,000 draws of a unit Gaussian: mean and variance within 6 deviations, so a false alarm is below 1e-8.
    images = jr.normal(jr.key(5), (1000, *SHAPE))
    drawn = jax.vmap(lambda z: guidance._noise(z, t))(images)
    assert abs(float(drawn.mean())) < 6 / np.sqrt(6000)
    assert abs(float(drawn.var()) - 1) < 6 * np.sqrt(2 / 6000)
    assert abs(float((drawn * images).mean())) < 6 / np.sqrt(6000)


def test_noisiest_token_sets_the_time_for_networks_of_one_time():
    z, t = _inpainting()
    seen = []

    class Watched(AbstractDenoiser):
        """Keeps the times that it is called with."""

        schedule = RectifiedFlow()
        num_classes = None

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            jax.debug.callback(lambda t: seen.append(np.asarray(t)), t)
            return Prediction(z, z)

    InputGuidance(Watched(), [GuidingRegion(1.0, noisier=None)], jr.key(0))(z, t, NO_LABEL)
    jax.effects_barrier()
    assert any((times == np.float32(0.6)).all() for times in seen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GuidingRegion(jnp.nan), "guidance must be finite"),
        (lambda: GuidingRegion(jnp.ones(3)), r"one number or a map .*, got shape \(3,\)"),
        (lambda: GuidingRegion(1.0, noisier=1.5), r"noisier time of a guiding region is in \[0, 1\], got 1.5"),
        (lambda: GuidingRegion(1.0, noisier=0.2, cleaner=0.5), "noisier time, 0.2, is below the cleaner one, 0.5"),
        (lambda: GuidingRegion(1.0, jnp.zeros((2, 3), bool)), "the guiding region has no token"),
        (lambda: InputGuidance(_gaussian(RectifiedFlow()), [], jr.key(0)), "needs a guiding region, got none"),
        (
            lambda: InputGuidance(_gaussian(RectifiedFlow()), [GuidingRegion(1.0)], jr.key(0), (0.5, 0.2)),
            "0 <= low <= high <= 1, got 0.5 and 0.2",
        ),
        (lambda: ClassifierFree(_gaussian(RectifiedFlow()), 1.0, (0.0, 2.0)), "low <= high <= 1, got 0 and 2"),
    ],
)
def test_bad_guidance_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda d: InputGuidance(d, [GuidingRegion(1.0, jnp.ones((3, 3), bool))], jr.key(0)),
            r"\(2, 3\), got \(3, 3\)",
        ),
        (lambda d: InputGuidance(d, [GuidingRegion(jnp.ones((3, 3)))], jr.key(0)), r"map of weights .* got \(3, 3\)"),
        (lambda d: InputGuidance(d, [GuidingRegion(1.0)], jnp.zeros((3, 3, 1))), r"shape \(2, 3, 1\), got \(3, 3, 1\)"),
        (lambda d: ClassifierFree(d, jnp.ones((3, 3))), r"map of weights .* got \(3, 3\)"),
    ],
)
def test_guidance_of_another_size_is_refused_before_compute(make, message):
    z, t = _state()
    with pytest.raises(ValueError, match=message):
        make(_gaussian(RectifiedFlow()))(z, t, NO_LABEL)


# --- all looks in one batch ---


class _Told(AbstractDenoiser):
    """Differs by label, and has a weight and a key."""

    weight: Float[Array, ""]
    key: PRNGKeyArray

    schedule = RectifiedFlow()
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        data = jnp.sin(self.weight * z) * t[..., None] * (label + 1).astype(z.dtype)
        return Prediction(data, z - data, log_error=t**2)


def _looks() -> tuple[Array, Array, Array]:
    """Of three images, two each."""
    return jr.normal(jr.key(0), (3, 2, *SHAPE)), jr.uniform(jr.key(1), (3, 2, *SHAPE[:2])), jnp.arange(6).reshape(3, 2)


def test_looks_at_many_images_are_one_axis_and_differentiate():
    denoiser, (z, t, label) = _Told(jnp.asarray(1.5), jr.key(2)), _looks()

    def flat(denoiser, z):
        return jax.vmap(lambda *look: in_one_batch(denoiser, *look))(z, t, label)

    def nested(denoiser, z):
        return jax.vmap(jax.vmap(denoiser))(z, t, label)

    def total(of):
        return lambda denoiser, z: of(denoiser, z).data.sum()

    jax.tree.map(np.testing.assert_array_equal, flat(denoiser, z), nested(denoiser, z))
    assert "f32[6,2,3,1] = sin" in str(jax.make_jaxpr(lambda z: flat(denoiser, z))(z))
    assert "f32[3,2,2,3,1] = sin" in str(jax.make_jaxpr(lambda z: nested(denoiser, z))(z)), "which vmap alone does not"
    for of in (flat, nested):
        gradient = jax.grad(total(of), argnums=1)(denoiser, z)
        weight = eqx.filter_grad(total(of))(denoiser, z).weight
        _, tangent = jax.jvp(lambda z, of=of: total(of)(denoiser, z), (z,), (z,))
        if of is flat:
            found = (gradient, weight, tangent)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, (gradient, weight, tangent))


def test_a_denoiser_for_each_image_keeps_its_axis():
    z, t, label = _looks()
    weights, key = jnp.asarray([0.5, 1.0, 2.0]), jr.key(2)
    told = jax.vmap(lambda w, *look: in_one_batch(_Told(w, key), *look))(weights, z, t, label)
    for index, weight in enumerate(weights):
        alone = jax.vmap(_Told(weight, key))(z[index], t[index], label[index])
        np.testing.assert_allclose(told.data[index], alone.data, rtol=1e-6)


# --- with the sampler ---


def _sampled(denoiser: AbstractDenoiser, key: Array, image: Image, known: Known) -> Image:
    task = Task(synchronous(3, *SHAPE[:2]), known)
    # Compared on equal keys: reuse is meant.
    return sample(jr.clone(key), denoiser, task, image[None], NO_LABEL[None], DDIM())[0]


def test_a_region_and_a_map_for_each_image_by_vmap():
    """The recipe of the package's docstring gives what every image gives alone, and not what another's region gives."""
    base, noise = _gaussian(RectifiedFlow()), jr.normal(jr.key(4), SHAPE)
    images, keys = jr.normal(jr.key(5), (3, *SHAPE)), jr.split(jr.key(6), 3)
    regions = jnp.stack([GUIDING, ~GUIDING, GUIDING[:, ::-1]])
    weights = jr.uniform(jr.key(7), (3, *SHAPE[:2]), minval=0.5, maxval=2.0)

    def one(key, image, region, weight):
        return _sampled(InputGuidance(base, [GuidingRegion(weight, region)], noise), key, image, GUIDING)

    together = jax.vmap(one)(jr.clone(keys), images, regions, weights)
    for index, inputs in enumerate(zip(jr.clone(keys), images, regions, weights, strict=True)):
        np.testing.assert_allclose(together[index], one(*inputs), rtol=1e-5, atol=1e-5)
    others = jax.vmap(one)(jr.clone(keys), images, regions[::-1], weights)
    assert np.abs(np.asarray(others - together))[0, ~np.asarray(GUIDING)].max() > 1e-3


def test_known_pixels_that_trail_guide_too():
    """They are not clean, so a region has to name them: without it the guidance is none, and costs its calls."""
    config = SamplingConfig(steps=3, guidance=1.0, input_guidance=2.0, trail=0.5)
    task = Task(synchronous(3, *SHAPE[:2]), GUIDING, config.trail)
    inputs = (task, config, jr.normal(jr.key(5), (2, *SHAPE)), jnp.full(2, NULL_LABEL), 1)
    guided, _ = run_task(_gaussian(RectifiedFlow()), *inputs)
    plain, unnamed = (
        run_task(denoiser, task, dataclasses.replace(config, input_guidance=0.0), *inputs[2:])[0]
        for denoiser in (
            _gaussian(RectifiedFlow()),
            guide(_gaussian(RectifiedFlow()), 1.0, config.input_guidance, 1.0, config.seed),
        )
    )
    unknown = ~np.asarray(GUIDING)
    np.testing.assert_allclose(unnamed, plain, atol=1e-6)
    assert np.abs(np.asarray(guided - plain))[:, unknown].max() > 1e-2
    np.testing.assert_array_equal(guided[:, ~unknown], inputs[2][:, ~unknown])
