"""What there was before networks: the rows that a model which mends is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from pipelines.base.software import DISTRIBUTION
from pipelines.errors import DataError

Floats = NDArray[np.float32]
Method = Callable[[Floats, float], Floats]  # a damaged image (h, w, C) in [0, 1] or beyond, and the strength
LEVELS = 255.0


def total_variation(c: Floats, sigma: float) -> Floats:
    """Chambolle 2004, "An algorithm for total variation minimization"; the weight was chosen on training images."""
    from skimage.restoration import denoise_tv_chambolle

    found: Floats = denoise_tv_chambolle(c, weight=0.8 * sigma / LEVELS, channel_axis=2)
    return found


def non_local_means(c: Floats, sigma: float) -> Floats:
    """Buades, Coll, Morel 2005, "A non-local algorithm for image denoising", as scikit-image's example sets it."""
    from skimage.restoration import denoise_nl_means

    found: Floats = denoise_nl_means(
        c, h=0.6 * sigma / LEVELS, sigma=sigma / LEVELS, fast_mode=True, patch_size=5, patch_distance=6, channel_axis=2
    )
    return found


def wavelets(c: Floats, sigma: float) -> Floats:
    """Chang, Yu, Vetterli 2000, "Adaptive wavelet thresholding for image denoising and compression" (BayesShrink)."""
    from skimage.restoration import denoise_wavelet

    del sigma  # luma and colour have noise of their own strengths: it is estimated for each
    found: Floats = denoise_wavelet(c, mode="soft", method="BayesShrink", convert2ycbcr=c.shape[2] == 3, channel_axis=2)
    return found


def bm3d(c: Floats, sigma: float) -> Floats:
    """Dabov et al. 2007, "Image denoising by sparse 3-D transform-domain collaborative filtering", by its authors."""
    package = import_module("bm3d")  # under a licence for non-commercial use: whoever wants it installs it
    run = package.bm3d_rgb if c.shape[2] == 3 else package.bm3d
    found: Floats = np.asarray(run(c.astype(np.float64), sigma_psd=sigma / LEVELS), np.float32).reshape(c.shape)
    return found


# By task: names, methods, and the package that each needs beside what is always there.
METHODS: Mapping[str, Mapping[str, tuple[Method, str | None]]] = {
    "denoise": {
        "tv": (total_variation, None),
        "nlm": (non_local_means, None),
        "wavelet": (wavelets, "pywt"),
        "bm3d": (bm3d, "bm3d"),
    },
}


def choose_classical(task: str, names: tuple[str, ...]) -> dict[str, Method]:
    """Methods by name; "all" is every one that is installed.

    Raises:
        DataError: The task knows no such method, or its package is missing.
    """
    known = METHODS.get(task, {})
    if names == ("all",):
        return {name: method for name, (method, package) in known.items() if _is_there(package)}
    chosen = {}
    for name in names:
        if name not in known:
            there = f"there are: all, {', '.join(known)}" if known else "there are none"
            raise DataError(f"there is no classical method '{name}' for {task}; {there}")
        method, package = known[name]
        if not _is_there(package):
            raise DataError(f"'{name}' needs {package}, which is not installed: pip install '{DISTRIBUTION}[bench]'")
        chosen[name] = method
    return chosen


def _is_there(package: str | None) -> bool:
    return package is None or find_spec(package) is not None
