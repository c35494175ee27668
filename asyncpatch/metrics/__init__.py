"""Distances and scores of generated images, each beside the identity of the network whose features it rests on.

`collect_statistics` streams images of any number into mean and covariance, `frechet_distance` compares two such
statistics, and `frechet_name` says what the number may be called. `load_reference` refuses statistics of other
images or another network. Feature networks live in `asyncpatch.metrics.networks`.
"""

from asyncpatch.metrics.archive import DamagedFileError
from asyncpatch.metrics.base import (
    INCEPTION_FID,
    AbstractFeatureNetwork,
    Estimate,
    NetworkIdentity,
    NetworkMismatchError,
    frechet_name,
)
from asyncpatch.metrics.classifier import Classifier, load_classifier, save_classifier
from asyncpatch.metrics.classifier_scores import class_accuracy, classifier_score
from asyncpatch.metrics.classifier_training import train_classifier
from asyncpatch.metrics.features import Features, collect_features, stream_features
from asyncpatch.metrics.frechet import frechet_distance
from asyncpatch.metrics.image_quality import psnr, ssim
from asyncpatch.metrics.kernel import kernel_distance
from asyncpatch.metrics.leak import Leak, greyed, leak_score, told, untold
from asyncpatch.metrics.leak_probe import probe_accuracy
from asyncpatch.metrics.precision_recall import PrecisionRecall, precision_and_recall
from asyncpatch.metrics.reference import (
    DataMismatchError,
    Reference,
    hash_images,
    load_reference,
    measure_reference,
    save_reference,
)
from asyncpatch.metrics.statistics import FeatureStatistics, collect_statistics, merge_across_processes

__all__ = [
    "INCEPTION_FID",
    "AbstractFeatureNetwork",
    "Classifier",
    "DamagedFileError",
    "DataMismatchError",
    "Estimate",
    "FeatureStatistics",
    "Features",
    "Leak",
    "NetworkIdentity",
    "NetworkMismatchError",
    "PrecisionRecall",
    "Reference",
    "class_accuracy",
    "classifier_score",
    "collect_features",
    "collect_statistics",
    "frechet_distance",
    "frechet_name",
    "greyed",
    "hash_images",
    "kernel_distance",
    "leak_score",
    "load_classifier",
    "load_reference",
    "measure_reference",
    "merge_across_processes",
    "precision_and_recall",
    "probe_accuracy",
    "psnr",
    "save_classifier",
    "save_reference",
    "ssim",
    "stream_features",
    "told",
    "train_classifier",
    "untold",
]
