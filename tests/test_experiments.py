"""The experiments, run small: what they leave behind, and what they refuse."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

from asyncpatch.config import from_json, to_json
from asyncpatch.data import Digits, PadTo, to_float
from asyncpatch.masks import Thin
from asyncpatch.pictures import HELD, animate, colour_time, moments, strip
from asyncpatch.runs import SamplingConfig, configure, four_tasks, open_batches, open_run, run_task
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import BY_TIME
from experiments import sample as sample_script
from experiments.export import export
from experiments.front_page import front_page
from experiments.parts.asked import Own
from experiments.parts.drawing import choose_labels
from experiments.parts.laws import LAWS
from experiments.parts.loss_curve import loss_curve
from experiments.parts.own_images import read_image, read_mask, read_strength
from experiments.parts.rows import Inpainting, Steps
from experiments.quickstart import quickstart

FEW = SamplingConfig(steps=4, patch=2)
TASKS = ("generation", "autoregression", "inpainting", "outpainting")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The quickstart after three steps; the mesh of a data-parallel run takes all of the test's CPU devices."""
    folder = tmp_path_factory.mktemp("run")
    return quickstart(folder, steps=3, sampling=FEW).parent


def test_quickstart_leaves_pictures_numbers_config_and_page(report):
    page = (report / "index.html").read_text()
    for task in TASKS:
        with Pillow.open(report / f"{task}.webp") as moving:
            assert moving.n_frames == FEW.steps + 1
        for name in (f"{task}.png", f"{task}_times.png"):
            with Pillow.open(report / name) as picture:
                assert min(picture.size) > 50
            assert f'src="{name}"' in page
    config = json.loads((report / "config.json").read_text())
    assert config["network"]["base"] == 32
    assert config["training"]["cooldown"] == {"type": "Cooldown", "start": 1, "steps": 2}
    numbers = json.loads((report / "numbers.json").read_text())
    assert np.isfinite(float(numbers["training loss"]))
    assert np.isfinite(float(numbers["validation loss"]))
    assert {"seed", "commit", "machine", "command"} <= numbers.keys()
    assert numbers["tasks"]["generation"]["images"] == 32
    lines = [json.loads(line) for line in (report.parent / "metrics.jsonl").read_text().splitlines()]
    assert any(name.startswith(BY_TIME) for line in lines for name in line)
    assert sorted(path.name for path in (report.parent / "samples").iterdir()) == [
        f"step_{step:07d}.png" for step in (1, 2, 3)
    ]


def test_loss_is_drawn_by_noise_time_too(tmp_path):
    records = [{"step": 1, "loss": 2.0}, {"step": 2, "validation_loss": 1.0, f"{BY_TIME}/0-0.2": 3.0}]
    drawn = [np.asarray(Pillow.open(loss_curve(some, tmp_path / "loss.png"))) for some in (records, records[:1])]
    right = drawn[0].shape[1] // 2 + 40
    assert (drawn[0][:, right:] != drawn[1][:, right:]).any()


def test_strip_shows_times_noisy_images_and_estimates():
    times, noisy, data = (np.full((2, 4, 4, 1), value) for value in (0.5, -1.0, 1.0))
    pixels = strip(times[..., 0], noisy, data, np.zeros((4, 4, 1)))
    assert pixels.shape == (3 * 6 + 2, 3 * 6 + 2, 3)
    assert (pixels[2:6, 2:6] == colour_time(times[0, ..., 0])).all()
    assert (pixels[8:12, 2:12][:, [0, 8]] == 0).all()
    assert (pixels[14:18, 2:12][:, [0, 8]] == 255).all()
    assert (pixels[8:12, 14:18] == pixels[14:18, 14:18]).all(), "both end with the image"


