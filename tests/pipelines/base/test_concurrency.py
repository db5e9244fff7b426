"""Stages: results in order, a bound on what is under way, and an end at any moment."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.base.concurrency import AHEAD, Clock, in_order
from pipelines.images import Decoded, Failed, ImageFile
from pipelines.models.inputs import batches


def test_results_come_in_the_order_of_the_items() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number**2

    assert list(in_order(work, range(20), workers=4)) == [number**2 for number in range(20)]


def test_stages_work_at_the_same_time() -> None:
    """Each waits for another to have begun: one after the other, they would wait for ever."""
    both = threading.Barrier(2, timeout=20)

    def first(number: int) -> int:
        if number == 1:
            both.wait()
        return number

    def second(number: int) -> int:
        if number == 0:
            both.wait()
        return number

    assert list(in_order(second, in_order(first, range(2), workers=1), workers=1)) == [0, 1]


def test_little_is_taken_ahead() -> None:
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), workers=3)
    for number in range(5):
        assert next(results) == number
    assert len(taken) <= 5 + AHEAD * 3
    results.close()


def test_what_is_heavy_is_alone() -> None:
    now, most = [], []
    lock = threading.Lock()

    def work(pixels: int) -> int:
        with lock:
            now.append(pixels)
            most.append(sum(now))
        time.sleep(0.005)
        with lock:
            now.remove(pixels)
        return pixels

    weights = [1, 2, 50, 3, 1, 1, 60, 4, 4, 4, 4]
    found = list(in_order(work, weights, workers=4, weight=float, limit=10))
    assert found == weights
    assert all(together <= 10 or together in {50, 60} for together in most)


def test_an_error_ends_it_and_closes_the_stage_before() -> None:
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    def work(number: int) -> int:
        if number == 3:
            raise OSError("the disk is full")
        return number

    results = in_order(work, items(), workers=2)
    with pytest.raises(OSError, match="disk is full"):
        list(results)
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kintsugi-work")]


def test_times_of_threads_add_up() -> None:
    clock = Clock("decode", "run")
    list(in_order(lambda _: clock.add("run", 0.5), range(8), workers=4))
    with clock.timed("decode"):
        pass
    assert clock.seconds["run"] == 4
    assert clock.slowest == "run"


def test_batches_close_what_they_are_made_of() -> None:
    """Threads that wait for room in memory would wait for ever."""
    closed = threading.Event()

    def images():
        try:
            while True:
                yield Failed(ImageFile(Path("a.png"), "a.png", 1, 1), "is broken", None)
        finally:
            closed.set()

    parts = batches(source := images(), lambda: 2)
    next(parts)
    parts.close()
    assert closed.is_set()
    assert source.gi_frame is None


def test_images_of_many_sizes_do_not_wait_for_others_of_their_size_beyond_a_limit() -> None:
    """Each of 200 sizes is there twice, 20 MB in all, and 32 of a size make a batch."""
    held = most = 0

    def gone(size: int) -> None:
        nonlocal held
        held -= size

    def images() -> Iterator[Decoded]:
        nonlocal held, most
        for number in range(400):
            pixels = np.zeros((100, 400 + number % 200, 1), np.uint8)
            weakref.finalize(pixels, gone, pixels.nbytes)
            held += pixels.nbytes
            most = max(most, held)
            name = f"{number}.png"
            yield Decoded(ImageFile(Path(name), name, 1, 1), pixels, 400, 100, 8, "", None)
            del pixels

    seen = []
    for batch in batches(images(), lambda: 32, limit=1_000_000):
        assert not isinstance(batch, Failed)
        assert len({image.pixels.shape for image in batch}) == 1
        seen += [image.file.relative for image in batch]
        del batch
    assert sorted(seen) == sorted(f"{number}.png" for number in range(400))
    assert most < 1_200_000


def test_a_batch_of_large_images_is_a_small_one() -> None:
    def images() -> Iterator[Decoded]:
        for number in range(9):
            name = f"{number}.png"
            pixels = np.zeros((500, 800, 1), np.uint8)
            yield Decoded(ImageFile(Path(name), name, 1, 1), pixels, 800, 500, 8, "", None)

    found = [len(batch) for batch in batches(images(), lambda: 32, limit=1_000_000) if not isinstance(batch, Failed)]
    assert found == [3, 3, 3]
