"""Sample from a run: generation, autoregression, inpainting, outpainting, each with its falling time field.

    python -m experiments.sample                                         # of the model that comes with the package
    python -m experiments.sample runs/digits out                         # of a run, on its held-out images
    python -m experiments.sample fashion out --image a.png --mask m.png --labels 3         # fill what is black
    python -m experiments.sample fashion out --image a.png --strength 0.6                  # image to image
    python -m experiments.sample fashion out --image a.png --strength s.png                # a strength per pixel
    python -m experiments.sample fashion out --image a.png --canvas 48 64                  # beyond its border
    python -m experiments.sample runs/latent/async-patch-0 out --autoencoder photographs    # of latents
    python -m experiments.sample runs/latent/async-patch-0 out --autoencoder photographs --image a.png --mask m.png \\
        --give-back                                                                # and known pixels to the bit
    python -m experiments.sample runs/texture/run out --exemplar a.png --canvas 96 96      # its texture, outwards

Half a minute on two cores; `--sampling.input-guidance 1` makes what is new agree more with what is given. A mask has
the size of its image, or of the network: white pixels are known, black ones are made anew. A map of strengths runs from
black, which keeps a pixel to the bit, to white, which makes it anew. An image goes the way of the run's data, so a
28x28 garment is padded if the run was; one of another size is brought to the network's with `--fit crop` or `--fit
resize`. It has no class unless `--labels` says so. With a run on latents all of this is said in pixels too: they
are encoded together with what is known of them, a site is kept where all of its pixels are, and the result is decoded,
known pixels and all, which `--give-back` replaces by those of the image. A run holds arrays and JSON, no pickle: one
from a stranger is safe to open.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import tyro

from asyncpatch.ranges import check_counts
from asyncpatch.runs import SamplingConfig, latent_view, open_autoencoder, open_run, usual_view
from asyncpatch.sharding import on_every_device
from experiments.parts.asked import Own, asked_of_held_out, asked_of_own
from experiments.parts.command import run_command
from experiments.parts.drawing import draw_tasks
from experiments.parts.medium import medium_for


def main(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")] = "fashion",
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")] = Path("samples"),
    /,
    sampling: SamplingConfig = SamplingConfig(),
    own: Annotated[Own, tyro.conf.arg(name="")] = Own(),
    head: Path | None = None,
    labels: tuple[int, ...] = (),
    count: int = 32,
    autoencoder: str | None = None,
    step: int | None = None,
) -> None:
    """Sample from RUN; write to folder OUTPUT a sheet a task, the times as they fall, and each image at its own size.

    Args:
        run: a folder that training wrote to, an exported file, or the name of a model that comes with the package.
        output: where pictures and samples.json go.
        sampling: steps, guidance and noise.
        own: a file of yours, and what is to be done with it.
        head: a folder that experiments.train_difficulty wrote to, for generation under an adaptive plan too.
        labels: classes to make, over and over, and -1 for no class. If not given: every class in turn, the class of a
            held-out image that is completed, and none for an image of yours.
        count: how many images of each task.
        autoencoder: of a run on latents, the autoencoder that made them: its folder, a file, or the name of one that
            comes with the package, which decodes; if not given, latents are drawn as colours. Known sites of held-out
            images are of whole images: measure nothing on them.
        step: the checkpoint to open; the newest that is whole if not given.
    """
    check_counts(count=count)
    opened = open_run(run, step)
    opened = dataclasses.replace(opened, denoiser=on_every_device(opened.denoiser))
    maker = None if autoencoder is None else open_autoencoder(autoencoder)
    if own.image is None and own.exemplar is None:
        view = usual_view(opened.experiment) if maker is None else latent_view(maker, opened.experiment)
        wanted = asked_of_held_out(opened, view, sampling, labels, count, head)
    else:
        medium = medium_for(opened.experiment, maker)
        wanted = asked_of_own(opened, medium, own, sampling, labels, count, head)
    records = draw_tasks(
        output,
        wanted.denoiser,
        wanted.tasks,
        sampling,
        wanted.images,
        wanted.made_labels,
        wanted.given_labels,
        singles=output,
        view=wanted.view,
        originals=wanted.originals,
    )
    if jax.process_index() > 0:
        return
    made = {
        "run": run,
        "step": opened.step,
        "release": opened.release,
        "commit": opened.commit,
        "sampling": dataclasses.asdict(sampling),
        "device": str(jax.devices()[0]),
        "tasks": records,
    }
    (output / "samples.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
