"""The train step against plain formulae, and the loop's reports and refusals."""

import io
import math
import re
import struct
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image as Pillow
from tensorboardX.proto.event_pb2 import Event
from toy_training import (
    NUM_CLASSES,
    TOY_CONFIG,
    TOY_LEARNER,
    TOY_RUN,
    DenseDenoiser,
    ToyData,
    arrays_of,
    losses_of,
    toy_errors,
    toy_loss,
    toy_train,
)

from asyncpatch.shapes import NULL_LABEL
from asyncpatch.train import (
    Descent,
    NonFiniteLossError,
    OptimizerConfig,
    StepInputs,
    StepMetrics,
    Validation,
    init_state,
    make_mesh,
    put_batch,
    train_step,
)
from asyncpatch.train import progress as progress_module
from asyncpatch.train.batch import check_batch
from asyncpatch.train.extras import Extras
from asyncpatch.train.flat import flatten, unflatten
from asyncpatch.train.mesh import weight_sharding
from asyncpatch.train.microbatches import add_in_a_loop, add_written_out
from asyncpatch.train.report import Reporter
from asyncpatch.train.state import NEVER, step_key
from asyncpatch.train.step import flat_train_step

GOLDEN_LOSSES = [1.8738816, 1.6692617, 1.6014652, 1.4595058]
"""Losses of the first steps of the toy run, made by this code on a CPU."""


def run_steps(config, mesh, steps, loss_fn=toy_loss, make_denoiser=DenseDenoiser, data=None, state=None):
    """The state after some steps, outside the loop, and the loss of each."""
    data = ToyData() if data is None else data
    learner = Descent(make_denoiser, loss_fn)
    state = init_state(learner, config, mesh) if state is None else state
    losses = []
    for _ in range(steps):
        inputs = StepInputs(put_batch(data.batch(int(state.step)), mesh), learner, config, 1, mesh)
        state, metrics = train_step(inputs, state)
        losses.append(float(metrics.loss))
    return state, losses


def plain_adam(config, gradients, weight):
    """Clip, warm up, Adam: as in the papers, in float64."""
    first = second = np.zeros_like(weight)
    for step, gradient in enumerate(gradients):
        gradient = gradient * min(1.0, config.max_gradient_norm / np.linalg.norm(gradient))
        first = config.b1 * first + (1 - config.b1) * gradient
        second = config.b2 * second + (1 - config.b2) * gradient**2
        rate = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps)
        unbiased = first / (1 - config.b1 ** (step + 1)), second / (1 - config.b2 ** (step + 1))
        weight = weight - rate * unbiased[0] / (np.sqrt(unbiased[1]) + config.eps)
    return weight


@pytest.mark.parametrize("twin", [False, True], ids=["law", "wrong-twin"])
def test_optimiser_is_clipped_warmed_up_adam(twin):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=3, max_gradient_norm=1.0)
    random = np.random.default_rng(0)
    gradients = [scale * random.standard_normal(5) for scale in (0.1, 10.0, 1.0, 0.01, 3.0)]
    start = random.standard_normal(5)
    weight = jnp.array(start, jnp.float32)
    optimiser = config.build()
    state = optimiser.init(weight)
    for gradient in gradients:
        with jax.numpy_dtype_promotion("standard"):
            update, state = optimiser.update(jnp.array(gradient, jnp.float32), state)
        weight = weight + update
    expected = plain_adam(replace(config, b2=0.98) if twin else config, gradients, start)
    assert np.allclose(weight, expected, rtol=1e-5) != twin


