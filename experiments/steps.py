"""Quality against network calls: DDIM, the second-order multistep rule and Heun's, on even and shifted times.

    python -m experiments.steps experiments/results/steps --judge.file classifier.npz

Every setting makes the same images from the same noise, a row of `rows.jsonl` for each setting and seed; a row that is
there already is not made again, so that the command goes on where it was stopped, and costs nothing when it is done.
Then it writes `report.md` and `steps.png` of all rows there are. With the defaults that is 5 x 192 images at 1,464
calls each: more than an hour on one core.

The distance is the Frechet distance on features of a small classifier of the data itself, to all held-out images. With
so few generated images it is far above what many images would give, and alike for all settings: compare differences.
Settings of one seed start from the same noise, which is why differences between deterministic rules are known better
than the distances themselves.

`results/steps` is of two seeds. 250 steps of DDIM are reached by the multistep rule in 20 calls, where DDIM is 4 above
them and Heun's rule 2; a shift of 2 helps the multistep rule at 10 calls and changes little at 20.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.config import to_json
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    Estimate,
    FeatureStatistics,
    NetworkIdentity,
    collect_features,
    collect_statistics,
    frechet_distance,
    frechet_name,
    hash_images,
)
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Run, open_run
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import OwnClassifier, in_batches, read_images
from experiments.parts.made import generated_batches
from experiments.parts.medium import PixelMedium
from experiments.parts.rows import Generation, Steps, read_rows
from experiments.parts.step_report import write_report

SHIFT = 2.0
"""Of the grid that is compared with the even one."""

DDIM_STEPS = (10, 20, 40, 100, 250)
MULTISTEP_STEPS = (6, 10, 20, 40)
NOISY_MULTISTEP_STEPS = (10, 20, 40, 250)
HEUN_STEPS = (3, 5, 10, 20)
"""Each costs two calls."""

SETTINGS = (
    *(Steps(steps, eta=0.0) for steps in DDIM_STEPS),
    *(Steps(steps, eta=0.0, rule="multistep", shift=shift) for shift in (1.0, SHIFT) for steps in MULTISTEP_STEPS),
    *(Steps(steps, eta=0.0, rule="heun", shift=shift) for shift in (1.0, SHIFT) for steps in HEUN_STEPS),
    *(Steps(steps, eta=0.5, rule="multistep") for steps in NOISY_MULTISTEP_STEPS),
    *(Steps(steps, eta=0.5) for steps in DDIM_STEPS),
)
"""What is compared, in the order in which it is made."""


@dataclasses.dataclass(frozen=True)
class Ruler:
    """What generated images are measured with."""

    network: AbstractFeatureNetwork
    held_out: FeatureStatistics
    data_hash: str

    @classmethod
    def of(cls, run: Run, judge: OwnClassifier, folder: Path) -> "Ruler":
        network = judge.load(run.experiment, folder)
        images, _ = read_images(run.experiment, run.experiment.data.held_out)
        features = collect_features(network, in_batches(images))
        return cls(network, FeatureStatistics.of(features), hash_images([images]))


def main(
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    run: str = "fashion",
    images: int = 192,
    seeds: int = 5,
    judge: OwnClassifier = OwnClassifier(),
    settings: tyro.conf.Suppress[tuple[Steps, ...]] = SETTINGS,
) -> list[dict]:
    """Make and judge images in every setting, and report in folder OUTPUT. Returns all rows.

    Args:
        output: where rows.jsonl, report.md and steps.png go, and the classifier if it is to be trained.
        run: a folder that training wrote to, an exported file, or the name of a model that comes with the package.
        images: how many images a setting and seed makes.
        seeds: how many seeds, from 0 on.
        judge: the classifier whose features the distance rests on.
        settings: what is compared.
    """
    check_counts(images=images, seeds=seeds)
    opened = open_run(run)
    output.mkdir(parents=True, exist_ok=True)
    file = output / "rows.jsonl"
    ruler = Ruler.of(opened, judge, output)
    shared = {
        "run": run,
        "step": opened.step,
        "images": images,
        "model": {"commit": opened.commit, "validation_loss": opened.validation_loss},
        "network": dataclasses.asdict(NetworkIdentity.of(ruler.network)),
        "data_hash": ruler.data_hash,
    }
    everything = [dataclasses.replace(setting, seed=seed) for seed in range(seeds) for setting in settings]
    fill(file, [_wanted(shared, how, opened, ruler) for how in everything])
    found = [row for row in read_rows(file) if {name: row[name] for name in shared} == shared]
    write_report(found, frechet_name(ruler.network), output)
    return found


def _wanted(shared: dict, how: Steps, run: Run, ruler: Ruler) -> Wanted:
    def make() -> dict:
        made = generated_batches(run.denoiser, PixelMedium(run.experiment), Generation(shared["images"]), how)
        distance = Estimate(frechet_distance(collect_statistics(ruler.network, made), ruler.held_out))
        return {
            "calls_per_image": how.calls,
            "values": {frechet_name(ruler.network): dataclasses.asdict(distance)},
        }

    line = f"{how.rule}, eta {how.eta:g}, shift {how.shift:g}, {how.calls} calls, seed {how.seed}"
    return Wanted(line, shared | {"how": to_json(how)}, make)


if __name__ == "__main__":
    run_command(main)
