"""Draw the pictures of README and docs, from the model that comes with the package.

    python -m experiments.front_page              # half a minute; writes docs/pictures

`four_ways.png` shows one image of each way of sampling: the time field as it falls, and below it the network's estimate
of the image at that moment. `generation.png`, `autoregression.png`, `inpainting.png`, `outpainting.png` and
`image_to_image.png` are sheets of images, the `.webp` of the same name shows how the first of them came about, and
`pictures.json` says what they were drawn from.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from asyncpatch import pictures
from asyncpatch.config import register, to_json
from asyncpatch.plans import Task, synchronous, with_strength
from asyncpatch.runs import Run, SamplingConfig, as_numpy, four_tasks, open_run, run_task
from experiments.parts.command import run_command
from experiments.parts.drawing import draw_tasks

FRAMES = 8
"""Moments of a generation that are shown, before its end."""

SHOWN = {"generation": 9, "autoregression": 8, "inpainting": 3, "outpainting": 2}
"""The class of the image that each way is shown with."""

TITLES = {
    "generation": "Generation: all pixels fall together",
    "autoregression": "Autoregression: 8x8 patches, one after another",
    "inpainting": "Inpainting: the border is known, and clean from the start",
    "outpainting": "Outpainting: a box is known",
}

register(SamplingConfig)


def four_ways(run: Run, sampling: SamplingConfig, path: Path) -> Path:
    """One image of each way of sampling, as strips of time fields, noisy images and estimates."""
    height, width, _ = run.image_shape
    tasks = four_tasks(sampling, height, width)
    figure, panels = plt.subplots(len(tasks), 1, figsize=(9, 13.6), layout="constrained")
    for axes, (name, task) in zip(panels, tasks.items(), strict=True):
        image, label = run.examples.image, run.examples.label
        made, history = run_task(run.denoiser, task, sampling, image, label, FRAMES)
        at = int(jnp.argmax(label == SHOWN[name]))
        seen = np.asarray(history.times[at]), as_numpy(history.noisy[at]), as_numpy(history.data[at])
        axes.imshow(pictures.strip(*seen, as_numpy(made[at])))
        axes.set_title(TITLES[name], fontsize=11, loc="left")
        axes.axis("off")
    colours = plt.cm.ScalarMappable(plt.Normalize(0, 1), "viridis")
    bar = figure.colorbar(colours, ax=panels, orientation="horizontal", shrink=0.4, aspect=40, pad=0.01)
    bar.set_ticks([0, 1], labels=["time 0: clean", "time 1: noise"])
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def front_page(
    output: Path = Path("docs/pictures"),
    run: str = "fashion",
    sampling: SamplingConfig = SamplingConfig(eta=1.0, patch=8),
    count: int = 16,
) -> None:
    """Draw all pictures into OUTPUT.

    Args:
        output: the folder that they go to.
        run: what `open_run` takes, with examples; the model that comes with the package if not given.
        sampling: steps, guidance and noise.
        count: images of each sheet.
    """
    opened = open_run(run)
    output.mkdir(parents=True, exist_ok=True)
    four_ways(opened, sampling, output / "four_ways.png")
    index = jnp.arange(count) % len(opened.examples.label)
    image, label = opened.examples.image[index], opened.examples.label[index]
    height, width, _ = opened.image_shape
    tasks = four_tasks(sampling, height, width)
    strength = jnp.broadcast_to(jnp.linspace(0.0, 1.0, width), (height, width))
    tasks["image_to_image"] = Task(with_strength(synchronous(sampling.steps, height, width), strength))
    draw_tasks(output, opened.denoiser, tasks, sampling, image, label, label)
    for strip in output.glob("*_times.png"):
        strip.unlink()  # `four_ways.png` shows them
    said = {
        "command": "python -m experiments.front_page",
        "model": repr(opened).splitlines(),
        "sampling": to_json(sampling),
        "jax": jax.__version__,
    }
    (output / "pictures.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(front_page)
