"""Scores of samples from a classifier's class probabilities `p(y|x)`.

*Accuracy*: the share of samples that are taken for the class they were asked to be.

*Classifier score*: `exp E_x KL(p(y|x) || p(y))`, between 1 and the number of classes. It is high when every sample is
clearly of some class and all classes are drawn equally often. The form is the Inception score's (Salimans et al.
2016), the classifier is another, and so is the name. It is blind to samples that all look alike within a class.
"""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Array, Int

from asyncpatch.metrics.base import Estimate
from asyncpatch.metrics.classifier import Classifier
from asyncpatch.metrics.features import Images, map_batches


def class_accuracy(
    classifier: Classifier, batches: Iterable[Images], labels: Int[Array | np.ndarray, " count"]
) -> Estimate:
    """The share of images whose likeliest class is their label, with its binomial error.

    Raises `ValueError` if images and labels differ in number, if there are fewer than 2, or a label is no class.
    """
    chosen = [values.argmax(axis=1) for values in map_batches(classifier.log_probabilities, batches)]
    classes, wanted = np.concatenate([*chosen, np.zeros(0, np.int64)]), np.asarray(labels)
    if len(classes) != len(wanted) or len(wanted) < 2:
        raise ValueError(
            f"give at least 2 images and a label for each, got {len(classes)} images, {len(wanted)} labels"
        )
    if wanted.min() < 0 or wanted.max() >= classifier.num_classes:
        raise ValueError(
            f"labels must lie in 0 to {classifier.num_classes - 1}, got {wanted.min()} to {wanted.max()}; samples "
            "drawn without a label have no accuracy"
        )
    return Estimate.mean_of((classes == wanted).astype(np.float64))


def classifier_score(classifier: Classifier, batches: Iterable[Images]) -> float:
    """The classifier score; memory does not grow with the number of images. Biased low for few images."""
    count, negative_entropy = 0, 0.0
    total = np.zeros(classifier.num_classes)
    for values in map_batches(classifier.log_probabilities, batches):
        log_probabilities = values.astype(np.float64)
        probabilities = np.exp(log_probabilities)
        count += len(values)
        total += probabilities.sum(axis=0)
        negative_entropy += float((probabilities * log_probabilities).sum())
    if not count:
        raise ValueError("no images: the batches are empty; an iterator that was walked once must be made again")
    mean = total / count
    # 0 log 0 is 0: a class so unlikely that its probability underflows adds nothing.
    entropy = -float((mean * np.log(mean, where=mean > 0, out=np.zeros_like(mean))).sum())
    return math.exp(negative_entropy / count + entropy)
