"""The page in a real browser, by keyboard alone, with a server that is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from pipelines.images import ImageFile
from pipelines.review.answers import Answer, Answers
from pipelines.review.description import Description
from pipelines.review.run import ReviewedRun
from pipelines.review.server import Desk, make_app
from pipelines.review.similar import SimilarImages

pytestmark = pytest.mark.browser


class Server:
    """`kintsugi review` as a process of its own."""

    def __init__(self, out: Path, home: Path) -> None:
        self.home, self.out = home, out
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "flows.cli", "review", str(self.out), "--no-browser"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"KINTSUGI_HOME": str(self.home)}
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode

    @property
    def answers(self) -> list[str]:
        return [answer.verdict for answer in Answers(self.home / "answers.sqlite3").every()]


@pytest.fixture
def server(make_run, tmp_path: Path) -> Iterator[Server]:
    running = Server(make_run(tmp_path, count=60), tmp_path / "home")
    yield running
    if running.process.poll() is None:
        running.stop(signal.SIGKILL)


def open_page(browser, address: str):
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(address)
    page.locator("#caption").filter(has_text="score").wait_for()
    return page


def press(page, *keys: str) -> None:
    """Answer one image, and see the next."""
    before = page.locator("#caption").inner_text()
    for key in keys:
        page.keyboard.press(key)
    page.locator("#caption").filter(has_not_text=before).filter(has_text="score").wait_for(state="attached")


def test_a_box_around_a_defect_is_kept_as_shares_of_the_image(server: Server, browser) -> None:
    page = open_page(browser, server.address)
    page.keyboard.press("d")
    page.locator("#name:focus").wait_for()
    frame = page.locator("#picture").bounding_box()
    scale = min(frame["width"] / 40, frame["height"] / 30)  # images are 40 x 30 pixels
    left, top = frame["x"] + (frame["width"] - 40 * scale) / 2, frame["y"] + (frame["height"] - 30 * scale) / 2
    page.mouse.move(left + 10 * scale, top + 6 * scale)
    page.mouse.down()
    page.mouse.move(left + 30 * scale, top + 15 * scale, steps=3)
    page.mouse.up()
    page.locator("#name:focus").wait_for()
    press(page, *"dent", "Enter")
    page.get_by_text("1 of 60 images answered").wait_for()
    (answer,) = Answers(server.home / "answers.sqlite3").every()
    assert answer.place == pytest.approx((0.25, 0.2, 0.5, 0.3), abs=0.01)


def test_the_image_stays_where_it_is_when_figures_come(server: Server, browser) -> None:
    """A box that has been begun would end up elsewhere."""
    page = open_page(browser, server.address)
    page.get_by_text("0 of 60 images answered").wait_for()
    progress, picture = page.locator("#progress"), page.locator("#picture")
    for width in range(820, 1420, 40):
        page.set_viewport_size({"width": width, "height": 720})
        places = []
        for text in ("", "0 of 60 images answered", "100000 of 100000 images answered"):
            progress.evaluate("(element, text) => { element.textContent = text; }", text)
            places.append(picture.bounding_box())
        assert places[0] == places[1] == places[2], width
        assert progress.bounding_box()["x"] + progress.bounding_box()["width"] <= width


def test_sixty_images_are_answered_by_keyboard_and_a_kill_loses_none(server: Server, browser) -> None:
    page = open_page(browser, server.address)
    page.keyboard.press("h")
    page.locator("#map").wait_for(state="visible")
    press(page, "d", *"scratch", "Enter")
    for _ in range(29):
        press(page, "g")
    page.get_by_text("30 of 60 images answered").wait_for()
    server.stop(signal.SIGKILL)
    page.close()
    server.start()
    page = open_page(browser, server.address)
    page.get_by_text("30 of 60 images answered").wait_for()
    press(page, "d", "1")  # the name that is known by now
    for _ in range(28):
        press(page, "g")
    page.keyboard.press("g")
    page.get_by_text("60 of 60 images answered").wait_for()
    page.get_by_text("No image is left in this queue").wait_for()
    assert sorted(server.answers) == ["defect"] * 2 + ["good"] * 58
    assert server.stop(signal.SIGINT) in (0, 130)


def test_two_browsers_at_once_and_an_answer_that_is_taken_back(server: Server, browser) -> None:
    pages = [open_page(browser, server.address) for _ in range(2)]
    seen = [page.locator("#caption").inner_text() for page in pages]
    assert seen[0] != seen[1]
    for answered, page in enumerate(pages, 1):  # each answer is kept before the next one is given
        page.keyboard.press("g")
        page.locator("#caption").filter(has_text="score").wait_for()
        page.get_by_text(f"{answered} of 60 images answered").wait_for()
    pages[0].keyboard.press("z")
    pages[0].get_by_text("1 of 60 images answered").wait_for()
    pages[0].locator("#caption").filter(has_text=seen[0]).wait_for()
    assert server.answers == ["good"]


def test_answers_wait_while_the_server_is_away(server: Server, browser) -> None:
    page = open_page(browser, server.address)
    server.stop(signal.SIGKILL)
    page.keyboard.press("g")
    page.get_by_text("cannot be reached").wait_for()


def describe(_: ImageFile, sha256: str) -> Description:
    value = float(int(sha256, 16))
    return Description(np.array([value]), np.array([value]))


@pytest.fixture
def compared(make_run, tmp_path: Path) -> Iterator[str]:
    """A page whose images are compared by their numbers, with 60 named defects; its address."""
    run, answers = ReviewedRun(make_run(tmp_path, count=120)), Answers(tmp_path / "home" / "answers.sqlite3")
    for number in range(1, 61):
        answers.add(
            Answer(
                sha256=run.sha256(number), path="x", run=run.name, queue="teach", verdict="defect", model="tiles",
                defect="<b>scratch</b>" if number < 30 else "dent",
            )
        )  # fmt: skip
    similar = SimilarImages(run, answers, lambda: describe)
    similar.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        app = make_app(Desk(run, answers, similar), "secret", frozenset({host}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://{host}/secret/"
        server.should_exit = True
        thread.join()
        similar.stop()


def test_closest_good_images_and_a_hint_are_shown_beside_an_image_but_not_in_an_audit(compared: str, browser) -> None:
    page = open_page(browser, compared)
    assert page.locator("#caption").inner_text().startswith("000.png")
    page.get_by_text("If it is a defect, it looks like: <b>scratch</b>. 5 of the 5 most").wait_for()
    pictures = page.locator("#similar img")
    assert pictures.evaluate_all("all => all.map(each => each.alt)") == [
        f"Image not flagged: 0{n}.png" for n in (61, 62, 63)
    ]
    page.wait_for_function("[...document.querySelectorAll('#similar img')].every(each => each.naturalWidth)")
    assert page.get_by_role("heading", name="Closest images not flagged").is_visible()
    assert page.locator("#similar").get_by_text("No person has called them good yet").is_visible()
    page.get_by_role("button", name="Audit").click()
    page.locator("#similar").wait_for(state="hidden")
    assert page.locator("#looks").is_hidden()
    page.close()


@pytest.mark.parametrize("width", [420, 1280])
def test_everything_has_a_name_and_fits(server: Server, browser, width: int) -> None:
    page = open_page(browser, server.address)
    page.set_viewport_size({"width": width, "height": 720})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    unnamed = page.locator("input").evaluate_all("all => all.filter(each => !each.labels.length).map(each => each.id)")
    assert unnamed == []
    assert page.locator("#picture").get_attribute("alt")
