"""How good an autoencoder is on held-out images: what it gives back, how many codes it uses, and what it leaks."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Bool, Float

from asyncpatch.masks import AbstractMaskLaw, Extrema, Square, Thin, Wide, mask_set
from asyncpatch.metrics import Estimate, Leak, greyed, leak_score, probe_accuracy, psnr, ssim, told, untold
from asyncpatch.metrics.networks.lpips import Lpips
from asyncpatch.nn import Autoencoder
from asyncpatch.pictures import Pixels, colour, colour_known, tile
from experiments.parts.tables import Finding

FAMILIES: dict[str, AbstractMaskLaw] = {"square": Square(), "extrema": Extrema(), "thin": Thin(), "wide": Wide()}

MASK_SEED = 0
"""Of the known regions that autoencoders are judged on."""

MOST_DISTANCE = 4
"""In sites, of a table of leaks: further away are few sites."""

Images = Float[np.ndarray, "batch height width channel"]
Regions = Bool[np.ndarray, "batch height width"]


@dataclasses.dataclass(frozen=True)
class Quality:
    """Of known pixels given back: means over images with standard errors."""

    images: int
    psnr: Estimate
    ssim: Estimate
    lpips: Estimate | None
    """Of the whole picture with true pixels where hidden; None where no perceptual network is installed."""


@dataclasses.dataclass(frozen=True)
class LeakOf:
    """What one way to encode leaks under one family of masks."""

    way: str
    family: str
    by_distance: list[Leak]
    probe: Estimate
    """Right answers of the probe next to the region; a half says that it cannot tell."""


def regions_of(images: Images) -> dict[str, Regions]:
    """The known regions that images are judged under, the whole image first."""
    count, height, width, _ = images.shape
    masked = {name: mask_set(law, count, height, width, MASK_SEED) for name, law in FAMILIES.items()}
    return {"whole": np.ones((count, height, width), bool)} | masked


def reconstruct(autoencoder: Autoencoder, images: Images, known: Regions, batch: int = 32) -> Images:
    """Images there and back, each with its known region, clipped to [-1, 1]; worked off `batch` at a time."""
    cuts = [slice(at, at + batch) for at in range(0, len(images), batch)]
    parts = [_there_and_back(autoencoder, jnp.asarray(images[cut]), jnp.asarray(known[cut])) for cut in cuts]
    return np.concatenate(parts)


@eqx.filter_jit
def _there_and_back(autoencoder: Autoencoder, images: Array, known: Array) -> Array:
    return jnp.clip(jax.vmap(lambda image, region: autoencoder(image, region))(images, known), -1.0, 1.0)


def draw_there_and_back(autoencoder: Autoencoder, images: Images, known: Regions) -> Pixels:
    """Four rows: images, whole ones there and back, what is known of them, and that there and back."""
    whole, masked = reconstruct(autoencoder, images, np.ones_like(known)), reconstruct(autoencoder, images, known)
    return tile(
        [
            [colour(image) for image in images],
            [colour(image) for image in whole],
            [colour_known(*pair) for pair in zip(images, known, strict=True)],
            [colour_known(*pair) for pair in zip(masked, known, strict=True)],
        ]
    )


def qualities(
    autoencoder: Autoencoder, images: Images, regions: dict[str, Regions], lpips: Lpips | None
) -> dict[str, Quality]:
    """By the name of the known regions."""
    found = {}
    for name, known in regions.items():
        back = reconstruct(autoencoder, images, known)
        # The scores look at what is hidden; here the known pixels are what was asked for.
        asked = list(zip(back, images, ~known, strict=True))
        found[name] = Quality(
            len(images),
            Estimate.mean_of(np.array([psnr(*one) for one in asked])),
            Estimate.mean_of(np.array([ssim(*one) for one in asked])),
            None if lpips is None else _perceptual(lpips, np.where(known[..., None], back, images), images),
        )
    return found


def _perceptual(lpips: Lpips, first: Images, second: Images, batch: int = 32) -> Estimate:
    compiled = jax.jit(lambda one, other: lpips(one, other))
    parts = range(0, len(first), batch)
    return Estimate.mean_of(
        np.concatenate([np.asarray(compiled(first[at : at + batch], second[at : at + batch])) for at in parts])
    )


def codebook_use(autoencoder: Autoencoder, images: Images, batch: int = 32) -> tuple[float, float]:
    """The share of codes that whole images use at all, and the perplexity of their use, as a share of the codebook."""

    @jax.jit
    def choose(images):
        latents = jax.vmap(lambda image: autoencoder.encode(image, jnp.ones(image.shape[:2], bool)))(images)
        return jax.vmap(lambda one: autoencoder.quantise(one).index)(latents)

    chosen = [np.asarray(choose(images[at : at + batch])).ravel() for at in range(0, len(images), batch)]
    codes = autoencoder.config.codes
    share = np.bincount(np.concatenate(chosen), minlength=codes) / sum(map(len, chosen))
    used = share[share > 0]
    return len(used) / codes, float(np.exp(-(used * np.log(used)).sum())) / codes


def leaks(autoencoder: Autoencoder, images: Images, trained_on_masks: bool) -> list[LeakOf]:
    """By family; an autoencoder that knows of no masks is asked in both ways that such are used in."""
    ways = {"told": told} if trained_on_masks else {"greyed": greyed, "masked afterwards": untold}
    found = []
    for way, encoder in ways.items():
        encode = encoder(autoencoder)
        for family, known in regions_of(images).items():
            if family != "whole":
                scores = leak_score(encode, images, known, autoencoder.config.factor)
                probe = probe_accuracy(encode, images, known, autoencoder.config.factor)
                found.append(LeakOf(way, family, scores, probe))
    return found


def quality_table(found: dict[str, Quality], use: tuple[float, float]) -> Finding:
    """Lines by family."""
    some = next(iter(found.values()))

    return Finding(
        f"Known pixels given back, {some.images} held-out images",
        ("known region", "PSNR, dB", "SSIM", "LPIPS"),
        [(name, *(_cell(value) for value in (one.psnr, one.ssim, one.lpips))) for name, one in found.items()],
        f"Standard errors over images. Whole images use {use[0]:.0%} of the codes; the perplexity of their use is "
        f"{use[1]:.0%} of the codebook.",
    )


def _cell(estimate: Estimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def leak_table(found: dict[str, list[LeakOf]]) -> Finding:
    """Lines by autoencoder, way and family."""
    distances = range(1, MOST_DISTANCE + 1)
    lines = []
    for name, every in found.items():
        for one in every:
            by = {leak.distance: leak for leak in one.by_distance}
            moved = [f"{by[at].by_pixels:.3f}, {by[at].by_region:.3f}" if at in by else "-" for at in distances]
            lines.append((name, one.way, one.family, *moved, _cell(one.probe)))
    return Finding(
        "What known latents tell of the hidden region",
        ("autoencoder", "encoded", "known region", *(f"{at} away" for at in distances), "probe"),
        lines,
        "Movement of known latents in units of their spread, by distance to the region in sites: when hidden pixels "
        "are replaced, and when they are hidden. The probe says from latents one site away whether anything is hidden; "
        "a half is a guess.",
        "leak.png",
    )


def draw_leaks(found: dict[str, list[LeakOf]], path: Path) -> None:
    """Movement over distance: one line an autoencoder and way, families apart."""
    figure, axes = plt.subplots(1, len(FAMILIES), figsize=(11, 3), sharey=True, layout="constrained")
    for axis, family in zip(axes, FAMILIES, strict=True):
        for name, every in found.items():
            for one in every:
                if one.family == family:
                    at = [leak.distance for leak in one.by_distance]
                    by_region = [leak.by_region for leak in one.by_distance]
                    by_pixels = [leak.by_pixels for leak in one.by_distance]
                    (line,) = axis.plot(at, by_region, marker=".", label=f"{name}, {one.way}")
                    axis.plot(at, by_pixels, ":", marker=".", color=line.get_color())
        axis.set(title=family, xlabel="sites from the hidden region")
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("movement / spread")
    axes[0].legend(fontsize=7)
    figure.suptitle("Known latents move when pixels are hidden (solid) and when hidden ones change (dotted)", size=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
