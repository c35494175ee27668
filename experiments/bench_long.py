"""What days of training depend on, measured: how fast images are read, and how long a checkpoint holds training up.

    python -m experiments.bench_long          # three minutes on two cores

Images are crops of photographs in ArrayRecord files of 64x64 and 256x256 pixels, read at random, flipped and batched as
training reads them. Measure on the machine that trains: a step on an accelerator eats more than one core delivers, and
`--workers` of the training command is the number of cores to give it.
"""

import os

import jax

from asyncpatch.train import commit
from experiments.parts.bench_checkpoints import bench_checkpoints
from experiments.parts.bench_reading import bench_reading
from experiments.parts.command import run_command


def main(rounds: int = 3, million_weights: int = 60, workers: tuple[int, ...] = (0, 1, 2)) -> None:
    """Print both.

    Args:
        rounds: measurements of each, of which the median is printed.
        million_weights: of the network whose checkpoints are saved; its state on disk is sixteen bytes a weight.
        workers: numbers of worker processes; 0 is threads.
    """
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, commit {commit()}")
    bench_reading(workers, rounds)
    bench_checkpoints(million_weights, rounds)


if __name__ == "__main__":
    run_command(main)