def test_one_step_against_a_plain_loop_over_images():
    config, mesh = TOY_CONFIG, make_mesh()
    before, batch = init_state(TOY_LEARNER, config, mesh), ToyData().batch(0)
    weights = eqx.filter(before.denoiser, eqx.is_array)

    loss_and_gradient, parts = jax.jit(jax.value_and_grad(toy_loss)), []
    for index, (image, label) in enumerate(zip(batch["image"], batch["label"], strict=True)):
        label_key, loss_key = jr.split(jr.fold_in(step_key(config, jnp.int32(0)), index))
        kept = jnp.int32(NULL_LABEL if jr.bernoulli(label_key, config.label_dropout) else label)
        parts.append(loss_and_gradient(before.denoiser, loss_key, jnp.array(image), kept))
    loss, gradient = jax.tree.map(lambda *values: sum(values) / len(values), *parts)
    norm = math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient)))
    expected = arrays_of(weights)
    after, (measured,) = run_steps(config, mesh, 1, state=before)
    assert measured == pytest.approx(float(loss), rel=1e-5)
    rate = config.optimizer.learning_rate / config.optimizer.warmup_steps
    for name, start in expected.items():
        slope = arrays_of(gradient)[name] * min(1.0, 1.0 / norm)
        moved = start - rate * np.sign(slope)  # Adam's first step: a unit in the direction of the sign
        np.testing.assert_allclose(arrays_of(after.denoiser)[name], moved, atol=1e-6, err_msg=name)
        average = 0.1 * start + 0.9 * moved  # the decay's warm-up begins at 1 / 10
        np.testing.assert_allclose(arrays_of(after.ema)[name], average, atol=1e-6, err_msg=name)


def test_the_average_warms_up_to_its_decay():
    config = replace(TOY_CONFIG, ema_decay=0.999)
    decays = [float(config.ema_decay_at(jnp.int32(step))) for step in (0, 89, 8979, 8990, 10**6)]
    np.testing.assert_allclose(decays, [0.1, 90 / 99, 8980 / 8989, 0.999, 0.999], rtol=1e-6)


@pytest.fixture(params=[True, False], ids=["compiled as in tests", "compiled as in use"])
def compiler(request):
    """The compiler is told to make less effort in tests (`conftest.py`)."""
    flat_train_step.cache_clear()
    jax.config.update("jax_disable_most_optimizations", request.param)
    yield
    flat_train_step.cache_clear()
    jax.config.update("jax_disable_most_optimizations", True)


def test_golden_train_step(compiler):
    _, losses = run_steps(TOY_CONFIG, make_mesh(), len(GOLDEN_LOSSES))
    np.testing.assert_allclose(
        losses,
        GOLDEN_LOSSES,
        rtol=1e-4,
        err_msg="The train step computes other numbers than it did. If that is meant (a change of keys, of the "
        "optimiser or of the loss), say so in the commit and store the losses above as GOLDEN_LOSSES; if not, find "
        "the change. Checkpoints made before it will resume on another course.",
    )


def wide_denoiser(key):
    """Wide enough for its weights to be split."""
    return DenseDenoiser(key, hidden=4096)


def test_one_device_and_four_agree():
    one, losses = run_steps(TOY_CONFIG, make_mesh(), 2, make_denoiser=wide_denoiser)
    four, split_losses = run_steps(TOY_CONFIG, make_mesh(data=2, fsdp=2), 2, make_denoiser=wide_denoiser)
    np.testing.assert_allclose(split_losses, losses, rtol=1e-5)
    moments = jax.tree.leaves(eqx.filter(four.opt_state, lambda leaf: eqx.is_array(leaf) and leaf.ndim == 2))
    for weight in (four.denoiser.inner, four.ema.inner, *(leaf for leaf in moments if leaf.shape == (32, 4096))):
        assert weight.addressable_shards[0].data.shape == (32, 2048)
    assert four.denoiser.label_bias.sharding.is_fully_replicated
    # Adam divides by the root of the second moment: where a gradient nearly vanishes, rounding decides its sign.
    close = [np.isclose(arrays_of(four.denoiser)[n], v, atol=1e-4).mean() for n, v in arrays_of(one.denoiser).items()]
    assert min(close) > 0.99