def test_checkpoint_is_sampled_with_known_pixels_equal_to_the_bit(report):
    run = open_run(report.parent)
    _, held_out = open_batches(run.experiment, 0)
    image = jnp.asarray(held_out.batch(0)["image"][:8])
    tasks = four_tasks(FEW, 8, 8)
    for task in tasks.values():
        made, history = run_task(run.denoiser, task, FEW, image, jnp.zeros(8, jnp.int32))
        known = np.zeros((8, 8), bool) if task.known is None else np.asarray(task.known)
        np.testing.assert_array_equal(np.asarray(made)[:, known], np.asarray(image)[:, known])
        assert np.all(np.diff(np.asarray(history.times), axis=1) <= 0)


def test_hidden_pixels_are_not_read(report):
    run = open_run(report.parent)
    task = four_tasks(FEW, *run.image_shape[:2])["inpainting"]
    label = jnp.zeros(2, jnp.int32)
    image = jnp.zeros((2, 8, 8, 1))
    other = jnp.where(task.known[None, :, :, None], image, 0.7)
    one, same = (run_task(run.denoiser, task, FEW, given, label)[0] for given in (image, other))
    np.testing.assert_array_equal(one, same)


def test_user_image_and_mask_are_inpainted(report, tmp_path):
    rng = np.random.default_rng(0)
    Pillow.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "image.png")
    Pillow.fromarray(np.where(np.arange(64).reshape(8, 8) < 32, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    sample_script.main(
        str(report.parent),
        tmp_path / "out",
        sampling=FEW,
        own=Own(tmp_path / "image.png", tmp_path / "mask.png"),
        labels=(3, -1),
        count=4,
    )
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["tasks"]["inpainting"]["labels"] == [3, -1, 3, -1]
    assert (tmp_path / "out" / "inpainting.png").exists()


def test_image_is_changed_by_a_map_of_strengths(report, tmp_path):
    """Black keeps the file's pixels to the bit; the others are changed, and no class is asked for."""
    image = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    strength = np.zeros((8, 8), np.uint8)
    strength[:, 4:], strength[:, 6:] = 128, 255
    Pillow.fromarray(image).save(tmp_path / "image.png")
    Pillow.fromarray(strength).save(tmp_path / "strength.png")
    own = Own(tmp_path / "image.png", strength=tmp_path / "strength.png")
    sample_script.main(str(report.parent), tmp_path / "out", sampling=FEW, own=own, count=2)
    made = [np.asarray(Pillow.open(tmp_path / "out" / "image_to_image" / f"{i}.png")) for i in range(2)]
    for one in made:
        assert np.array_equal(one[:, :4], image[:, :4])
        assert (one[:, 4:] != image[:, 4:]).mean() > 0.9
    assert not np.array_equal(*made)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())["tasks"]["image_to_image"]
    assert record["labels"] == [-1, -1]
    with Pillow.open(tmp_path / "out" / record["moving"]) as moving:
        assert moving.n_frames == FEW.steps + 1


def test_map_of_strengths_goes_the_way_of_the_data(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Pillow.fromarray(values).save(tmp_path / "strength.png")
    strength = read_strength(tmp_path / "strength.png", 32, 32, PAD)
    np.testing.assert_allclose(strength[2:30, 2:30], values / 255, atol=1e-6)
    assert (strength[np.pad(np.zeros((28, 28), bool), 2, constant_values=True)] == 0).all()
    with pytest.raises(ValueError, match=r"is 28x28 .*; a map of strengths has the size of its image"):
        read_strength(tmp_path / "strength.png", 8, 8)


def test_moments_show_several_images_beside_each_other():
    times, noisy, data = (np.full((3, 2, 4, 4, 1), value) for value in (0.5, -1.0, 1.0))
    frames = moments(times[..., 0], noisy, data, np.zeros((3, 4, 4, 1)))
    assert len(frames) == 3
    assert all(frame.shape == (3 * 6 + 2, 3 * 6 + 2, 3) for frame in frames)
    assert (frames[0][8:12, 2:6] == 0).all()
    assert (frames[0][14:18, 2:6] == 255).all()
    assert (frames[2][8:12, 2:6] == frames[2][14:18, 2:6]).all(), "both end with the image"


def test_moments_of_one_image_lie_beside_each_other():
    times, noisy, data = (np.full((1, 2, 4, 4, 1), value) for value in (0.5, -1.0, 1.0))
    frames = moments(times[..., 0], noisy, data, np.zeros((1, 4, 4, 1)))
    assert frames[0].shape == (6 + 2, 3 * 6 + 2, 3)
    assert (frames[0][2:6, 8:12] == 0).all()
    assert (frames[0][2:6, 14:18] == 255).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_are_endless_and_keep_their_end_longest(suffix, tmp_path):
    frames = [np.full((4, 4, 3), shade, np.uint8) for shade in (0, 100, 255)]
    with Pillow.open(animate(frames, tmp_path / f"a{suffix}", target_width=8)) as moving:
        assert (moving.n_frames, moving.size, moving.info["loop"]) == (3, (8, 8), 0)
        durations = []
        for at, shade in enumerate((0, 100, 255)):
            moving.seek(at)
            moving.load()
            durations.append(moving.info["duration"])
            assert (np.asarray(moving.convert("RGB")) == shade).all()
    assert durations[-1] == HELD * durations[0]


def test_export_writes_a_run_with_examples_and_names(report, tmp_path):
    names = tuple("abcdefghij")
    found = export(report.parent, tmp_path / "run.safetensors", stored="float16", examples=12, class_names=names)
    assert found.class_names == names
    assert found.examples.label.tolist() == [*range(10), 0, 1]
    assert found.commit == open_run(report.parent).commit
    with pytest.raises(ValueError, match="asked for 1000 examples, the data holds out 180 images"):
        export(report.parent, tmp_path / "more.safetensors", examples=1000)
    with pytest.raises(ValueError, match="has 10 classes, got 1 names"):
        export(report.parent, tmp_path / "more.safetensors", class_names=("one",))
    assert not (tmp_path / "more.safetensors").exists()


def test_a_file_states_what_was_measured_of_its_checkpoint(report, tmp_path):
    run = open_run(report.parent)
    row = {
        "experiment": to_json(run.experiment),
        "step": run.step,
        "task": to_json(Inpainting(Thin(), 64)),
        "how": to_json(Steps()),
        "calls_per_image": 40,
        "values": {
            "LPIPS@32": {"value": 0.0125, "standard_error": 0.001},
            "FD-classifier": {"value": 9.0, "standard_error": None},
        },
    }
    rows, file = tmp_path / "rows.jsonl", tmp_path / "run.safetensors"
    rows.write_text(json.dumps(row | {"step": 1}) + "\n")
    with pytest.raises(ValueError, match=f"no distance and no LPIPS of this config at step {run.step}"):
        export(report.parent, file, measured=rows)
    rows.write_text(rows.read_text() + json.dumps(row) + "\n")
    found = export(report.parent, file, measured=rows)
    assert found.measured == {"LPIPS@32, inpainting, thin, 64 images, 40 calls": 0.0125}
    assert export(file, tmp_path / "again.safetensors").measured == found.measured


def test_pictures_of_the_front_page_are_drawn(tmp_path):
    front_page(tmp_path, sampling=SamplingConfig(steps=8, patch=16), count=2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "four_ways.png",
        "pictures.json",
        *(f"{task}.{kind}" for task in (*TASKS, "image_to_image") for kind in ("png", "webp")),
    }
    said = json.loads((tmp_path / "pictures.json").read_text())
    assert said["sampling"]["steps"] == 8
    assert any("images" in line for line in said["model"])


def test_one_image_of_ones_own_has_no_class_and_a_sheet_and_a_file_of_one(report, tmp_path):
    """A class that nobody gave would pull the image its way."""
    values = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    known = np.arange(64).reshape(8, 8) < 32
    Pillow.fromarray(values).save(tmp_path / "image.png")
    Pillow.fromarray(known).save(tmp_path / "mask.png")
    for count in (3, 1):
        sample_script.main(
            str(report.parent),
            tmp_path / "out",
            sampling=FEW,
            own=Own(tmp_path / "image.png", tmp_path / "mask.png"),
            count=count,
        )
        record = json.loads((tmp_path / "out" / "samples.json").read_text())["tasks"]["inpainting"]
        assert record["labels"] == [-1] * count
        assert len(record["files"]) == len(list((tmp_path / "out" / "inpainting").iterdir())) == count
        for name in record["files"]:
            with Pillow.open(tmp_path / "out" / name) as picture:
                made = np.asarray(picture)
            assert np.array_equal(made[known], values[known])
            assert made.shape == (8, 8)
        with Pillow.open(tmp_path / "out" / "inpainting.png") as sheet:
            assert sheet.height > sheet.width / count, "three rows of as many columns"


def test_every_task_writes_every_image_and_its_class(report, tmp_path):
    sample_script.main(str(report.parent), tmp_path / "out", sampling=FEW, count=1)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())["tasks"]
    assert set(record) == set(TASKS)
    for name in TASKS:
        assert record[name]["files"] == [f"{name}/0.png"]
        with Pillow.open(tmp_path / "out" / name / "0.png") as picture:
            assert picture.size == (8, 8)


ONE_THING = [
    ({"image": "a.png"}, "--mask for inpainting, --strength for image to image, or --canvas"),
    ({"image": "a.png", "mask": "m.png", "strength": 0.5}, "an image comes with one thing to do with it"),
    ({"image": "a.png", "exemplar": "b.png", "canvas": (16, 16)}, "an image comes with one thing to do with it"),
    ({"exemplar": "a.png"}, "goes onto a canvas, and nothing else"),
    ({"exemplar": "a.png", "canvas": (16, 16), "mask": "m.png"}, "goes onto a canvas, and nothing else"),
    ({"strength": 0.5}, "are for an image of yours"),
    ({"fit": "crop"}, "are for an image of yours"),
    ({"image": "a.png", "canvas": (16, 16), "fit": "crop"}, "keeps its size; leave --fit out"),
]


@pytest.mark.parametrize(("what", "message"), ONE_THING, ids=[" ".join(what) for what, _ in ONE_THING])
def test_an_image_comes_with_one_thing_to_do(what, message):
    with pytest.raises(ValueError, match=message):
        Own(**{name: Path(value) if str(value).endswith("png") else value for name, value in what.items()})


@pytest.mark.parametrize("kind", ["image", "exemplar"])
def test_canvas_around_an_image_keeps_it_to_the_bit(report, tmp_path, kind):
    image = np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8)
    Pillow.fromarray(image).save(tmp_path / "a.png")
    own = Own(**{kind: tmp_path / "a.png"}, canvas=(12, 16))
    sample_script.main(str(report.parent), tmp_path / "out", sampling=FEW, own=own, count=1)
    name = {"image": "outpainting", "exemplar": "texture"}[kind]
    made = np.asarray(Pillow.open(tmp_path / "out" / name / "0.png"))
    assert made.shape == (12, 16)
    assert np.array_equal(made[3:9, 5:10], image)
    small = Own(**{kind: tmp_path / "a.png"}, canvas=(4, 16))
    with pytest.raises(ValueError, match="of 6x5 is larger than its canvas of 4x16"):
        sample_script.main(str(report.parent), tmp_path / "out", sampling=FEW, own=small, count=1)


