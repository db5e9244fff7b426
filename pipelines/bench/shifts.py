"""The changes of light and camera that the benchmark of drift applies, each of one strength."""

from __future__ import annotations

from pipelines.data.image_changes import (
    Change,
    add_noise,
    blur,
    cast_colour,
    expose,
    move,
    save_as_jpeg,
    turn,
)

SHIFTS: dict[str, Change] = {
    "none": lambda pixels, _: pixels,
    "exposure x0.8": lambda pixels, _: expose(pixels, factor=0.8),
    "exposure x1.25": lambda pixels, _: expose(pixels, factor=1.25),
    "blur 1": lambda pixels, _: blur(pixels, sigma=1.0),
    "blur 2": lambda pixels, _: blur(pixels, sigma=2.0),
    "noise 5": lambda pixels, generator: add_noise(pixels, generator, levels=5.0),
    "jpeg 60": lambda pixels, _: save_as_jpeg(pixels, quality=60),
    "shift 2 %": lambda pixels, _: move(pixels, down=0.02, across=0.02),
    "turn 1": lambda pixels, _: turn(pixels, degrees=1.0),
    "colour cast": lambda pixels, _: cast_colour(pixels, red=1.1, blue=0.9),
}
OF_COLOUR = ("colour cast",)