def test_accumulation_equals_the_big_batch():
    whole, losses = run_steps(TOY_CONFIG, make_mesh(), 3)
    parts, part_losses = run_steps(replace(TOY_CONFIG, accumulation=4), make_mesh(), 3)
    np.testing.assert_allclose(part_losses, losses, rtol=1e-5)
    for name, value in arrays_of(whole.denoiser).items():
        np.testing.assert_allclose(arrays_of(parts.denoiser)[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_both_forms_of_accumulation_agree():
    parts = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3.0)}

    def add(total, part):
        return 0.5 * total + part["a"] * part["b"]

    expected = np.array([0.5 * 2 * 1 + 4 * 2, 0.5 * 3 * 1 + 5 * 2])
    for accumulate in (add_in_a_loop, add_written_out):
        np.testing.assert_allclose(accumulate(add, jnp.zeros(2), parts), expected)


def test_train_step_compiles_once(tmp_path):
    compiled = []

    def listen(event, duration, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    config = replace(TOY_CONFIG, seed=77)  # a config that no other test has compiled
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        toy_train(tmp_path, config, replace(TOY_RUN, steps=5))
        toy_train(tmp_path, config, replace(TOY_RUN, steps=9))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.count("jit(train_step)") == 1, compiled


def test_label_dropout_has_its_rate_and_every_image_its_own_key():
    def loss(denoiser, key, image, label):
        """Its value counts dropped labels; its gradient is a number drawn from the key, for each weight."""
        weight = jnp.sum(denoiser.inner)
        return (label == NULL_LABEL).astype(jnp.float32) + jr.uniform(key) * (weight - jax.lax.stop_gradient(weight))

    mesh, count = make_mesh(), 4096
    batch = put_batch(ToyData(batch=count).batch(0), mesh)
    state = init_state(TOY_LEARNER, TOY_CONFIG, mesh)
    _, metrics = train_step(StepInputs(batch, Descent(DenseDenoiser, loss), TOY_CONFIG, 1, mesh), state)
    mean_draw = float(metrics.gradient_norm) / math.sqrt(2 * 4 * 4 * 16)
    # Fixed seed; for a random one each bound of 4.9 deviations has a false-alarm rate of 1e-6.
    assert abs(float(metrics.loss) - 0.25) < 4.9 * math.sqrt(0.25 * 0.75 / count)
    assert abs(mean_draw - 0.5) < 4.9 / math.sqrt(12 * count)


def read_values(folder):
    """The step and what was logged, from TensorBoard files: records of length, checksum, data, checksum."""
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            yield from ((event.step, value) for value in event.summary.value)
            at += length + 16


def read_events(folder):
    """The scalars in TensorBoard files."""
    return ((value.tag, step, value.simple_value) for step, value in read_values(folder) if not value.image.height)


def test_reports_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "PLAIN_SECONDS", 0.0)
    seen = {}

    def callback(step, denoiser):
        seen[step] = np.array(denoiser.inner)

    run = replace(TOY_RUN, steps=5, sample_every=2)
    validation = Validation(ToyData(edit=lambda step, image, label: np.negative(image, out=image)), toy_errors)
    state = toy_train(tmp_path, run=run, validation=validation, sample_callback=callback)
    assert list(seen) == [2, 4, 5]
    assert np.array_equal(seen[5], state.ema.inner)
    losses = losses_of(tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5]
    assert list(losses_of(tmp_path, "validation_loss")) == [4, 5]
    assert all(speed > 0 for speed in losses_of(tmp_path, "images_per_second").values())
    assert {(step, np.float32(loss)) for step, loss in losses.items()} == {
        (step, np.float32(value)) for tag, step, value in read_events(tmp_path) if tag == "loss"
    }
    printed = capsys.readouterr()
    assert "step 5/5  loss" in printed.err
    assert "s left" in printed.err
    assert printed.out == ""