def test_white_is_known_and_grey_is_refused(tmp_path):
    values = np.zeros((4, 4), np.uint8)
    values[0] = 255
    Pillow.fromarray(values).save(tmp_path / "mask.png")
    known = read_mask(tmp_path / "mask.png", 4, 4)
    assert np.array_equal(np.asarray(known), values == 255)
    with pytest.raises(ValueError, match=r"\(8, 8\)"):
        read_mask(tmp_path / "mask.png", 8, 8)
    values[1] = 128
    Pillow.fromarray(values).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"4 pixels of .* are grey"):
        read_mask(tmp_path / "grey.png", 4, 4)


PAD = (PadTo(32, 32),)


def test_image_and_mask_go_the_way_of_the_data(tmp_path):
    """A 28x28 garment and its mask in a run padded to 32: what is padded is black, and known."""
    values = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    known = np.arange(28 * 28).reshape(28, 28) % 3 == 0
    Pillow.fromarray(values).save(tmp_path / "image.png")
    Pillow.fromarray(known).save(tmp_path / "mask.png")
    given = read_image(tmp_path / "image.png", (32, 32, 1), PAD)
    assert np.array_equal(given.image[2:30, 2:30], to_float(values[..., None]))
    outside = np.pad(np.zeros((28, 28), bool), 2, constant_values=True)
    assert (given.image[outside] == -1).all()
    mask = np.asarray(read_mask(tmp_path / "mask.png", 32, 32, given.file_size, PAD))
    assert np.array_equal(mask[2:30, 2:30], known)
    assert mask[outside].all()


