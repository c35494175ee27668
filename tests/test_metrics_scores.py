"""Scores of images themselves: PSNR and SSIM of hidden pixels, and what a trained classifier says."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from toy_features import DIGITS, LABELS, in_batches

from asyncpatch.masks import Half, Side, Square
from asyncpatch.metrics import (
    Classifier,
    DamagedFileError,
    class_accuracy,
    classifier_score,
    collect_statistics,
    frechet_distance,
    frechet_name,
    load_classifier,
    psnr,
    save_classifier,
    ssim,
    train_classifier,
)
from asyncpatch.metrics.archive import read_archive, write_archive
from asyncpatch.metrics.classifier import KIND

# Quality of hidden pixels

KNOWN = np.asarray(Square()(jr.key(0), 12, 10))


def pair_of_images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.uniform(-1, 1, size=(12, 10, 3)).astype(np.float32)
    restored = (original + 0.2 * rng.normal(size=original.shape)).clip(-1, 1).astype(np.float32)
    return restored, original


def ssim_by_loops(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> float:
    """Wang et al. 2004, pixel by pixel, on images of [0, 1] that are reflected at the border."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(x.shape[2]):
        a, b = (np.pad(image[..., channel].astype(np.float64), 5, mode="symmetric") for image in (x, y))
        for row, col in zip(*np.nonzero(~known), strict=True):
            p, q = (image[row : row + 11, col : col + 11] for image in (a, b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            shared = (window * (p - mean_p) * (q - mean_q)).sum()
            luminance = (2 * mean_p * mean_q + 0.01**2) / (mean_p**2 + mean_q**2 + 0.01**2)
            values.append(luminance * (2 * shared + 0.03**2) / (var_p + var_q + 0.03**2))
    return float(np.mean(values))


def test_psnr_by_hand():
    original = np.zeros((4, 4, 1), np.float32)
    known = np.arange(4)[:, None] + np.zeros((1, 4)) < 2
    # Off by 0.2 of a range of 2, that is by a tenth, in the hidden half: 20 dB.
    assert psnr(original + 0.2, original, known) == pytest.approx(20, abs=1e-5)
    assert psnr(np.where(known[..., None], 1.0, original).astype(np.float32), original, known) == math.inf


def test_psnr_sees_hidden_pixels_alone():
    restored, original = pair_of_images()
    ruined = np.where(KNOWN[..., None], -restored, restored)
    assert psnr(ruined, original, KNOWN) == psnr(jnp.asarray(restored), jnp.asarray(original), jnp.asarray(KNOWN))
    # A wrong twin, which counts copied pixels too.
    copied = np.where(KNOWN[..., None], original, restored)
    everywhere = psnr(copied, original, np.zeros_like(KNOWN))
    assert everywhere > psnr(copied, original, KNOWN) + 3


def test_ssim_equals_naive_loops_on_hidden_pixels():
    restored, original = pair_of_images()
    restored = np.where(KNOWN[..., None], original, restored)
    found = ssim(restored, original, KNOWN)
    assert found == pytest.approx(ssim_by_loops((restored + 1) / 2, (original + 1) / 2, KNOWN), abs=1e-6)
    assert ssim(original, original, KNOWN) == pytest.approx(1)
    # Wrong twins: the grey values not brought to [0, 1], and an average over the whole image.
    assert abs(found - ssim_by_loops(restored, original, KNOWN)) > 1e-3
    assert abs(found - ssim(restored, original, np.zeros_like(KNOWN))) > 1e-3


def test_ssim_takes_images_as_small_as_the_digits():
    known = np.asarray(Half((Side.TOP,))(jr.key(0), 8, 8))
    other = ssim(DIGITS[1], DIGITS[0], known)
    assert other == pytest.approx(ssim_by_loops((DIGITS[1] + 1) / 2, (DIGITS[0] + 1) / 2, known), abs=1e-6)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_bad_images_and_regions(score):
    restored, original = pair_of_images()
    with pytest.raises(ValueError, match="every pixel is known, so there is nothing to score"):
        score(restored, original, np.ones_like(KNOWN))
    with pytest.raises(ValueError, match=r"a known region must have shape \(12, 10\)"):
        score(restored, original, KNOWN.T)
    with pytest.raises(TypeError, match="a known region must be boolean"):
        score(restored, original, KNOWN.astype(np.float32))
    with pytest.raises(ValueError, match=r"image must lie in \[-1, 1\]"):
        score(restored * 2, original, KNOWN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        score(restored * np.nan, original, KNOWN)


# The classifier

TRAINING, HELD_OUT = np.s_[:1400], np.s_[1400:]
STEPS = 300


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train_classifier(DIGITS[TRAINING], LABELS[TRAINING], num_classes=10, seed=0, steps=STEPS)


def test_the_classifier_knows_held_out_digits(classifier):
    accuracy = class_accuracy(classifier, in_batches(DIGITS[HELD_OUT], 128), LABELS[HELD_OUT])
    share = accuracy.value
    assert share > 0.9  # these are of other writers
    assert accuracy.standard_error == pytest.approx(math.sqrt(share * (1 - share) / (len(LABELS) - 1401)))
    shuffled = class_accuracy(classifier, in_batches(DIGITS[HELD_OUT], 128), (LABELS[HELD_OUT] + 1) % 10)
    assert shuffled.value < 0.05


def test_the_classifier_score_is_between_one_and_the_number_of_classes(classifier):
    def score(images):
        return classifier_score(classifier, in_batches(images, 128))

    noise = np.random.default_rng(0).uniform(-1, 1, DIGITS[HELD_OUT].shape).astype(np.float32)
    assert 8 < score(DIGITS[HELD_OUT]) <= 10
    assert score(noise) < 6
    assert score(DIGITS[LABELS == 3]) < 1.5
    untrained = Classifier.create((8, 8, 1), 10, jr.key(0))
    assert classifier_score(untrained, [DIGITS[:128]]) == pytest.approx(1, abs=1e-6)


def test_the_classifier_score_by_the_definition(classifier):
    images = DIGITS[:128]
    probabilities = np.exp(np.asarray(classifier.log_probabilities(jnp.asarray(images)), np.float64))
    divergence = (probabilities * np.log(probabilities / probabilities.mean(axis=0))).sum(axis=1).mean()
    assert classifier_score(classifier, [images[:100], images[100:]]) == pytest.approx(np.exp(divergence), rel=1e-6)


def test_the_classifier_is_a_feature_network(classifier):
    assert frechet_name(classifier) == "FD-classifier"
    assert (classifier.size, classifier.preprocessing) == (128, "none: pixels of 8x8x1 in [-1, 1]")
    reference = collect_statistics(classifier, in_batches(DIGITS[TRAINING], 128))
    real = collect_statistics(classifier, in_batches(DIGITS[HELD_OUT], 128))
    upside_down = collect_statistics(classifier, in_batches(DIGITS[HELD_OUT][:, ::-1], 128))
    assert frechet_distance(upside_down, reference) > 3 * frechet_distance(real, reference)


def test_equal_seeds_train_equal_weights():
    first, second, other = (
        train_classifier(DIGITS[TRAINING], LABELS[TRAINING], num_classes=10, seed=seed, steps=3).hash
        for seed in (0, 0, 1)
    )
    assert first == second != other


def test_a_classifier_comes_back_to_the_bit(classifier, tmp_path):
    path = tmp_path / "judge.npz"
    save_classifier(path, classifier)
    read = load_classifier(path)
    assert (read.hash, read.num_classes, read.image_shape) == (classifier.hash, 10, (8, 8, 1))
    images = jnp.asarray(DIGITS[:128])
    np.testing.assert_array_equal(read.log_probabilities(images), classifier.log_probabilities(images))


def test_changed_classifier_files_are_refused(classifier, tmp_path):
    path = tmp_path / "judge.npz"
    save_classifier(path, classifier)
    description, arrays = read_archive(path, KIND)
    changes = {
        "states hash .* but holds": (description, arrays | {"0": arrays["0"] + np.float32(1e-3)}),
        "weights of other shapes": (description | {"num_classes": 9}, arrays),
        "lacks a part .*'1'": (description, {name: array for name, array in arrays.items() if name != "1"}),
        "lacks a part .*'hash'": ({"image_shape": [8, 8, 1], "num_classes": 10}, arrays),
    }
    for message, (changed_description, changed_arrays) in changes.items():
        write_archive(path, KIND, changed_description, changed_arrays)
        with pytest.raises(DamagedFileError, match=message):
            load_classifier(path)


@pytest.mark.parametrize(("side", "halvings"), [(4, 1), (28, 3), (32, 3)])
def test_images_of_any_size_are_halved_to_few_sites(side, halvings):
    classifier = eqx.filter_eval_shape(Classifier.create, (side, side, 3), 2, jr.key(0))
    assert len(classifier.convolutions) == halvings
    features = eqx.filter_eval_shape(classifier, jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32))
    assert features.shape == (2, 128)


def test_bad_input_of_the_classifier(classifier):
    images, labels = DIGITS[:128], LABELS[:128]
    bad_label = labels.copy()
    bad_label[7] = 10
    cases = {
        "at least 128 images, .* got 100 images, 100 labels": (images[:100], labels[:100], 10),
        "got 128 images, 127 labels": (images, labels[:127], 10),
        "labels must lie in 0 to 9, got 10 at image 7": (images, bad_label, 10),
        "at least 2 classes": (images, np.zeros_like(labels), 1),
        r"images must lie in \[-1, 1\]": (images * 2, labels, 10),
    }
    for message, (bad_images, bad_labels, num_classes) in cases.items():
        with pytest.raises(ValueError, match=message):
            train_classifier(bad_images, bad_labels, num_classes, seed=0)
    with pytest.raises(ValueError, match=r"takes images of \(height, width, channel\) = \(8, 8, 1\), got \(4, 16, 1\)"):
        classifier_score(classifier, [images.reshape(128, 4, 16, 1)])
    with pytest.raises(ValueError, match="no images"):
        classifier_score(classifier, [])
    with pytest.raises(ValueError, match="a label for each, got 128 images, 127 labels"):
        class_accuracy(classifier, [images], labels[:127])
    with pytest.raises(ValueError, match="samples drawn without a label have no accuracy"):
        class_accuracy(classifier, [images], np.full(128, -1))