def test_pictures_of_samples_are_in_tensorboard(tmp_path):
    def picture(step, denoiser):
        return None if step == 3 else np.full((6, 4, 3), step, np.uint8)

    toy_train(tmp_path, run=replace(TOY_RUN, steps=4, sample_every=1), sample_callback=picture)
    found = {step: value for step, value in read_values(tmp_path) if value.image.height}
    assert list(found) == [1, 2, 4]
    for step, value in found.items():
        assert value.tag == "samples"
        pixels = np.asarray(Pillow.open(io.BytesIO(value.image.encoded_image_string)))
        assert pixels.shape[0] * 4 == pixels.shape[1] * 6 > 6 * 6, "enlarged"
        assert (pixels == step).all()


def test_validation_loss_by_noise_time(tmp_path):
    """An error of ten times the noise time: the mean of each part of the times that occur, and of all."""
    times = jnp.array([0.0, 0.1, 0.3, 0.35, 0.4, 0.45, 0.95, 1.0] * 2).reshape(4, 4)

    def errors(denoiser, key, image, label):
        return times, 10 * times

    toy_train(tmp_path, run=replace(TOY_RUN, steps=4), validation=Validation(ToyData(), errors))
    expected = {"0-0.2": 0.5, "0.2-0.4": 3.25, "0.4-0.6": 4.25, "0.8-1": 9.75}
    for part, mean in expected.items():
        assert losses_of(tmp_path, f"validation_loss_by_time/{part}") == {4: pytest.approx(mean)}
    assert losses_of(tmp_path, "validation_loss_by_time/0.6-0.8") == {}
    assert losses_of(tmp_path, "validation_loss")[4] == pytest.approx(10 * float(times.mean()))
    assert {tag for tag, *_ in read_events(tmp_path)} >= {f"validation_loss_by_time/{part}" for part in expected}


def test_bar_on_a_terminal(capsys):
    console = progress_module.Console(force_terminal=True, width=100)
    bar = progress_module.BarProgress(console, 2, 10)
    bar.note("loss 0.5  100 images/s")
    bar.advance(7)
    bar.close()
    printed = capsys.readouterr().out
    assert "7/10" in printed
    assert "loss 0.5  100 images/s" in printed


def spoil_image(step, image, label):
    if step == 6:
        image[3, 0, 0, 0] = np.nan


def test_non_finite_loss_names_step_batch_and_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLossError) as error:
        toy_train(tmp_path, data=ToyData(edit=spoil_image))
    assert "at step 6, in batch 6 of the data (images [3] have bad pixels)" in str(error.value)
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '4'}." in str(error.value)


def test_non_finite_loss_before_the_first_checkpoint(tmp_path):
    def explode(denoiser, key, image, label):
        return jnp.sum(denoiser.inner) * jnp.inf

    with pytest.raises(NonFiniteLossError, match=r"step 0, .*all its pixels are finite.*; no checkpoint had"):
        toy_train(tmp_path, loss_fn=explode)


def test_non_finite_step_changes_nothing_from_there_on():
    state, _ = run_steps(TOY_CONFIG, make_mesh(), 6)
    before = arrays_of(state)
    inputs = StepInputs(
        put_batch(ToyData(edit=spoil_image).batch(6), make_mesh()), TOY_LEARNER, TOY_CONFIG, 1, make_mesh()
    )
    state, metrics = train_step(inputs, state)
    assert int(metrics.broken_at) == 6
    state, losses = run_steps(TOY_CONFIG, make_mesh(), 2, state=state)
    assert math.isfinite(losses[-1])
    after = arrays_of(state)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == [".broken_at"]


@pytest.mark.parametrize("label", [NUM_CLASSES, NULL_LABEL - 1])
def test_label_out_of_range(tmp_path, label):
    def spoil(step, image, labels):
        labels[2] = label

    with pytest.raises(
        ValueError, match=rf"batch 0 has the label {label} at image 2, outside -1 .* to 2; set num_classes"
    ):
        toy_train(tmp_path, data=ToyData(edit=spoil))


