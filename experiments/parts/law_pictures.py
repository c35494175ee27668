"""What laws of training times are made of: their fields, and how a pixel's time and an image's mean are distributed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from asyncpatch.losses import SiD2
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.timesteps import AbstractTimestepSampler
from experiments.report import Finding

FIELDS = 4000
"""Fields that are drawn of each law."""

SHOWN = 5
"""Fields that are shown of each law."""

ONE_TIME = 0.05
"""A field looks like generation if its times deviate by less."""

KNOWN, HIDDEN, SHARE = 0.02, 0.5, 0.1
"""A field looks like inpainting if this share of pixels is below `KNOWN`, and this share above `HIDDEN`."""


def describe_laws(laws: dict[str, AbstractTimestepSampler], side: int, picture: Path, seed: int = 0) -> Finding:
    """A table and a picture, which is written to `picture`, of fields of `side x side` pixels."""

    def draw(law: AbstractTimestepSampler) -> np.ndarray:
        return np.asarray(jax.jit(jax.vmap(lambda key: law(key, side, side)))(jr.split(jr.key(seed), FIELDS)))

    fields = {name: draw(law) for name, law in laws.items()}
    _draw(fields, picture)
    note = (
        f"{FIELDS} fields of {side}x{side}, seed {seed}. Under U(0,1) each of the first four shares is 5%. A sampler "
        f"of whole images meets every mean alike, with no deviation in an image: a field is like generation if its "
        f"deviation is below {ONE_TIME}, and like inpainting if at least {SHARE:.0%} of its pixels are below {KNOWN} "
        f"and {SHARE:.0%} above {HIDDEN}. The weight of the loss is that of SiD2, in the mean over pixels and as a "
        "share of what it is under U(0,1): times near 0 and 1 teach little."
    )
    lines = [(name, *_measures(drawn).values()) for name, drawn in fields.items()]
    return Finding("Laws of training times", ("law", *_measures(fields[next(iter(fields))])), lines, note, picture.name)


def _measures(fields: np.ndarray) -> dict[str, str]:
    """What a law is like, by the name of its column."""
    means, deviations = fields.mean(axis=(1, 2)), fields.std(axis=(1, 2))
    known, hidden = (np.mean(part, axis=(1, 2)) >= SHARE for part in (fields < KNOWN, fields > HIDDEN))
    weight, evenly = (
        np.mean(SiD2()(RectifiedFlow(), times)) for times in map(jnp.asarray, (fields, np.linspace(0, 1, 10_001)))
    )
    return {
        "pixels below 0.05": f"{np.mean(fields < 0.05):.1%}",
        "pixels above 0.95": f"{np.mean(fields > 0.95):.1%}",
        "means below 0.05": f"{np.mean(means < 0.05):.1%}",
        "means above 0.95": f"{np.mean(means > 0.95):.1%}",
        "deviation in an image": f"{np.sqrt(np.mean(deviations**2)):.3f}",
        "weight of the loss": f"{weight / evenly:.2f}",
        "fields like generation": f"{np.mean(deviations < ONE_TIME):.1%}",
        "fields like inpainting": f"{np.mean(known & hidden):.1%}",
    }


def _draw(fields: dict[str, np.ndarray], path: Path) -> None:
    """A row a law: some fields, the density of a pixel's time, and that of an image's mean."""
    figure, panels = plt.subplots(
        len(fields),
        SHOWN + 2,
        figsize=(12.5, 1.5 * len(fields)),
        layout="constrained",
        squeeze=False,
        width_ratios=[1.0] * SHOWN + [1.6] * 2,
    )
    for row, (name, drawn) in zip(panels, fields.items(), strict=True):
        for axes, field in zip(row[:SHOWN], drawn[-SHOWN:], strict=True):
            axes.imshow(field, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
        for axes, values in zip(row[SHOWN:], (drawn.ravel(), drawn.mean(axis=(1, 2))), strict=True):
            axes.hist(values, bins=20, range=(0, 1), density=True, color="C0")
            axes.axhline(1.0, color="C1", linewidth=1)
            axes.set(xlim=(0, 1), ylim=(0, 4))
            axes.tick_params(labelsize=7)
    panels[0][0].set_title("fields (dark is clean)", fontsize=9, loc="left")
    panels[0][SHOWN].set_title("density of a pixel's time", fontsize=9)
    panels[0][SHOWN + 1].set_title("density of an image's mean", fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
