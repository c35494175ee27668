"""The bound does not depend on the path if the denoiser is exact, and how much it does measures inconsistency.

Gaussian images. For the exact denoiser the line integral is the difference of two mutual informations. The same holds
for a denoiser that is exact for *other* images: its bound is the cross-entropy on every path, the entropy and
`KL(p || p')`. So the spread over paths does not measure whether a denoiser is right, but whether its predictions are
the posterior means of one joint distribution. The wrong twin sees only the mean of the time field, as an ordinary
network does: its bounds differ between paths, and none is below the entropy, because each of them is a bound.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt

from asyncpatch.noise_schedule import AbstractNoiseSchedule, LogLinear
from asyncpatch.paths import AbstractPathLaw, AnyOrder, Environment, Synchronous, Window
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction
from asyncpatch.shapes import Image, Label, TimeField
from proofs_check.gaussian import covariance, divergence, draw_path, ends, entropy, line_integral
from proofs_check.statement import Row, Size

CLAIM = "The bound of an exact denoiser is the same on every path; its spread over paths is the consistency gap"
SOURCE = "docs/theory.md 10.4"

SCHEDULE = LogLinear(22.0, -22.0)
ACCURACY = 1e-6
SIDES = {Size.QUICK: (2,), Size.FULL: (2, 8)}
PATHS = {Size.QUICK: 2, Size.FULL: 6}
LAWS: dict[str, AbstractPathLaw] = {
    "synchronous": Synchronous(),
    "window": Window((1,)),
    "walk": Environment((1,)),
    "any order": AnyOrder(1),
}


class WholeField(AbstractDenoiser):
    """A denoiser as it is."""

    denoiser: AbstractDenoiser

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return self.denoiser(z, t, label)


class MeanTime(AbstractDenoiser):
    """Wrong twin: a denoiser that is told the mean of the time field alone."""

    denoiser: AbstractDenoiser

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return self.denoiser(z, jnp.full_like(t, jnp.mean(t)), label)


RIGHT = WholeField
WRONG = MeanTime


def check(size: Size, subject) -> list[Row]:
    rows = []
    with jax.enable_x64(True):
        for side in SIDES[size]:
            spread = covariance(side, side)
            believed = 1.3 * spread @ spread / side + 0.1 * jnp.eye(side**2)
            for name, prior in (("exact", spread), ("exact for other images", believed)):
                bounds = all_bounds(subject, jnp.asarray(prior), spread, side, PATHS[size])
                nats = [value for _, values in bounds.items() for value in values]
                case, basis = f"d = {side**2}, {name}, {len(nats)} paths", "quadrature in 64 bits and ends"
                truth = entropy(spread)
                excess = divergence(spread, jnp.asarray(prior))
                rows += [
                    Row(f"spread over paths, {case}", max(nats) - min(nats), 0.0, ACCURACY, basis),
                    Row(f"bound on the diagonal, {case}", bounds["synchronous"][0], truth + excess, ACCURACY, basis),
                    Row(f"how far below the entropy, {case}", max(0.0, truth - min(nats)), 0.0, ACCURACY, basis),
                ]
    return rows


def all_bounds(wrap, prior, spread, side: int, paths: int) -> dict[str, list[float]]:
    """The bound on a few paths of every law, in nats."""
    denoiser = wrap(GaussianDenoiser(jnp.zeros((side, side, 1)), prior, SCHEDULE))
    rest = ends(SCHEDULE, spread)
    return {
        name: [
            rest + line_integral(denoiser, spread, draw_path(jr.fold_in(jr.key(n), draw), law, side))
            for draw in range(1 if isinstance(law, Synchronous) else paths)
        ]
        for n, (name, law) in enumerate(LAWS.items())
    }


def picture(path: str) -> None:
    """Bounds on random paths, for denoisers that know the field and for those that know its mean."""
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    with jax.enable_x64(True):
        spread, side = covariance(4, 4), 4
        for wrap, label, marker in ((RIGHT, "knows every time", "o"), (WRONG, "knows the mean time", "x")):
            bounds = all_bounds(wrap, jnp.asarray(spread), spread, side, 8)
            points = [(number, value) for number, values in enumerate(bounds.values()) for value in values]
            axis.plot(*zip(*points, strict=True), marker, label=label, alpha=0.7)
        axis.axhline(entropy(spread), color="0.5", linewidth=1, label="entropy")
    axis.set(xticks=range(len(LAWS)), xticklabels=LAWS, ylabel="bound (nats), 16 pixels")
    axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
