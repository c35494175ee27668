"""Which law of training times keeps generation intact and gives inpainting? The paper's Table 1, and in miniature.

    python -m experiments.timestep_sampling runs/timestep_sampling                  # the next row that is missing
    python -m experiments.timestep_sampling runs/timestep_sampling --count 100      # all of them, one after another
    python -m experiments.timestep_sampling runs/tuning --table tuning --count 100  # the candidates for our own law
    python -m experiments.timestep_sampling runs/settings --preset million --table settings --count 100
    python -m experiments.timestep_sampling runs/claims --preset million --table claims --count 100
    python -m experiments.timestep_sampling runs/table1 --preset paper --reference statistics.npz \\
        data:array-records --data.folder ARRAY_RECORDS judge:inception --judge.weights FILE

One row is one law and one seed: the same small network, trained for the same steps on the same batches of Fashion-MNIST
at 32x32, then evaluated at generation and at inpainting under the four mask families. A killed run goes on where it
stopped, and rows that are done are not done again, unless they are asked for more (`--lpips`, another way of
completing): then what lacks is added.

The baselines of inpainting are the synchronous network with RePaint, which makes five times as many calls as all
others, and with replacement, which makes as many, and `supervised`: a network trained on the four mask families
themselves and on nothing else. AsyncPatch and our own law complete images twice, with known pixels clean and trailing.

`--preset million --table claims` trains each law for a million images of 16x16 pixels, and looks at an eighth, a
quarter, a half and all of it, so that every claim becomes a curve; the first seed of all laws comes first. What is
looked at is a copy of the network, trained for an eighth longer while its learning rate falls to 0. It takes hours:
give it the time that the machine has to spare (`nice -n 19`), stop it whenever you like, and start it again. How each
method samples best is settled before, by `--table settings`, on networks of another seed after a quarter of that
training. Cores do more apart: two processes with a core and a `--law` each, in the same folder, trained 1.15 times as
many images a second as one with both (`taskset -c 0 python -m ... --law synchronous`).

`--preset paper` is the table itself, ImageNet at 64x64 with the 60M network for a million steps, by the same code.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.config import to_json
from asyncpatch.data import AbstractSource, ArrayRecords, IdxFiles
from asyncpatch.runs import Experiment, configure, train_run
from asyncpatch.timesteps import AbstractTimestepSampler
from asyncpatch.train import RunConfig
from experiments.evaluate import judge_run
from experiments.parts.claims import judge_claims, show_claims
from experiments.parts.command import run_command
from experiments.parts.fashion_mnist import fashion_mnist
from experiments.parts.judges import Judging
from experiments.parts.law_claims import BASELINES, generation_claims, inpainting_claims
from experiments.parts.law_curves import draw_curves, length_names, over_training
from experiments.parts.law_pictures import describe_laws
from experiments.parts.law_settings import settled
from experiments.parts.law_table import (
    AT_LENGTH,
    REPAINT,
    SCALES,
    Job,
    Preset,
    Scale,
    Table,
    asked,
    candidates,
    jobs,
    laws,
)
from experiments.parts.medium import PixelMedium
from experiments.parts.rows import read_rows, short_hash
from experiments.parts.scores import settle
from experiments.parts.tables import line_names, run_names
from experiments.report import write_report

JUDGED = ("FD", "FID", "LPIPS")
"""What claims over training are about."""


def configuration(scale: Scale, source: AbstractSource, law: AbstractTimestepSampler, seed: int) -> Experiment:
    """The config of one row's training: equal for all laws but for the law."""
    return configure(
        source,
        scale.preset,
        law,
        pad_to=scale.shrink * scale.side,
        shrink=scale.shrink,
        optimizer=scale.optimizer,
        batch_size=scale.batch_size,
        ema_decay=scale.ema_decay,
        seed=seed,
    )


def fill_row(folder: Path, scale: Scale, source: AbstractSource, job: Job, table: Table, by: Judging) -> None:
    """Train one network, or go on, and evaluate it on every task; rows go to `folder/rows.jsonl`."""
    law = (laws(scale.side) | candidates(scale.side))["synchronous" if job.name == REPAINT else job.name]
    experiment = configuration(scale, source, law, job.seed)
    wanted = asked(job, scale, table)
    medium = PixelMedium(experiment)
    for task, how in wanted:
        settle(task, how, medium, by.reference)  # so that training is not followed by a refusal
    trained, step = trained_network(folder, scale, experiment, job, table)
    judge_run(trained, medium, wanted, folder / "rows.jsonl", by, step)
    done(folder, job).write_text(order(job, scale, table, by), encoding="utf-8")


