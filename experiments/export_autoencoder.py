"""Write an autoencoder as one file to give away: averaged weights and config as safetensors. A minute.

    python -m experiments.export_autoencoder runs/autoencoder photographs.safetensors
    python -m experiments.export_autoencoder photographs mine.safetensors \\
        data:array-records --data.folder data/mine/train held-out:array-records --held-out.folder data/mine/val

The file opens with `asyncpatch.runs.open_autoencoder("photographs.safetensors")`, which runs no code that is in it. Its
header says what whole held-out images lose on their way there and back. The weights go into float16, which halves the
file, unless that moves the PSNR by 0.02 dB or more. Rounded weights are another autoencoder, with a fingerprint of its
own: encode, train and decode with the file, or all with the folder.

The second command writes the same weights for images of yours, in the file or the folder that it names: latents are
made of the images that an autoencoder's config says.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from asyncpatch.data import ArrayRecords, IdxFiles, ImageFolder, TextureCrops, hold_out
from asyncpatch.metrics.networks.lpips import Lpips
from asyncpatch.runs import (
    NoPerceptual,
    OpenedAutoencoder,
    as_stored,
    open_autoencoder,
    read_autoencoder,
    write_autoencoder,
)
from experiments.autoencoder import held_out_images
from experiments.parts.autoencoder_quality import qualities
from experiments.parts.command import run_command

MOST_MOVED = 0.02
"""dB by which float16 may move the PSNR: a fifteenth of its usual standard error over 256 images."""

USUAL_HELD_OUT = 10
"""One image in so many is held out of data that come without held-out ones."""


def export_autoencoder(
    autoencoder: Annotated[str, tyro.conf.arg(metavar="AUTOENCODER")],
    file: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    /,
    data: ArrayRecords | ImageFolder | IdxFiles | TextureCrops | None = None,
    held_out: ArrayRecords | ImageFolder | IdxFiles | TextureCrops | None = None,
    step: int | None = None,
    images: int = 256,
) -> OpenedAutoencoder:
    """Write AUTOENCODER to FILE, and read it back.

    Args:
        autoencoder: the folder that training wrote to, a file, or the name of one that comes with the package.
        file: where it goes; replaced if it is there.
        data: images that the file is for, if they are not those that the autoencoder's config names.
        held_out: those of them that are held out; if not given, one in ten of data.
        step: the checkpoint; the newest that is whole if not given.
        images: held-out images to measure on.
    """
    opened = open_autoencoder(autoencoder, step)
    if held_out is not None and data is None:
        raise ValueError("got held-out images without any to train on; give data too, or leave both out")
    if data is not None:
        opened = opened.on(*((data, held_out) if held_out is not None else hold_out(data, USUAL_HELD_OUT)))
    whole = measured(opened, images)
    rounded = measured(dataclasses.replace(opened, autoencoder=as_stored(opened.autoencoder, "float16")), images)
    moved = rounded["PSNR, dB"] - whole["PSNR, dB"]
    print(f"float16 moves the PSNR by {moved:+.4f} dB, from {whole['PSNR, dB']:.3f} dB", flush=True)
    if abs(moved) < MOST_MOVED:
        write_autoencoder(dataclasses.replace(opened, measured=rounded), file, "float16")
    else:
        write_autoencoder(dataclasses.replace(opened, measured=whole), file, "float32")
    found = read_autoencoder(file)
    print(f"{found}\n{file.stat().st_size:,} bytes", flush=True)
    return found


def measured(opened: OpenedAutoencoder, count: int) -> dict[str, float]:
    """What `count` whole held-out images lose on their way there and back, by name."""
    images = held_out_images(opened.experiment, count)
    lpips = None if isinstance(opened.experiment.perceptual, NoPerceptual) else Lpips.alexnet()
    found = qualities(opened.autoencoder, images, {"whole": np.ones(images.shape[:3], bool)}, lpips)["whole"]
    figures = {"held-out images": float(len(images)), "PSNR, dB": found.psnr.value, "SSIM": found.ssim.value}
    return figures if found.lpips is None else figures | {"LPIPS, AlexNet": found.lpips.value}


if __name__ == "__main__":
    run_command(export_autoencoder)
