"""How close a restored image is to the clean one: PSNR and SSIM, by scikit-image; of label images Dice and IoU."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.images.samples import Samples

_WINDOW = 11  # pixels: of the Gaussian of SSIM, as Wang et al. 2004 have it
_MARGIN = _WINDOW // 2
_BAND = 512  # rows that are compared at a time: an image of a hundred megapixels fits beside its copy
_HIGHEST = 100.0  # dB, for images that are equal
# Rec. 601 luma between 16 and 235, as the papers on super-resolution have it from Matlab's rgb2ycbcr.
_LUMA, _BLACK = np.array([65.481, 128.553, 24.966]), 16.0


def compare(restored: Samples, clean: Samples, *, luma: bool = False, border: int = 0) -> dict[str, float | None]:
    """PSNR and SSIM of two images of one size.

    Args:
        restored: (H, W, C), uint8 or uint16.
        clean: As well; each as shares of its own range, and both as grey where their channels differ.
        luma: Compare the luma alone, at 8 bits and not rounded.
        border: Pixels along every side that are left out.

    Returns:
        `psnr` in dB, at most 100, and `ssim`; both None where the sizes differ, SSIM also where the image is smaller
        than its window.
    """
    height, width = clean.shape[:2]
    if restored.shape[:2] != clean.shape[:2] or min(height, width) <= 2 * border:
        return {"psnr": None, "ssim": None}
    inside = slice(border, height - border), slice(border, width - border)
    restored, clean = restored[inside], clean[inside]
    height, width = clean.shape[:2]
    has_ssim = min(height, width) >= _WINDOW
    error = similarity = values = places = 0.0
    for top, stop in _bands(height):
        # Each band with the rows that the windows at its edges see: the sums are those of the whole image.
        above = min(top, _MARGIN)
        rows = slice(top - above, min(stop + _MARGIN, height))
        pair = _make_comparable(restored[rows], clean[rows], luma=luma)
        own = slice(above, above + stop - top)
        error += float(np.square(pair[0][own] - pair[1][own]).sum())
        values += pair[1][own].size
        if has_ssim:
            found = _ssim_map(*pair)
            full = slice(max(top, _MARGIN) - rows.start, min(stop, height - _MARGIN) - rows.start)
            windows = found[full, _MARGIN : width - _MARGIN]  # those that lie within the image
            similarity += float(windows.sum())
            places += windows.size
    return {"psnr": _decibels(error / values), "ssim": similarity / places if has_ssim else None}


def enlarge(image: Samples, scale: int) -> Samples:
    """Enlarge by bicubic interpolation (a = -0.5), as the papers do: what a restorer that enlarges is compared with."""
    if scale == 1:
        return image
    from PIL import Image

    size, largest = (image.shape[1] * scale, image.shape[0] * scale), np.iinfo(image.dtype).max
    planes = [
        np.asarray(Image.fromarray(image[..., channel].astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for channel in range(image.shape[2])
    ]
    larger: Samples = np.rint(np.stack(planes, axis=2).clip(0, largest)).astype(image.dtype)
    return larger


def _bands(height: int) -> Iterator[tuple[int, int]]:
    """Rows from and to; the last band takes what would be lower than a window."""
    top = 0
    while top < height:
        stop = height if height - top < _BAND + _WINDOW else top + _BAND
        yield top, stop
        top = stop


def _make_comparable(
    restored: Samples, clean: Samples, *, luma: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as shares of their ranges, in the same channels."""
    pair = [_unit(each) for each in (restored, clean)]
    if luma:
        pair = [_luma(each) for each in pair]
    elif pair[0].shape[2] != pair[1].shape[2]:
        pair = [each.mean(axis=2, keepdims=True) for each in pair]
    return pair[0], pair[1]


def compare_labels(labels: NDArray[np.uint8], true: NDArray[np.uint8], classes: int) -> dict[str, float]:
    """Dice coefficient and intersection over union of two label images of one size.

    Args:
        labels: (H, W), values below `classes`.
        true: As well.
        classes: Background included.

    Returns:
        `dice` and `iou`: means over the classes beyond the background that are in either image; 1 where none is.
    """
    counts = np.bincount(labels.ravel().astype(np.intp) * classes + true.ravel(), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    both, either = np.diag(counts)[1:], (counts.sum(axis=0) + counts.sum(axis=1))[1:]
    there = either > 0
    if not there.any():
        return {"dice": 1.0, "iou": 1.0}
    both, either = both[there], either[there]
    return {"dice": float((2 * both / either).mean()), "iou": float((both / (either - both)).mean())}


def _decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of values in [0, 1]."""
    return _HIGHEST if error <= 10 ** (-_HIGHEST / 10) else -10 * math.log10(error)


def _ssim_map(restored: NDArray[np.float64], clean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Structural similarity at each place and channel of values in [0, 1], (H, W, C).

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural
    similarity": a Gaussian window of 11 pixels and standard deviation 1.5, population covariances.
    """
    from skimage.metrics import structural_similarity

    found: NDArray[np.float64] = structural_similarity(
        restored, clean, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )[1]  # fmt: skip
    return found


def _unit(image: Samples) -> NDArray[np.float64]:
    return image.astype(np.float64) / np.iinfo(image.dtype).max


def _luma(image: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = _LUMA if image.shape[2] == 3 else np.array([_LUMA.sum()])
    found: NDArray[np.float64] = (image @ weights + _BLACK)[..., None] / 255
    return found
