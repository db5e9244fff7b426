"""Image-to-image networks: the models that ship, on photographs that come with scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from lectures.style import Setting, panels, save, show
from pipelines.models.session import AnyRestoring, open_restoring_session
from pipelines.registry.resolve import find_model
from vaecore.damage.degradations import gaussian_noise, smaller

Picture = NDArray[Any]


def mended(session: AnyRestoring, given: Picture) -> tuple[Picture, Picture]:
    """What a model makes of a picture (H, W, C) in [0, 1], and its error bars."""
    restored, scale = session.run(given[None].astype(np.float32))
    return restored[0].clip(0, 1), scale[0].mean(axis=-1)


def torch_of(picture: Picture) -> torch.Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]


def draw(setting: Setting) -> None:
    """Noise, few pixels and no colours: given, mended, error bars, truth."""
    cat, cup = data.chelsea()[60:188, 130:258] / 255, data.coffee()[60:188, 330:458] / 255
    rocket = data.rocket()[20:404:3, 120:504:3] / 255
    noisy = gaussian_noise(torch_of(cat), torch.tensor([50.0]), torch.Generator().manual_seed(0))
    small = smaller(torch_of(cup), 4)
    grey = rocket @ np.array([0.2126, 0.7152, 0.0722])
    rows = (
        ("denoise", "noise of 50 levels", noisy[0].permute(1, 2, 0).numpy(), cat),
        ("super_resolution_x4", "a 16th of the pixels", small[0].permute(1, 2, 0).numpy(), cup),
        ("colorize", "no colours", grey[:, :, None], rocket),
    )
    figure, _ = panels(1, width=5.5, height=4.3)
    figure.clear()
    axes = figure.subplots(3, 4)
    titles = ("given", "mended", "error bar", "truth")
    for number, (model, words, given, truth) in enumerate(rows):
        restored, scale = mended(open_restoring_session(find_model(f"builtin:{model}"), device="cpu", threads=1), given)
        line = axes[number]
        found = (given.squeeze().clip(0, 1), restored, scale / scale.max(), truth)
        for one, picture, title in zip(line, found, titles, strict=True):
            show(one, picture, "" if number else title)
        line[0].set_ylabel(words)
    save(figure, setting, "image_to_image")
