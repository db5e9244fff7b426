from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

import pipelines.images.parallel_decoding as module
from pipelines.images import Decoded, Failed, Image, ImageFile, decode, find_images

EIGHT = np.dtype(np.uint8)


def run(files: list[ImageFile], **options: object) -> list[Decoded | Failed]:
    return list(decode(files, **{"channels": 3, "dtype": EIGHT, "workers": 2, "max_pixels": 10**6, **options}))


def files_of(folder: Path, count: int, size: tuple[int, int] = (4, 3)) -> list[ImageFile]:
    for number in range(count):
        PIL.Image.new("L", size, number % 256).save(folder / f"{number:03}.png")
    return find_images(folder)


class Watch:
    """Stands in for the decoder: counts what is held, and lets the test hold it up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lock = threading.Lock()
        self.begun: list[Path] = []
        self.running = 0
        self.most_running = 0
        self.free: Path | None = None  # never held up
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Semaphore(0)
        read_bytes = module.read_bytes

        def watched(path: Path, *, max_pixels: int) -> tuple[bytes, str]:
            with self.lock:
                self.begun.append(path)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            self.arrived.release()
            assert path == self.free or self.hold.wait(60)
            with self.lock:
                self.running -= 1
            return read_bytes(path, max_pixels=max_pixels)

        monkeypatch.setattr(module, "read_bytes", watched)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def test_results_come_in_the_order_of_the_files(tmp_path):
    # The first is the slowest by far.
    PIL.Image.effect_noise((1500, 1500), 90).save(tmp_path / "000.png")
    files = files_of(tmp_path, 40)[::-1]
    files = [files[-1], *files[:-1]]
    results = run(files, workers=4, max_pixels=10**7)
    assert [result.file for result in results] == files


def test_a_result_says_what_the_report_needs(tmp_path, noise16):
    import imagecodecs

    path = tmp_path / "a.png"
    stored = np.concatenate([noise16, noise16[..., :1]], axis=2)
    path.write_bytes(imagecodecs.png_encode(stored))
    (result,) = run(find_images(tmp_path), channels=1)
    assert isinstance(result, Decoded)
    assert (result.width, result.height, result.bit_depth) == (29, 23, 16)
    assert (result.pixels.shape, result.pixels.dtype) == ((23, 29, 1), EIGHT)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.note == "16-bit file scaled to 8 bits; transparency ignored"


def test_opaque_alpha_is_not_worth_a_note(tmp_path, picture):
    picture.convert("RGBA").save(tmp_path / "a.png")
    (result,) = run(find_images(tmp_path))
    assert result.note is None


def test_files_that_fail_take_their_place_among_the_others(tmp_path, encode, picture):
    whole = encode(picture, "PNG")
    (tmp_path / "1.png").write_bytes(whole)
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").write_bytes(b"some text")
    (tmp_path / "4.png").write_bytes(whole)
    (tmp_path / "5.png").write_bytes(whole)
    files = find_images(tmp_path)
    (tmp_path / "4.png").unlink()  # between listing and reading
    first, cut, text, gone, last = run(files)
    assert isinstance(first, Decoded)
    assert isinstance(last, Decoded)
    assert cut.reason.startswith("is truncated")
    assert cut.sha256 == hashlib.sha256(whole[: len(whole) // 2]).hexdigest()
    assert text.reason.startswith("is a text file")
    assert (gone.reason, gone.sha256) == ("is gone since it was listed", None)


def test_a_bug_in_the_conversion_fails_the_file_and_not_the_run(tmp_path, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "to_model_input", fail)
    results = run(files_of(tmp_path, 9))
    assert [result.reason for result in results] == ["cannot be decoded: MemoryError"] * 9


def test_no_files_no_results():
    assert run([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"channels": 4}, "channels is 4"),
        ({"dtype": np.dtype("f4")}, "dtype is float"),
    ],
)
def test_impossible_options_are_refused_at_the_call(options, message):
    with pytest.raises(ValueError, match=message):
        decode([], **{"channels": 3, "dtype": EIGHT, "workers": 2, "max_pixels": 10**6, **options})


@pytest.mark.parametrize("workers", [1, 3])
def test_the_look_ahead_is_bounded(tmp_path, watch, workers):
    files = files_of(tmp_path, 40)
    ahead = module.FILES_AHEAD * workers
    results = decode(files, channels=3, dtype=EIGHT, workers=workers, max_pixels=10**6)
    for taken, _ in enumerate(results, start=1):
        assert len(watch.begun) <= taken + ahead
    assert len(watch.begun) == 40
    assert watch.most_running <= workers


def test_workers_go_ahead_while_the_caller_is_busy(tmp_path, watch):
    results = decode(files_of(tmp_path, 40), channels=3, dtype=EIGHT, workers=2, max_pixels=10**6)
    next(results)
    for _ in range(1 + 2 * module.FILES_AHEAD):
        assert watch.arrived.acquire(timeout=60)  # without another call of next
    results.close()


class Admissions:
    """Counts the pixels of images that were let through and not yet taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.admitted: list[int] = []
        self.waiting = threading.Semaphore(0)
        self.passed = threading.Semaphore(0)
        decode_bytes = module.decode_bytes

        def watched(data: bytes, sha256: str, *, max_pixels: int, admit) -> Image:
            def admit_and_tell(pixels: int) -> None:
                self.waiting.release()
                admit(pixels)
                self.admitted.append(pixels)
                self.passed.release()

            return decode_bytes(data, sha256, max_pixels=max_pixels, admit=admit_and_tell)

        monkeypatch.setattr(module, "decode_bytes", watched)


