"""A run that has begun is not lost: mistakes are found before it begins, and nothing that it can do without ends it."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import TOY_RUN, ToyData, arrays_of, toy_errors, toy_train

from asyncpatch.data import AbstractSource, Digits, InMemoryRecords
from asyncpatch.losses import FisherDivergence
from asyncpatch.runs import SamplingConfig, configure, open_batches, train_run
from asyncpatch.runs.training import draw_grids
from asyncpatch.timesteps import AbstractTimestepSampler, AsyncPatch, Synchronous
from asyncpatch.train import RunConfig, Validation
from asyncpatch.train.metrics_log import MetricsLog

RUN = dataclasses.replace(TOY_RUN, steps=12, checkpoint_every=4, sample_every=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return arrays_of(toy_train(tmp_path_factory.mktemp("run"), run=RUN))


def broken_picture(step, denoiser):
    raise ZeroDivisionError(f"no picture at {step}")


class BrokenData(ToyData):
    """Validation data whose second batch cannot be read."""

    def batch(self, step):
        if step == 1:
            raise OSError("the disk of the validation data is gone")
        return super().batch(step)


def nan_image(step, image, label):
    if step == 6:
        image[3, 0, 0, 0] = np.nan


BROKEN = {
    "drawing samples": ({"sample_callback": broken_picture}, "no picture at 3", "failed 4 times"),
    "validation": ({"validation": Validation(BrokenData(), toy_errors)}, "is gone", "failed 3 times"),
    "a validation loss of nan": (
        {"validation": Validation(ToyData(edit=nan_image), toy_errors)},
        "validation loss at step 4 is nan, from validation batches [6]",
        "failed 3 times",
    ),
    "writing metrics": ({}, "no space left", "failed 12 times"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_run_can_do_without_is_said_once_and_counted_and_does_not_end_it(
    name, undisturbed, tmp_path, caplog, monkeypatch
):
    changes, said, counted = BROKEN[name]
    if name == "writing metrics":

        def full(self, step, values, clock):
            raise OSError("no space left on the device")

        monkeypatch.setattr(MetricsLog, "write", full)
    arrays = arrays_of(toy_train(tmp_path, run=RUN, **changes))
    assert all(np.array_equal(arrays[key], undisturbed[key]) for key in undisturbed)
    assert (tmp_path / "checkpoints" / "12").is_dir()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2, "once, and the sum at the end"
    assert said in str(errors[0].exc_info[1])
    assert counted in errors[1].getMessage()


def test_interruptions_and_broken_training_still_end_a_run(tmp_path, caplog):
    def interrupt(step, denoiser):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_train(tmp_path, run=RUN, sample_callback=interrupt)


def test_pictures_are_drawn_once_their_step_is_on_disk(tmp_path):
    """So that whatever happens while drawing, even a crash of the process, loses no step."""
    found = {}

    def look(step, denoiser):
        found[step] = (tmp_path / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").is_file()

    toy_train(tmp_path, run=dataclasses.replace(RUN, checkpoint_every=1000), sample_callback=look)
    assert found == dict.fromkeys((3, 6, 9, 12), True)


def spoil_label(step, image, label):
    label[0] = 7


def without_height(denoiser, key, image, label):
    return image[0, :, 0], image[0, :, 0] @ jnp.zeros(3)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (Validation(ToyData(edit=spoil_label), toy_errors), "label 7"),
        (Validation(ToyData(), without_height), "."),
    ],
    ids=["label", "errors"],
)
def test_validation_that_cannot_work_is_found_before_the_first_step(validation, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        toy_train(tmp_path, validation=validation)
    assert not (tmp_path / "metrics.jsonl").exists()


@dataclasses.dataclass(frozen=True)
class Untouched(AbstractSource):
    """Data that must not be opened."""

    def open(self):
        raise AssertionError("the data was opened")


class OneRow(AbstractTimestepSampler):
    """A law that forgets the height."""

    def __call__(self, key, height, width):
        return jnp.zeros((1, width + 1))


EXPERIMENT = configure(Digits(), "digits", AsyncPatch((1, 2)))
MISTAKES = {
    "an order of generation": (EXPERIMENT, SamplingConfig(patch=16), "a patch of 16x16 is larger"),
    "the loss on the schedule": (
        dataclasses.replace(EXPERIMENT, weighting=FisherDivergence()),
        None,
        "FisherDivergence.* on RectifiedFlow.* weighs the noise time 6e-08 by 2.8e.14",
    ),
    "patches of the law": (dataclasses.replace(EXPERIMENT, timesteps=AsyncPatch((1, 16))), None, "16"),
    "the law's shape": (dataclasses.replace(EXPERIMENT, timesteps=OneRow()), None, "."),
    "the batch": (
        dataclasses.replace(EXPERIMENT, data=dataclasses.replace(EXPERIMENT.data, batch_size=30)),
        None,
        "batch_size must be a multiple of 4",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_what_a_run_will_need_are_found_before_its_data_is_opened(name, tmp_path):
    experiment, sampling, message = MISTAKES[name]
    data = dataclasses.replace(experiment.data, source=Untouched(), held_out=Untouched())
    with pytest.raises(Exception, match=message) as error:
        train_run(tmp_path / "run", dataclasses.replace(experiment, data=data), RunConfig(steps=1), sampling=sampling)
    assert not isinstance(error.value, AssertionError)
    assert not (tmp_path / "run").exists()


def test_folder_of_pictures_that_cannot_be_written_to_is_found_at_the_start(tmp_path):
    (tmp_path / "samples").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*samples"):
        train_run(tmp_path, EXPERIMENT, RunConfig(steps=1), sampling=SamplingConfig(steps=2, patch=2))
    assert not (tmp_path / "checkpoints").exists()


@dataclasses.dataclass(frozen=True)
class Plain(AbstractSource):
    """A few black images with as many classes and channels as are asked for."""

    names: tuple[str, ...] = ()
    channels: int = 1

    def open(self):
        labels = np.arange(8, dtype=np.int32) % len(self.names) if self.names else np.full(8, -1, np.int32)
        return InMemoryRecords((8, 8, self.channels), self.names, np.zeros((8, 8, 8, self.channels), np.uint8), labels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_channels_without_classes_are_drawn(channels, tmp_path):
    experiment = configure(Plain(channels=channels), "digits", Synchronous(), batch_size=4, held_out_one_in=2)
    _, held_out = open_batches(experiment, 0)
    draw = draw_grids(tmp_path, experiment, held_out, SamplingConfig(steps=2))
    draw(1, experiment.make_denoiser(jax.random.key(0)))
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000001.png"]


@pytest.mark.parametrize("names", [("a", "c"), ("a", "b", "c", "d"), ("b", "a")])
def test_held_out_images_of_other_classes_are_refused(names):
    experiment = configure(Plain(("a", "b", "c")), "digits", Synchronous(), batch_size=4)
    other = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, held_out=Plain(names)))
    with pytest.raises(ValueError, match="held-out images are of the classes"):
        open_batches(other, 0)
    fewer = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, held_out=Plain(("a", "b"))))
    assert open_batches(fewer, 0)[1].class_names == ("a", "b")


def test_more_classes_than_the_trainer_knows_are_refused():
    experiment = configure(Digits(), "digits", Synchronous())
    training = dataclasses.replace(experiment.training, num_classes=3)
    with pytest.raises(ValueError, match="the data has 10 classes, the config of training 3"):
        open_batches(dataclasses.replace(experiment, training=training), 0)