class DoubleData(ToyData):
    """Images of the wrong type."""

    def iterate(self, start_step):
        for batch in super().iterate(start_step):
            yield batch | {"image": batch["image"].astype(np.float64)}


def test_unusable_batches(tmp_path):
    with pytest.raises(
        ValueError, match=r"batch 0 has images float64\[8, 4, 4, 1\] and labels int32\[8\]; give float32"
    ):
        toy_train(tmp_path, data=DoubleData())
    with pytest.raises(ValueError, match=r"batch of 8 images cannot be split into 12 equal parts"):
        toy_train(tmp_path, replace(TOY_CONFIG, accumulation=3), mesh=make_mesh(data=4))


def test_unwritable_output_folder(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file/run .*; give a folder that you can"):
        toy_train(tmp_path / "file" / "run")


def test_mesh_of_too_many_devices():
    with pytest.raises(ValueError, match="a mesh of 4 x 2 devices does not fit the 4 devices present"):
        make_mesh(data=4, fsdp=2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 4096), (None, "fsdp")), ((4096, 64, 3), (None, "fsdp")), ((16, 16), ()), ((257, 1023), ()), ((), ())],
)
def test_large_weights_are_split_along_the_larger_of_their_last_two_axes(shape, expected):
    assert weight_sharding(make_mesh(data=2, fsdp=2), shape).spec == jax.sharding.PartitionSpec(*expected)
    assert weight_sharding(make_mesh(), shape).spec == jax.sharding.PartitionSpec()


def test_data_without_classes_has_only_null_labels():
    image = np.zeros((2, 4, 4, 1), np.float32)
    check_batch({"image": image, "label": np.full(2, NULL_LABEL, np.int32)}, 0, num_classes=0, parts=1)
    with pytest.raises(ValueError, match="batch 5 has the label 0 at image 1"):
        check_batch({"image": image, "label": np.array([NULL_LABEL, 0], np.int32)}, 5, num_classes=0, parts=1)


def test_a_tree_is_its_arrays_and_the_rest():
    tree = {"weight": jnp.arange(3.0), "name": "a word", "more": (jnp.zeros(()), None, 2.5, [jnp.ones((1, 2))])}
    arrays, rest = flatten(tree)
    assert len(arrays) == 3
    assert hash(rest) == hash(flatten(tree)[1])
    back = unflatten(arrays, rest)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert all(one is other for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True))
    assert unflatten(arrays[::-1], rest)["weight"] is arrays[0]  # wrong twin: the order is what places them


def test_what_compiles_is_said_and_counts_neither_as_speed_nor_as_time_left(tmp_path, monkeypatch, capsys):
    clock = iter(range(10**6))  # every look at the clock takes a second
    monkeypatch.setattr("asyncpatch.train.report.time.monotonic", lambda: float(next(clock)))

    def give_up(step):
        raise AssertionError(step)

    loss = jnp.float32(1.0)
    metrics = StepMetrics(loss, loss, loss, jnp.int32(NEVER), {})
    with Reporter(tmp_path, 0, replace(TOY_RUN, steps=8, log_every=2), give_up, Extras()) as reporter:
        for step in range(1, 9):
            if step == 1:
                with reporter.compiling("the train step"):
                    [next(clock) for _ in range(1000)]
            if step == 5:
                with reporter.away():
                    [next(clock) for _ in range(1000)]
            reporter.after(step, metrics, 16)
        reporter.settle()
    said = capsys.readouterr().err
    assert "compiled the train step in 10" in said
    speeds = losses_of(tmp_path, "images_per_second")
    assert set(speeds) == {2, 4, 6, 8}
    assert min(speeds.values()) > 1, "a thousand seconds elsewhere would leave less than 0.04 images/s"
    left = [float(found) for found in re.findall(r"([0-9]+) s left", said)]
    assert left
    assert max(left) < 500
