"""Compile training and sampling for a slice of TPU chips, without one: what fits, what is moved, and the least time.

    python -m experiments.compile_tpu fit rows.jsonl                           # 60m and 600m for v6e:8x8
    python -m experiments.compile_tpu fit rows.jsonl --presets 600m --batch-size 2048 --topology v6e:4x4
    python -m experiments.compile_tpu fit rows.jsonl --presets paper-256 --programs train
    python -m experiments.compile_tpu largest rows.jsonl --presets 600m        # doubles the batch until it is refused
    python -m experiments.compile_tpu table rows.jsonl table.md

It needs Google's compiler (the package libtpu) and no chip: `nox -s compile_tpu` makes an environment with it. What
training and sampling would run is compiled, on shapes alone; no data is read and nothing runs. A program that does not
fit is an error that says by how much. Half a minute for a transformer, and minutes for a UNet, on one core. See
docs/tpu.md for the numbers.
"""

import dataclasses
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import jax
import tyro

from asyncpatch.ranges import check_counts
from asyncpatch.runs import Experiment
from asyncpatch.train import commit, make_mesh
from experiments.parts.chips import GIB, chip
from experiments.parts.command import run_command
from experiments.parts.hlo import moved
from experiments.parts.rows import append_row, read_rows
from experiments.parts.slice_programs import CHANNELS, CLASSES, PROGRAMS, SIDE, Blank, experiment_of
from experiments.parts.slice_tables import markdown, one_line
from experiments.parts.slices import DoesNotFitError, Program, compile_here, compile_program, devices_of

EFFORT = "O0"
"""Of the compiler. All of it takes the 60M transformer 111 processor seconds instead of 18, for a peak that is 13%
lower, the same number of collectives and no less memory traffic."""

SOURCE = Blank(SIDE, CHANNELS, CLASSES)
"""Stands in for the data."""

