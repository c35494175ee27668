"""Distances between sets of features, against other people's formulas and naive loops."""

import dataclasses
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from toy_features import DIGITS, Projection, features_of, in_batches

from asyncpatch.metrics import (
    Features,
    FeatureStatistics,
    NetworkIdentity,
    NetworkMismatchError,
    PrecisionRecall,
    collect_features,
    collect_statistics,
    frechet_distance,
    frechet_name,
    kernel_distance,
    merge_across_processes,
    precision_and_recall,
    stream_features,
)
from asyncpatch.metrics.features import map_batches

NETWORK = Projection.draw(48)
LENGTH = 128
SHARDS = 7


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Real features: 1797 digits through the toy network."""
    return collect_features(NETWORK, in_batches(DIGITS, LENGTH)).values


def statistics_of(values: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics.of(features_of(values))


# Streaming


def test_features_do_not_depend_on_batches_and_one_shape_is_compiled():
    shapes = []

    def network(images):
        shapes.append(images.shape)
        return NETWORK(images)

    uneven = [DIGITS[:50], DIGITS[50:63], DIGITS[63:64], DIGITS[64:110]]
    values = np.concatenate(list(map_batches(network, uneven)))
    np.testing.assert_array_equal(values, np.concatenate(list(map_batches(network, in_batches(DIGITS[:110], 50)))))
    assert shapes == [(50, 8, 8, 1)]


def peak_memory(collect, batches: int) -> int:
    """The most host memory in use while images are made, passed on and collected."""
    tracemalloc.start()
    collect(NETWORK, (np.full((64, 8, 8, 1), number / batches, np.float32) for number in range(batches)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_statistics_take_memory_that_does_not_grow_with_the_count():
    collect_statistics(NETWORK, [DIGITS[:64]])  # what compiling leaves behind is not counted
    slack = 20_000
    assert peak_memory(collect_statistics, 60) < peak_memory(collect_statistics, 6) + slack
    # A wrong twin, which keeps what it has seen.
    assert peak_memory(collect_features, 60) > peak_memory(collect_features, 6) + slack


@given(seed=st.integers(0, 2**32 - 1))
def test_merged_shards_equal_one_pass(digits, seed):
    rng = np.random.default_rng(seed)
    # A mean that is large against the spread, which costs careless formulas their digits.
    values = digits[:700] + rng.choice([0.0, 1e3])
    shards = np.split(values, np.sort(rng.choice(np.arange(1, 700), SHARDS - 1, replace=False)))
    parts = [statistics_of(shard) for shard in shards]
    rng.shuffle(parts)
    merged = statistics_of(values[:0])
    for part in parts:
        merged = merged.merge(part)
    assert merged.count == 700
    np.testing.assert_allclose(merged.mean, values.mean(axis=0), rtol=1e-9)
    expected = np.cov(values, rowvar=False)
    deviations = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(merged.covariance, expected, rtol=0, atol=1e-9 * np.outer(deviations, deviations).max())
    np.testing.assert_array_equal(merged.covariance, merged.covariance.T)
    # Wrong twins: the scatter between the shards' means forgotten, and sums of raw products.
    forgotten = sum(part.scatter for part in parts) / 699
    assert np.abs(forgotten - expected).max() > 1e-4
    sums = (values - values.mean(axis=0)).astype(np.float32)
    assert np.abs(sums.T @ sums / np.float32(699) - expected).max() > 1e-9


def test_streaming_equals_one_pass(digits):
    streamed = collect_statistics(NETWORK, in_batches(DIGITS, LENGTH))
    np.testing.assert_allclose(streamed.mean, digits.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(digits, rowvar=False), atol=1e-12)
    assert (streamed.count, streamed.network) == (1797, NetworkIdentity.of(NETWORK))


def test_merging_across_one_process_changes_nothing(digits):
    alone = statistics_of(digits)
    merged = merge_across_processes(alone)
    np.testing.assert_array_equal(merged.mean, alone.mean)
    np.testing.assert_array_equal(merged.scatter, alone.scatter)


MERGE_IN_TWO_PROCESSES = """
import sys
import jax, numpy as np
from asyncpatch.metrics import Features, FeatureStatistics, NetworkIdentity, merge_across_processes
process, port, values_file, out = int(sys.argv[1]), *sys.argv[2:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
network = NetworkIdentity("any", "0", "none", 48)
mine = np.load(values_file)[:100] if process == 0 else np.load(values_file)[100:]
merged = merge_across_processes(FeatureStatistics.of(Features(network, mine)))
np.savez(out, count=merged.count, mean=merged.mean, scatter=merged.scatter)
"""


def test_merging_across_two_processes_equals_one_pass(digits, tmp_path):
    np.save(tmp_path / "values.npy", digits + 1e3)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    outputs = [tmp_path / f"{process}.npz" for process in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MERGE_IN_TWO_PROCESSES, str(process), port, tmp_path / "values.npy", output],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for process, output in enumerate(outputs)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ours, theirs = (np.load(output) for output in outputs)
    expected = statistics_of(digits + 1e3)
    for name in ("count", "mean", "scatter"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert int(ours["count"]) == expected.count
    np.testing.assert_allclose(ours["mean"], expected.mean, rtol=1e-12)
    np.testing.assert_allclose(ours["scatter"], expected.scatter, atol=1e-9 * expected.scatter.max())


# Frechet distance


def by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    """The formula of the FID's first implementation, with scipy's root of a matrix that is not symmetric."""
    ours, theirs = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(ours @ theirs).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(ours + theirs - 2 * root))


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """The formula of torch-metrics: complex roots of the eigenvalues of the product."""
    ours, theirs = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(ours @ theirs).astype(complex)).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(ours) + np.trace(theirs) - 2 * roots.sum())


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """Centred images are factors of their own covariance, so that none need be built: exact at any rank."""
    ours, theirs = (values - values.mean(0) for values in (x, y))
    overlap = np.linalg.svd(ours @ theirs.T, compute_uv=False).sum() / np.sqrt((len(x) - 1) * (len(y) - 1))
    traces = (ours**2).sum() / (len(x) - 1) + (theirs**2).sum() / (len(y) - 1)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * overlap)


@pytest.mark.parametrize("formula", [by_matrix_root, by_eigenvalues, by_singular_values])
def test_frechet_distance_equals_other_formulas_on_real_features(digits, formula):
    # The first formula cannot take the root of a singular matrix, which features that are never active would make it.
    active = digits[:, (digits[:300].std(axis=0) > 0.1) & (digits[300:600].std(axis=0) > 0.1)]
    x, y = active[:300], active[300:600]
    assert x.shape[1] > 30
    distance = frechet_distance(statistics_of(x), statistics_of(y))
    assert distance == pytest.approx(formula(x, y), rel=1e-6)
    assert distance == pytest.approx(frechet_distance(statistics_of(y), statistics_of(x)), rel=1e-9)
    # A wrong twin: the covariance that divides by the count.
    biased = x.mean(0) + (x - x.mean(0)) * np.sqrt(299 / 300)
    assert distance != pytest.approx(formula(biased, y), rel=1e-6)


def test_frechet_distance_of_gaussians_in_closed_form():
    ours, theirs = np.linspace(0.1, 2, 6), np.linspace(3, 0, 6)
    gap = np.arange(6.0)
    network = NetworkIdentity("any", "0", "none", 6)
    x = FeatureStatistics(network, 11, np.zeros(6), np.diag(10 * ours))
    y = FeatureStatistics(network, 21, gap, np.diag(20 * theirs))
    expected = (gap**2).sum() + ((np.sqrt(ours) - np.sqrt(theirs)) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", [(2, 2), (20, 30), (20, 300)])
def test_frechet_distance_is_stable_with_fewer_images_than_features(digits, counts):
    x, y = digits[: counts[0]], digits[-counts[1] :]
    distance = frechet_distance(statistics_of(x), statistics_of(y))
    assert isinstance(distance, float)
    assert distance == pytest.approx(by_singular_values(x, y), rel=1e-9)


def test_frechet_distance_of_dependent_features(digits):
    """More images than features, but features that repeat others: the covariance is singular all the same."""
    twice = np.concatenate([digits, digits @ np.random.default_rng(0).normal(size=(48, 48))], axis=1)
    x, y = twice[:300], twice[300:600]
    assert frechet_distance(statistics_of(x), statistics_of(y)) == pytest.approx(by_singular_values(x, y), rel=1e-7)


@pytest.mark.parametrize("count", [2, 20, 900])
def test_frechet_distance_to_itself_is_zero(digits, count):
    x = statistics_of(digits[:count])
    assert 0 <= frechet_distance(x, x) < 1e-9 * np.trace(x.covariance)
    equal = statistics_of(np.ones((count, 48)))
    assert frechet_distance(equal, equal) == 0
    expected = ((x.mean - 1) ** 2).sum() + np.trace(x.covariance)
    assert frechet_distance(x, equal) == pytest.approx(expected, rel=1e-12)


def test_only_inception_is_called_fid():
    assert frechet_name(Projection.draw(4)) == "FD-Projection"
    assert frechet_name(NetworkIdentity("InceptionV3", "0", "none", 4)) == "FD-InceptionV3"
    assert frechet_name(Projection.draw(4, name="InceptionV3-FID")) == "FID"


# Kernel distance


def squared_mmd_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def kernel_matrix(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Of independent images."""
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel_matrix(x, x), kernel_matrix(y, y))]
    return sum(within) - 2 * kernel_matrix(x, y).mean()


