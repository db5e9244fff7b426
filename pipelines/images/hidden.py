"""Colour under full transparency: nobody sees it, and a network that looks at neighbours does."""

from __future__ import annotations

from dataclasses import replace

from pipelines.images.image import Image


def fill_hidden(image: Image) -> Image:
    """Give every fully transparent pixel the colour of the nearest pixel that shows.

    A pixel that shows, however little, keeps its colour. So does the alpha channel.

    Returns:
        The image with a note on it; the image itself where nothing is hidden, or where nothing shows.
    """
    if image.alpha is None:
        return image
    hidden = image.alpha[..., 0] == 0
    if not hidden.any() or hidden.all():
        return image
    from scipy.ndimage import distance_transform_edt  # takes a while to import

    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    note = "colour under full transparency replaced by the nearest that shows"
    return replace(image, pixels=image.pixels[rows, columns], note="; ".join(filter(None, (image.note, note))))