RowsFile = Annotated[Path, tyro.conf.arg(metavar="ROWS")]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is compiled, and for what."""

    program: str
    preset: str
    topology: str
    fsdp: int
    batch_size: int | None
    accumulation: int
    compute_dtype: str | None


def fit(
    rows: RowsFile,
    /,
    presets: tuple[str, ...] = ("60m", "600m", "60m-transformer", "600m-transformer"),
    programs: tuple[str, ...] = tuple(PROGRAMS),
    topology: str = "v6e:8x8",
    fsdp: int = 4,
    batch_size: int | None = None,
    accumulation: int = 1,
    compute_dtype: str | None = None,
) -> None:
    """Compile programs of presets, and append a row each to ROWS. The status is 1 if one does not fit.

    Args:
        rows: a file of JSON lines; made if it is not there. What it holds already is not compiled again.
        presets: of networks, for images of 64x64x3 and 1,000 classes (pixels, or latents of 256x256 pixels), or of
            autoencoders (paper-256, photographs-64).
        programs: train, sample or both.
        topology: chip and shape of the slice, such as v6e:8x8, v6e:2x2, v5e:4x4 or v5p:2x2x2.
        fsdp: chips that share one copy of the weights.
        batch_size: images over all chips; the recipe's if not given.
        accumulation: microbatches that a training batch is worked off in.
        compute_dtype: float32 or bfloat16; the preset's own if not given.
    """
    refused = []
    for preset in presets:
        for program in programs:
            setup = Setup(program, preset, topology, fsdp, batch_size, accumulation, compute_dtype)
            row = compile_one(setup, rows)
            if not row["fits"]:
                refused.append(complaint(row))
    if refused:
        raise RuntimeError("; ".join(refused))


def largest(
    rows: RowsFile,
    /,
    presets: tuple[str, ...] = ("600m",),
    topology: str = "v6e:8x8",
    fsdp: int = 4,
    batch_size: int | None = None,
    accumulation: int = 1,
    compute_dtype: str | None = None,
) -> None:
    """Double the batch of the train step until it does not fit; every try is a row of ROWS.

    Args:
        rows: as for fit.
        presets: as for fit.
        topology: as for fit.
        fsdp: as for fit.
        batch_size: the first batch; the recipe's if not given.
        accumulation: as for fit.
        compute_dtype: as for fit.
    """
    for preset in presets:
        row = compile_one(Setup("train", preset, topology, fsdp, batch_size, accumulation, compute_dtype), rows)
        fitting = row if row["fits"] else None
        while row["fits"]:
            fitting, following = row, 2 * row["batch_size"]
            row = compile_one(Setup("train", preset, topology, fsdp, following, accumulation, compute_dtype), rows)
        if fitting is None:
            raise RuntimeError(complaint(row))
        print(f"{preset} on {topology}: the largest batch that fits is {fitting['batch_size']}; {complaint(row)}")


def table(rows: RowsFile, markdown_file: Annotated[Path, tyro.conf.arg(metavar="TABLE")], /) -> None:
    """Write the rows of ROWS as tables to TABLE.

    Args:
        rows: as for fit.
        markdown_file: the file to write.
    """
    found = read_rows(rows)
    if not found:
        raise ValueError(f"{rows} holds no row; compile something first")
    markdown_file.write_text(markdown(found), encoding="utf-8")


def compile_one(setup: Setup, rows: Path) -> dict:
    """The row of one program: from the file, or else compiled and appended to it."""
    figures = chip(setup.topology)
    if setup.program not in PROGRAMS:
        raise ValueError(f"no program is called {setup.program!r}; choose from {', '.join(PROGRAMS)}")
    check_counts(fsdp=setup.fsdp)
    experiment = experiment_of(setup.preset, setup.batch_size, setup.accumulation, setup.compute_dtype, SOURCE)
    network = experiment.network if isinstance(experiment, Experiment) else experiment.autoencoder
    settings = dataclasses.asdict(setup) | {
        "batch_size": experiment.data.batch_size,
        "compute_dtype": network.compute_dtype,
        "image": list(experiment.data.shape),
        "rematerialise": network.rematerialise,
    }
    if found := [row for row in read_rows(rows) if {name: row[name] for name in settings} == settings]:
        print(one_line(found[-1]), flush=True)
        return found[-1]
    compile_here()
    jax.config.update("jax_optimization_level", EFFORT)
    devices = devices_of(setup.topology)
    if len(devices) % setup.fsdp:
        raise ValueError(
            f"fsdp={setup.fsdp} does not divide the {len(devices)} chips of {setup.topology}; give a divisor"
        )
    mesh = make_mesh(len(devices) // setup.fsdp, setup.fsdp, devices)
    begun = time.process_time()
    traced = PROGRAMS[setup.program](experiment, mesh)
    row = settings | {
        "chips": len(devices),
        "parameters": traced.parameters,
        "network_flops": traced.network_flops / len(devices),
        "program_flops": traced.program_flops / len(devices),
        "tracing_seconds": round(time.process_time() - begun, 1),
        "versions": {name: version(name) for name in ("jax", "libtpu")},
        "effort": EFFORT,
        "commit": commit(),
    }
    try:
        row |= {"fits": True} | measured(compile_program(traced.lowered))
    except DoesNotFitError as error:
        row |= {"fits": False, "peak_bytes": error.needed, "memory": error.there}
    row.setdefault("memory", figures.memory)
    append_row(rows, row)
    print(one_line(row), flush=True)
    return row


def measured(program: Program) -> dict:
    """What a compiled program needs and moves, of one chip."""
    found = moved(program.text)
    return {
        "peak_bytes": program.peak_bytes,
        "argument_bytes": program.argument_bytes,
        "memory_traffic": found.memory,
        "sent": found.sent,
        "collectives": {kind: dataclasses.asdict(traffic) for kind, traffic in found.collectives.items()},
        "xla_flops": program.xla_flops,
        "compiling_seconds": round(program.seconds, 1),
    }


def complaint(row: dict) -> str:
    """What is wrong with a program that does not fit, in numbers, and what to do."""
    return (
        f"{row['program']} of {row['preset']} at batch {row['batch_size']} in {row['accumulation']} parts does not fit "
        f"{row['topology']} with fsdp={row['fsdp']}: a chip would need {row['peak_bytes'] / GIB:.1f} GiB and has "
        f"{row['memory'] / GIB:.1f}; give fewer images (--batch-size), more parts (--accumulation), or more chips to "
        "a copy of the weights (--fsdp)"
    )


if __name__ == "__main__":
    run_command({"fit": fit, "largest": largest, "table": table})