def squared_mmd_by_class(x: np.ndarray, y: np.ndarray, classes: np.ndarray, shares: np.ndarray) -> float:
    """Of `x` drawn by class and independent `y`, one mean after another."""
    parts = [x[classes == c] for c in range(len(shares))]
    own = 0.0
    for i, p in enumerate(parts):
        for j, q in enumerate(parts):
            distinct = ~np.eye(len(p), dtype=bool) if i == j else np.full((len(p), len(q)), True)
            own += shares[i] * shares[j] * kernel_matrix(p, q)[distinct].mean()
    mixed = sum(share * kernel_matrix(part, y).mean() for share, part in zip(shares, parts, strict=True))
    others = kernel_matrix(y, y)
    return own + (others.sum() - np.trace(others)) / (len(y) * (len(y) - 1)) - 2 * mixed


def test_kernel_distance_equals_naive_loops(digits, monkeypatch):
    monkeypatch.setattr("asyncpatch.metrics.kernel.ROWS", 5)  # blocks that end within a set
    x, y = digits[:12], digits[12:30]
    assert kernel_distance(features_of(x), features_of(y)).value == pytest.approx(squared_mmd_by_loops(x, y), rel=1e-9)
    classes = np.array([5, 7, 7, 5, 7, 5, 7, 7, 5, 7, 7, 7])
    expected = squared_mmd_by_class(x, y, (classes == 7).astype(int), np.array([4, 8]) / 12)
    found = kernel_distance(features_of(x), features_of(y), classes)
    assert found.value == pytest.approx(expected, rel=1e-9)
    swapped = kernel_distance(features_of(y), features_of(x), reference_classes=classes)
    assert dataclasses.astuple(swapped) == pytest.approx(dataclasses.astuple(found), rel=1e-9)


