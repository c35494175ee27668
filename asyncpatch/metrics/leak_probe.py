"""The probe of the leak score: a small network that is asked, from known latents alone, whether anything is hidden.

Of each image there are two encodings, whole and masked. The probe sees windows of latents around a known site; what
the mask hides is blanked in both, so that a window of one kind looks like one of the other but for what the known
latents have taken in of the mask. Both kinds are equally many and one half of the images is held out: who cannot tell
is right half of the time.
"""

import warnings

import numpy as np

from asyncpatch.metrics.base import Estimate
from asyncpatch.metrics.leak import Encode, Images, Regions, distances

RADIUS = 2
"""Of a window, in sites: 5x5."""

WINDOWS = 16
"""Of one image, at most: windows of an image overlap, and its last ones say little that is new."""

HIDDEN = 64
"""Units of the network's single hidden layer."""


def probe_accuracy(
    encode: Encode, images: Images, known: Regions, factor: int, distance: int = 1, seed: int = 0
) -> Estimate:
    """The share of right answers on held-out images, from known sites at this distance to the hidden region.

    Its standard error is over images. Raises `ValueError` if fewer than two images of each half have such a site.
    """
    # Here, as training imports this package and a start would wait a second and a half for it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, known = np.asarray(images), np.asarray(known)
    apart, rng = distances(known, factor), np.random.default_rng(seed)
    whole, masked = (np.asarray(encode(images, region)) for region in (np.ones_like(known), known))
    pairs = []
    for number, far in enumerate(apart):
        places = np.argwhere(far == distance)
        if len(places):
            places = rng.permutation(places)[:WINDOWS]
            pairs.append([_windows(latents[number], far > 0, places) for latents in (whole, masked)])
    half = len(pairs) // 2
    if half < 2:
        raise ValueError(
            f"a probe takes four images or more with a known site {distance} from the hidden region, got {len(pairs)}; "
            "give more images, or another distance"
        )
    probe = make_pipeline(StandardScaler(), MLPClassifier((HIDDEN,), alpha=1e-3, random_state=seed, max_iter=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that has not converged is a probe
        probe.fit(*_examples(pairs[:half]))
    right = [
        np.mean(probe.predict(windows) == kinds) for windows, kinds in (_examples([pair]) for pair in pairs[half:])
    ]
    return Estimate.mean_of(np.array(right))


def _windows(latents: np.ndarray, seen: np.ndarray, places: np.ndarray) -> np.ndarray:
    """One row a place: the latents of its window, 0 where hidden or beyond the border."""
    padded = np.pad(np.where(seen[..., None], latents, 0.0), ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)))
    side = 2 * RADIUS + 1
    return np.stack([padded[row : row + side, col : col + side].ravel() for row, col in places])


def _examples(pairs: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Windows, and 1 for those of masked images."""
    windows = np.concatenate([windows for pair in pairs for windows in pair])
    kinds = np.concatenate([np.full(len(windows), kind) for pair in pairs for kind, windows in enumerate(pair)])
    return windows, kinds
