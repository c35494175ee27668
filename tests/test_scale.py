"""One device, eight devices and two processes of four: the same numbers, checkpoints that move, weights layer by layer.

The programs are those of `tests/scaled_training.py`, each in processes of its own, as JAX fixes its devices once.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from scaled_training import AT_FIRST, BY_TWO, STEPS, make_denoiser, train_to
from toy_training import arrays_of

from asyncpatch.sharding import MIN_SHARDED_SIZE, weight_spec
from asyncpatch.train import make_mesh

SCRIPT = Path(__file__).with_name("scaled_training.py")
CLOSE = 1e-5
"""The relative difference that the order of sums may make, of every array of the state."""


def start(mode: str, *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), mode, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def end(processes: list[subprocess.Popen]) -> None:
    try:
        for process in processes:
            errors = process.communicate(timeout=280)[1]
            assert process.returncode == 0, errors.decode()[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The state of a run on one device."""
    return arrays_of(train_to(tmp_path_factory.mktemp("one"), STEPS, make_mesh()))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one device began, two processes went on with, and eight devices ended; and what these wrote of it."""
    out, folder = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("moving")
    train_to(folder, AT_FIRST, make_mesh())
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    end([start("processes", out, folder, number, port) for number in range(2)])
    assert (folder / "checkpoints" / str(BY_TWO)).is_dir()
    end([start("devices", out, folder, "fsdp")])
    return out, folder


def far(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float]:
    """The arrays that differ by more than rounding, and by how much."""
    found = {}
    for name, value in first.items():
        size = np.linalg.norm(value.astype(np.float64))
        gap = np.linalg.norm(value.astype(np.float64) - second[name])
        if not gap <= CLOSE * size:
            found[name] = gap / size
    return found


@pytest.mark.timeout(590)
@pytest.mark.parametrize("name", ["fsdp", "moved"])
def test_any_devices_and_processes_give_the_state_of_one_device(one, made, name):
    assert far(one, dict(np.load(made[0] / f"{name}.npz"))) == {}


def test_another_batch_is_not_taken_for_rounding(one, tmp_path):
    other = arrays_of(train_to(tmp_path, STEPS - 1, make_mesh()))
    assert len(far(one, other)) > 10


def test_one_device_takes_over_from_eight(one, made):
    assert far(one, arrays_of(train_to(made[1], STEPS, make_mesh()))) == {}


def test_weights_are_gathered_layer_by_layer_and_activations_stay(made):
    counted = json.loads((made[0] / "counted.json").read_text())
    eight = jax.sharding.AbstractMesh((1, 8), ("data", "fsdp"))
    shapes = eqx.filter_eval_shape(make_denoiser, jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)))
    large = [leaf for leaf in leaves if weight_spec(eight, leaf.shape) != jax.sharding.PartitionSpec()]
    counts = counted["counts"]["fsdp"]
    assert set(counts) <= {"all-gather", "all-reduce", "reduce-scatter"}
    # Once on the way forwards, and at most once again on the way back, where parts of a product may do.
    assert len(large) <= counts["all-gather"] <= 2 * len(large)
    memory = counted["memory"]
    gathered_at_once = sum(leaf.size for leaf in large) * 4
    assert memory["fsdp"] + 0.4 * gathered_at_once < memory["at once"]


def test_muon_brings_no_weight_together_at_once(made):
    """Its products of matrices are those of their parts, with sums over the devices.

    What it holds beyond a step's own is those square products; all weights together would be half as much again.
    """
    counted = json.loads((made[0] / "counted.json").read_text())
    assert counted["counts"]["muon"]["all-gather"] == counted["counts"]["fsdp"]["all-gather"]
    memory = counted["memory"]
    assert memory["muon"] - memory["fsdp"] < 0.7 * (memory["at once"] - memory["fsdp"])


def test_images_of_all_devices_are_those_of_one(made):
    """Five on eight devices, with one plan for all and a plan for each; and the same on all processes."""
    found = np.load(made[0] / "images.npz")
    for axes in ("None", "0"):
        np.testing.assert_allclose(found[f"split-{axes}"], found[f"alone-{axes}"], atol=1e-5)
    assert np.abs(found["split-0"] - found["split-None"]).max() > 1e-3
    ours, theirs = (np.load(made[0] / f"process-{number}.npz")["images"] for number in range(2))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((3, 3, 64, 256), (None, None, None, "fsdp")),
        ((3, 3, 512, 64), (None, None, "fsdp")),
        ((30, 1, 1, 64, 256), ()),  # a layer of thirty, each too small
        ((30, 1, 1, 256, 512), (None, None, None, None, "fsdp")),
        ((1001, 256), (None, "fsdp")),
        ((1001, 255), ()),
        ((MIN_SHARDED_SIZE - 8,), ()),
    ],
)
def test_the_place_of_a_weight_follows_from_its_shape(shape, split):
    mesh = jax.sharding.AbstractMesh((2, 8), ("data", "fsdp"))
    assert tuple(weight_spec(mesh, shape)) == split