def test_error_of_the_kernel_distance_is_the_jackknife_with_kept_shares(digits):
    x, y, shares = digits[:11], digits[20:27], np.array([4, 7]) / 11
    classes = (np.arange(11) >= 4).astype(int)
    variance = 0.0
    for c in (0, 1):
        kept = [np.arange(11) != i for i in np.flatnonzero(classes == c)]
        values = [squared_mmd_by_class(x[keep], y, classes[keep], shares) for keep in kept]
        variance += (len(values) - 1) * np.var(values)
    variance += (len(y) - 1) * np.var(
        [squared_mmd_by_class(x, np.delete(y, i, axis=0), classes, shares) for i in range(len(y))]
    )
    found = kernel_distance(features_of(x), features_of(y), classes)
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-9)


CLASSES, POOL, DRAWN, SETS = 10, 30, 200, 200


def features_by_class() -> np.ndarray:
    """Classes that lie well apart; drawing from them again and again has a kernel distance that is known exactly."""
    rng = np.random.default_rng(7)
    return 2 * rng.normal(size=(CLASSES, 1, 12)) + rng.normal(size=(CLASSES, POOL, 12))


def former_kernel_distance(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Wrong twin: ten random blocks, as if images were independent."""
    ours, theirs = (rng.permutation(len(z)).reshape(10, -1) for z in (x, y))
    values = [squared_mmd(x[i], y[j]) for i, j in zip(ours, theirs, strict=True)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(10))


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("order", ["independent", "class in turn", "sorted by class"])
def test_kernel_distance_is_unbiased_and_two_errors_hold_the_truth(order, shift):
    """Nine times in ten: of 200 sets of intervals that hold 95% a false alarm at 0.1%. The mean is within 4 errors:
    1e-4. Features are drawn again and again from a finite number, so that the truth is a sum."""
    pool = features_by_class()
    shifted = (pool + shift).reshape(-1, 12)
    real = pool.reshape(-1, 12)
    truth = kernel_matrix(shifted, shifted).mean() + kernel_matrix(real, real).mean()
    truth -= 2 * kernel_matrix(shifted, real).mean()
    rng, dealing = np.random.default_rng(0), np.random.default_rng(1)
    new, former = [], []
    for _ in range(SETS):
        by_class = order != "independent"
        ours, theirs = np.arange(2 * DRAWN).reshape(2, -1) % CLASSES if by_class else rng.integers(10, size=(2, DRAWN))
        ours = np.sort(ours) if order == "sorted by class" else ours
        x, y = (pool[classes, rng.integers(POOL, size=DRAWN)] for classes in (ours, theirs))
        given = (ours, theirs) if by_class else ()
        new.append(dataclasses.astuple(kernel_distance(features_of(x + shift), features_of(y), *given)))
        former.append(former_kernel_distance(x + shift, y, dealing))
    unbiased, held = zip(*(_coverage(found, truth) for found in (new, former)), strict=True)
    assert unbiased[0]
    assert held[0] >= 0.9
    if by_class:
        assert not unbiased[1]
        assert held[1] < 0.87


def _coverage(estimates: list[tuple[float, float]], truth: float) -> tuple[bool, float]:
    """Whether the mean is the truth, and how often two errors around a value hold it."""
    values, errors = np.array(estimates).T
    unbiased = abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
    return bool(unbiased), float(np.mean(abs(values - truth) <= 2 * errors))


def test_kernel_with_itself_is_not_counted_in():
    """For equal laws the mean is within 4 of its own errors (false alarm 1e-4), and the error at most sqrt 2 too wide,
    within 10%; a wrong twin counts the kernel of an image with itself."""
    sets = np.random.default_rng(0).normal(size=(300, 2, 40, 6))
    estimates = [kernel_distance(features_of(x), features_of(y)) for x, y in sets]
    values = np.array([estimate.value for estimate in estimates])
    bar = np.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    tolerance = 4 * values.std() / np.sqrt(len(sets))
    assert abs(values.mean()) < tolerance
    assert 0.9 < bar / values.std() < 1.1 * np.sqrt(2)
    with_itself = [
        kernel_matrix(x, x).mean() + kernel_matrix(y, y).mean() - 2 * kernel_matrix(x, y).mean() for x, y in sets
    ]
    assert np.mean(with_itself) > tolerance


def test_kernel_distance_keeps_some_rows_in_memory():
    """All pairs at once would be 72 MB for each of three kernels; ours are some rows and their powers."""
    x = features_of(np.random.default_rng(0).normal(size=(3000, 4)))
    tracemalloc.start()
    kernel_distance(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


# Precision and recall


def precision_by_loops(generated: np.ndarray, reference: np.ndarray, neighbours: int) -> float:
    inside = 0
    radii = [sorted(np.linalg.norm(reference - point, axis=1))[neighbours] for point in reference]
    for sample in generated:
        inside += any(np.linalg.norm(sample - point) <= radius for point, radius in zip(reference, radii, strict=True))
    return inside / len(generated)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_precision_and_recall_equal_naive_loops(digits, offset):
    """More images than one block of rows, and a mean that is large against the spread."""
    generated, reference = 0.9 * digits[:280] + offset, digits[300:620] + offset
    found = precision_and_recall(features_of(generated), features_of(reference), neighbours=3)
    precision = precision_by_loops(generated, reference, 3)
    assert found == PrecisionRecall(precision, precision_by_loops(reference, generated, 3))
    # A wrong twin, which takes each image for its own nearest neighbour.
    assert precision_by_loops(generated, reference, 2) != precision


def test_precision_and_recall_say_what_is_wrong(digits):
    real = features_of(digits[:300])
    assert precision_and_recall(real, real) == PrecisionRecall(1.0, 1.0)
    assert precision_and_recall(features_of(digits[:300] + 1e3), real) == PrecisionRecall(0.0, 0.0)
    near_one_image = features_of(digits[0] + 1e-6 * np.random.default_rng(0).normal(size=(300, 48)))
    collapsed = precision_and_recall(near_one_image, real)
    assert collapsed.precision == 1
    assert collapsed.recall < 0.02


# Bad input

OTHERS = {
    "name": ("Other", "0" * 64, "none", 5),
    "hash": ("any", "1" * 64, "none", 5),
    "preprocessing": ("any", "0" * 64, "resized to 299", 5),
    "size": ("any", "0" * 64, "none", 4),
}


@pytest.mark.parametrize("differing", OTHERS)
def test_features_of_two_networks_are_not_compared(differing):
    values = np.random.default_rng(0).normal(size=(8, 5))
    x, y = features_of(values), Features(NetworkIdentity(*OTHERS[differing]), values[:, : OTHERS[differing][-1]])
    message = rf"two different networks cannot be compared: {differing} .* of .* against .*; compute both with one"
    for compare in (
        lambda: frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y)),
        lambda: FeatureStatistics.of(x).merge(FeatureStatistics.of(y)),
        lambda: kernel_distance(x, y),
        lambda: precision_and_recall(x, y),
    ):
        with pytest.raises(NetworkMismatchError, match=message):
            compare()


def test_too_few_images():
    few = features_of(np.random.default_rng(0).normal(size=(3, 5)))
    one = FeatureStatistics.of(features_of(few.values[:1]))
    with pytest.raises(ValueError, match="a covariance needs at least 2 images, got 1"):
        frechet_distance(one, FeatureStatistics.of(few))
    with pytest.raises(ValueError, match="a covariance needs at least 2 images, got 0"):
        frechet_distance(FeatureStatistics.of(few), FeatureStatistics.empty(few.network))
    with pytest.raises(ValueError, match=r"at least 3 images of a class, got 3 generated images, of .* class 1"):
        kernel_distance(few, few, np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"at least 3 images of a class, got 1 images of the reference"):
        kernel_distance(few, features_of(few.values[:1]))
    with pytest.raises(ValueError, match=r"one class per image, got 3 generated images and classes of shape \(2,\)"):
        kernel_distance(few, few, np.array([0, 0]))
    with pytest.raises(ValueError, match="more images than neighbours: got 3 generated images and 3 of"):
        precision_and_recall(few, few)
    with pytest.raises(ValueError, match="no images: the batches are empty"):
        collect_features(NETWORK, [])
    with pytest.raises(ValueError, match="a batch without images"):
        collect_features(NETWORK, [DIGITS[:0]])


def test_bad_images_and_features():
    for bad in (1.5, np.nan, -np.inf):
        images = DIGITS[:2].copy()
        images[1, 2, 3, 0] = bad
        with pytest.raises(ValueError, match=rf"must lie in \[-1, 1\], got {bad} at .* = \(1, 2, 3, 0\) and 1 such"):
            next(stream_features(NETWORK, [images]))
    with pytest.raises(ValueError, match="the features of 1 of 2 images are NaN or infinite, the first at 1"):
        features_of(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match="any has 3 features, got 2 for each image"):
        Features(NetworkIdentity("any", "0", "none", 3), np.zeros((4, 2)))