def trained_network(folder: Path, scale: Scale, experiment: Experiment, job: Job, table: Table) -> tuple[Path, int]:
    """The run of a row and the step that is looked at, trained or trained on."""
    run, cooldown = folder / job.run, scale.cooldown_at(job.look) if table == "claims" else None
    settings = RunConfig(
        steps=scale.steps_at(job.look),
        log_every=20,
        sample_every=2 * scale.steps,
        checkpoint_every=scale.checkpoint_every,
        keep_last=scale.steps // scale.checkpoint_every + 2 * len(scale.looks),  # each may be looked at later
    )
    looked_at = Path("checkpoints") / str(settings.steps)
    if not (run / looked_at).is_dir():
        train_run(run, experiment, settings)
    if cooldown is None:
        return run, settings.steps
    copy = folder / job.copy
    if not (run / looked_at).is_dir():
        raise FileNotFoundError(f"{run} has gone beyond {looked_at} and lost it; move {run} away, to train it again")
    if not (copy / "checkpoints").is_dir():
        shutil.copytree(run / looked_at, copy / "unfinished" / str(settings.steps), dirs_exist_ok=True)
        (copy / "unfinished").rename(copy / "checkpoints")
    training = dataclasses.replace(experiment.training, cooldown=cooldown)
    settings = dataclasses.replace(settings, steps=cooldown.start + cooldown.steps)
    train_run(copy, dataclasses.replace(experiment, training=training), settings)
    return copy, settings.steps


def done(folder: Path, job: Job) -> Path:
    """The file that says what a row was asked for when it was filled."""
    return folder / f"{job}.done"


def order(job: Job, scale: Scale, table: Table, by: Judging) -> str:
    """All that a row is asked for, and what judges it, as a hash."""
    judges = [type(judge).__name__ for judge in by.judges]
    wanted = [[to_json(task), to_json(how)] for task, how in asked(job, scale, table)]
    return short_hash([wanted, judges, by.reference is not None, by.lpips is not None])


def is_whole(folder: Path, job: Job, scale: Scale, table: Table, by: Judging) -> bool:
    """Whether a row was filled, and with all that it is asked for now."""
    file = done(folder, job)
    return file.is_file() and file.read_text(encoding="utf-8") == order(job, scale, table, by)


def report(folder: Path, scale: Scale, preset: Preset, table: Table) -> Path:
    """Write what the rows of `folder` say so far into its `report`. Returns the page."""
    rows, page = read_rows(folder / "rows.jsonl"), folder / "report"
    page.mkdir(parents=True, exist_ok=True)
    every = laws(scale.side) | candidates(scale.side)
    names_of = {"tuning": candidates(scale.side), "claims": [name for name in AT_LENGTH if name != REPAINT]}
    shown = {name: every[name] for name in names_of.get(table, laws(scale.side))}
    findings = [describe_laws(shown, scale.side, page / "laws.png")]
    distances = [name for row in rows for name in row["values"] if name.startswith(("FD", "FID"))]
    names = {"laws": line_names, "tuning": run_names, "settings": line_names, "claims": length_names}[table]
    if table == "laws" and distances:
        of_generation, of_inpainting = (
            generation_claims(distances[0]),
            inpainting_claims([distances[0], "LPIPS"], BASELINES),
        )
        findings = [
            show_claims("Claims about generation", judge_claims(rows, of_generation)),
            show_claims("Claims about inpainting", judge_claims(rows, of_inpainting)),
            *findings,
        ]
    if table == "settings":
        findings = [settled(rows)]
    if table == "claims":
        metrics = list(dict.fromkeys(name for row in rows for name in row["values"] if name.startswith(JUDGED)))
        for metric in metrics if len({row["step"] for row in rows}) > 1 else ():
            draw_curves(rows, metric, page / f"curves_{metric}.png")
        baselines = sorted({name for name in names(rows) if name.startswith("Synchronous, ")} | {"Masked"})
        ours = ("Environment", "Regions")
        claims = [claim for distance in dict.fromkeys(distances) for claim in generation_claims(distance, ours)]
        claims += inpainting_claims(metrics, baselines, ours)
        findings = [over_training(rows, claims), *findings]
        rows = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    return write_report(rows, page, f"Laws of training times: {table}, {preset}", findings=findings, names=names(rows))


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    preset: Preset = "miniature",
    table: Table = "laws",
    data: IdxFiles | ArrayRecords = fashion_mnist(),
    count: int = 1,
    law: str | None = None,
    seed: int | None = None,
    judging: Annotated[Judging, tyro.conf.arg(name="")] = Judging(),
) -> None:
    """Fill the next missing rows of the table in FOLDER, and write its report.

    Args:
        folder: where runs, rows and the report go.
        preset: how large the table is.
        table: the laws that are compared; the candidates for the law of environments, on another seed; how each method
            samples best, on that seed too; or the laws that the paper's claims are about, and the baselines, at every
            look of the preset.
        data: what to train on.
        count: how many rows to fill.
        law: fill rows of this law only.
        seed: fill rows of this seed only.
        judging: what rows are judged by.
    """
    scale = SCALES[preset]
    every = jobs(table, scale)
    wanted = [job for job in every if law in (None, job.name) and seed in (None, job.seed)]
    if not wanted:
        choice = ", ".join(dict.fromkeys(f"{job.name} {job.seed}" for job in every))
        raise ValueError(f"no row is of law {law} and seed {seed}; choose among {choice}")
    wanted = [job for job in wanted if not is_whole(folder, job, scale, table, judging)]
    for position, job in enumerate(wanted[:count], start=1):
        length = "" if job.look == 1 else f", {job.look:.0%} of the training"
        print(f"row {position} of {min(count, len(wanted))}: {job.name}, seed {job.seed}{length}", flush=True)
        fill_row(folder, scale, data, job, table, judging)
    page = report(folder, scale, preset, table)
    print(f"{max(0, len(wanted) - count)} rows are missing. Open {page.resolve()}", flush=True)


if __name__ == "__main__":
    run_command(main)
