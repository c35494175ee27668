"""PSNR and SSIM of a filled-in image, on the pixels that were hidden and on no others.

Known pixels are copied, so that counting them would reward small holes. Both scores are taken on the scale [0, 1]
(SSIM changes when grey values are shifted, so [-1, 1] would give another number).

Invariant: neither score depends on the known pixels of `restored` further than SSIM's window reaches from a
hidden one; PSNR does not depend on known pixels at all.
"""

import math

import numpy as np
from jaxtyping import Array, Float, Float64

from asyncpatch.data import check_image
from asyncpatch.masks import check_known
from asyncpatch.shapes import Known

AnyImage = Float[Array | np.ndarray, "height width channel"]


def psnr(restored: AnyImage, original: AnyImage, known: Known | np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels over hidden pixels; infinite if they are restored to the bit."""
    restored, original, hidden = _checked(restored, original, known)
    squared_error = float(((restored - original)[hidden] ** 2).mean())
    return -10 * math.log10(squared_error) if squared_error else math.inf


def ssim(restored: AnyImage, original: AnyImage, known: Known | np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), its map averaged over hidden pixels and channels.

    The window is theirs, a Gaussian of deviation 1.5 pixels on 11x11; beyond the border the image is reflected.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError("SSIM needs scikit-image: pip install 'asyncpatch[metrics]'") from error
    restored, original, hidden = _checked(restored, original, known)
    _, similarity = structural_similarity(
        restored,
        original,
        data_range=1.0,
        channel_axis=-1,
        full=True,
        gaussian_weights=True,
        use_sample_covariance=False,
        # With Gaussian weights this does not set the window, only how much border scikit-image leaves out of its own
        # mean, which is not used here; its default would refuse images under 11 pixels.
        win_size=1,
    )
    return float(similarity[hidden].mean())


def _checked(
    restored: AnyImage, original: AnyImage, known: Known | np.ndarray
) -> tuple[Float64[np.ndarray, "height width channel"], Float64[np.ndarray, "height width channel"], np.ndarray]:
    """Both images on the scale [0, 1], and True where a pixel was hidden."""
    height, width, channels = original.shape
    check_image(original, (height, width, channels))
    check_image(restored, (height, width, channels))
    hidden = ~np.asarray(check_known(known, height, width))
    if not hidden.any():
        raise ValueError("every pixel is known, so there is nothing to score; known is True where a token is observed")
    restored, original = ((np.asarray(image, np.float64) + 1) / 2 for image in (restored, original))
    return restored, original, hidden