def test_image_and_mask_of_the_networks_size_stay_as_they_are(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Pillow.fromarray(values).save(tmp_path / "image.png")
    Pillow.fromarray(values > 100).save(tmp_path / "mask.png")
    given = read_image(tmp_path / "image.png", (32, 32, 1), PAD)
    assert np.array_equal(given.image, to_float(values[..., None]))
    assert np.array_equal(read_mask(tmp_path / "mask.png", 32, 32, given.file_size, PAD), values > 100)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("fit", "size"), [("crop", (64, 96)), ("resize", (64, 96)), ("resize", (16, 16))])
def test_images_and_masks_of_other_sizes_are_fitted_alike(fit, size, channels, tmp_path):
    """Left half white and known: what is white stays known, but for the pixels that the border runs through."""
    half = np.zeros(size, bool)
    half[:, : size[1] // 2] = True
    Pillow.fromarray(half).save(tmp_path / "mask.png")
    Pillow.fromarray(half.astype(np.uint8) * 255).save(tmp_path / "image.png")
    given = read_image(tmp_path / "image.png", (32, 32, channels), PAD, fit)
    assert given.image.shape == (32, 32, channels)
    mask = np.asarray(read_mask(tmp_path / "mask.png", 32, 32, given.file_size, PAD, fit))
    assert np.array_equal(np.delete(mask, (15, 16), 1), np.delete(given.image[..., 0] > 0, (15, 16), 1))
    assert mask.mean() == 0.5


@pytest.mark.parametrize("size", [(9, 8), (33, 32), (100, 100), (30, 40)])
def test_image_of_another_size_is_refused(size, tmp_path):
    Pillow.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "image.png")
    for shape, transforms in [((8, 8, 1), ()), ((32, 32, 3), PAD)]:
        if size == (9, 8) and transforms:
            continue  # small enough to be padded
        with pytest.raises(ValueError, match=rf"is {size[0]}x{size[1]} \(height x width\), .* --fit crop"):
            read_image(tmp_path / "image.png", shape, transforms)


def test_mask_of_neither_size_is_refused(tmp_path):
    Pillow.fromarray(np.zeros((30, 30), bool)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"is 30x30 .* of its image, 28x28, or of the network, 32x32"):
        read_mask(tmp_path / "mask.png", 32, 32, (28, 28), PAD)


@pytest.mark.parametrize(("labels", "classes"), [((10,), 10), ((-2,), 10), ((0,), 0)])
def test_labels_that_are_no_classes_are_refused(labels, classes):
    with pytest.raises(ValueError, match="are no classes"):
        choose_labels(labels, 4, classes)


def test_images_that_the_network_cannot_halve_are_refused_before_training():
    with pytest.raises(ValueError, match="multiples of 4"):
        configure(Digits(), "fashion", AsyncPatch((1, 2)), pad_to=30)


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset is called 'huge'"):
        configure(Digits(), "huge", AsyncPatch((1, 2)))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_every_law_of_the_command_line_survives_its_checkpoint(law):
    experiment = configure(Digits(), "digits", law)
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