def test_large_images_wait_for_room(tmp_path, monkeypatch):
    # Each image takes 70 % of the room: beside the one that the caller waits for, at most one other is let through.
    monkeypatch.setattr(module, "PIXELS_AHEAD", 250)
    admissions = Admissions(monkeypatch)
    files = files_of(tmp_path, 12, size=(20, 35))  # 700 pixels of 4 * 250
    results = decode(files, channels=3, dtype=EIGHT, workers=4, max_pixels=10**6)
    for taken, _ in enumerate(results, start=1):
        assert len(admissions.admitted) <= taken + 1
    assert len(admissions.admitted) == 12


def test_an_image_that_asks_for_less_room_later_keeps_what_it_has(tmp_path, monkeypatch):
    """A tiled file asks for its size, and then for that of a tile: all of it is decoded."""
    monkeypatch.setattr(module, "PIXELS_AHEAD", 1463)  # 4096 pixels are 70 % of four times as many
    admissions = Admissions(monkeypatch)
    for number in range(12):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.full((64, 64), number, np.uint8), tile=(16, 16))
    results = decode(find_images(tmp_path), channels=3, dtype=EIGHT, workers=4, max_pixels=10**6)
    for taken, _ in enumerate(results, start=1):
        assert admissions.admitted.count(64 * 64) <= taken + 1
    assert set(admissions.admitted) == {64 * 64, 16 * 16}


def test_room_that_is_held_is_not_waited_for_again():
    """Two images hold more than the limit; one of them asks for a tile, which it has room for already."""
    budget = module._PixelBudget(100)
    budget.wait(1, 70)
    budget.wait(0, 70)  # its turn
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(budget.wait, 1, 10)
        try:
            again.result(timeout=10)
        finally:
            budget.close()


def test_an_image_larger_than_all_the_room_is_decoded_in_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_AHEAD", 1)
    files = files_of(tmp_path, 8, size=(20, 35))
    assert all(isinstance(result, Decoded) for result in run(files, workers=3))


def test_an_image_that_fails_gives_its_room_back_at_once(tmp_path, monkeypatch, encode, picture):
    monkeypatch.setattr(module, "PIXELS_AHEAD", 700)  # room for one picture of 667
    admissions = Admissions(monkeypatch)
    whole = encode(picture, "PNG")
    PIL.Image.new("L", (1, 1)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(whole[:-20])
    (tmp_path / "3.png").write_bytes(whole)
    results = decode(find_images(tmp_path), channels=3, dtype=EIGHT, workers=1, max_pixels=10**6)
    next(results)
    for _ in range(3):  # the third is let through although nobody has taken the second
        assert admissions.passed.acquire(timeout=60)
    assert [isinstance(result, Decoded) for result in results] == [False, True]


def test_closing_cancels_the_rest_and_ends_the_threads(tmp_path, watch, monkeypatch):
    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            watch.hold.set()  # the two under way go on only now
            super().shutdown(wait=wait)

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    before = set(threading.enumerate())
    files = files_of(tmp_path, 200)
    watch.free = files[0].path
    watch.hold.clear()
    results = decode(files, channels=3, dtype=EIGHT, workers=2, max_pixels=10**6)
    next(results)
    for _ in range(3):
        assert watch.arrived.acquire(timeout=60)
    results.close()
    assert len(watch.begun) == 3  # one taken, two under way, and two more had been waiting for a thread
    assert set(threading.enumerate()) <= before


def test_closing_wakes_those_who_wait_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_AHEAD", 1)
    admissions = Admissions(monkeypatch)
    before = set(threading.enumerate())
    results = decode(files_of(tmp_path, 20), channels=3, dtype=EIGHT, workers=2, max_pixels=10**6)
    next(results)
    for _ in range(3):  # the one taken, and one for each worker, of which at least one has to wait
        assert admissions.waiting.acquire(timeout=60)
    results.close()
    assert set(threading.enumerate()) <= before


def test_an_error_of_the_caller_ends_the_threads(tmp_path):
    before = set(threading.enumerate())
    files = files_of(tmp_path, 50)

    def fail_after_one() -> None:
        for _ in decode(files, channels=3, dtype=EIGHT, workers=2, max_pixels=10**6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_one()
    assert set(threading.enumerate()) <= before
