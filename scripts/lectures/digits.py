"""Handwritten digits as a folder of PNG files: MNIST's where there is one, scikit-learn's of 8 x 8 pixels elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from lectures.style import Setting
from lectures.training import Trained, job_of, trained, write_grey

STEPS = {True: 4400, False: 1500}  # ten passes over MNIST; more over fewer images


def small_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """1,797 digits (N, 8, 8) in [0, 1], and which digit each is."""
    found = load_digits()
    return found.images / 16, found.target


def digit_folder(setting: Setting) -> Path:
    """The PNG files, written where there are none."""
    if setting.mnist is not None:
        return setting.mnist
    folder = setting.work / "digits"
    if not folder.is_dir():
        for number, (picture, digit) in enumerate(zip(*small_digits(), strict=True)):
            write_grey(folder / str(digit) / f"{number:04}.png", np.round(255 * picture).astype(np.uint8))
    return folder


def small(setting: Setting) -> Setting:
    """The same, with the small digits: for what needs no larger ones."""
    return Setting(setting.folder, setting.work)


def model_of_digits(setting: Setting, latents: int, steps: int | None = None, **model: Any) -> Trained:  # noqa: ANN401
    """A network with one vector of latents, trained on the digits."""
    large = setting.mnist is not None
    side = 28 if large else 8
    options = {"size": [side, side], "latent_channels": latents, "stages": 2, "width": 16, **model}
    train = {"steps": steps or STEPS[large], "batch": 128 if large else 64, "learning_rate": 2e-3}
    return trained(job_of(digit_folder(setting), options, train, 0.02 if large else 0.1), setting.work)


def digit_of(names: list[str]) -> NDArray[np.int64]:
    """Which digit each file shows, by its folder."""
    return np.array([int(Path(name).parts[0]) for name in names])
