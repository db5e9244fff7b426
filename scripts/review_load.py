"""Measure the page of `kintsugi review` on a run with many rows: time to the first image, answers, hostile requests.

python scripts/review_load.py --rows 100000 --people 4 --answers 500 --hostile 10000
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.base.files import map_name
from pipelines.batch.schema import RESULTS

ROOT = Path(__file__).parents[1]
LINKS = 40_000  # to one file, which file systems limit
JSON = {"content-type": "application/json"}


def make_run(root: Path, rows: int) -> Path:
    """Write the output folder of a run over images of a megapixel; one in a hundred is flagged."""
    folder, out = root / "images", root / "out"
    folder.mkdir()
    (out / "maps").mkdir(parents=True)
    chance = np.random.default_rng(0)
    scores = chance.normal(size=rows)
    flagged = scores > 2.33
    picture = Image.fromarray(chance.integers(0, 256, (768, 1024, 3), np.uint8))
    sources = [root / f"{number}.jpg" for number in range(rows // LINKS + 1)]
    for source in sources:
        picture.save(source)
    picture.save(root / "map.png")
    found = []
    for number in range(rows):
        name = f"{number:07}.jpg"
        os.link(sources[number // LINKS], folder / name)
        if flagged[number]:
            (out / map_name(name)).symlink_to("../../map.png")
        known = {"path": name, "sha256": f"{number:064x}", "status": "ok", "threshold": 2.33}
        found.append(known | {"score": float(scores[number]), "is_anomaly": bool(flagged[number])})
    pq.write_table(pa.Table.from_pylist(found, schema=RESULTS), out / "results.parquet")
    model = {"name": "tiles", "version": "3", "sha256": "0" * 64}
    run = {"verb": "score", "folder": str(folder), "model": model, "started": "2026-12-02", "finished": "2026-12-02"}
    (out / "run.json").write_text(json.dumps(run))
    return out


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Browser:
    """A connection to the page."""

    def __init__(self, address: str) -> None:
        """Connect to an address with its token."""
        parts = urlsplit(address)
        self.host, self.base = parts.netloc, parts.path
        self._connection = http.client.HTTPConnection(self.host, timeout=60)

    def ask(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Send a request below the page's address, and return status and content."""
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        return self.send(method, self.base + path, content, ({} if body is None else JSON) | (headers or {}))

    def send(self, method: str, path: str, content: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Send any request; status 0: the server has closed the connection without an answer."""
        for _ in range(2):  # a connection that was kept open may have ended meanwhile
            try:
                self._connection.request(method, path, content, headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.HTTPException, OSError):
                self._connection.close()
        return 0, b""


def answer(address: str, person: int, count: int, pause: float) -> list[float]:
    """Answer as the page does, with a pause after each; return the seconds of each answer."""
    browser = Browser(address)
    waiting: list[dict[str, int]] = []
    taken: list[float] = []
    for number in range(count):
        if len(waiting) <= 8:
            _, content = browser.ask(f"questions?queue=audit&person={person}")
            known = {each["number"] for each in waiting}
            waiting += [each for each in json.loads(content) if each["number"] not in known]
        image = waiting.pop(0)
        browser.ask(f"picture/{image['number']}/image")
        body = {"number": image["number"], "queue": "audit", "verdict": "good", "key": f"{person} {number}"}
        begin = time.perf_counter()
        status, _ = browser.ask("answers", body)
        taken.append(time.perf_counter() - begin)
        if status != 201:
            sys.exit(f"an answer was refused with status {status}")
        browser.ask("figures")
        time.sleep(pause)
    return taken


def attack(address: str, count: int) -> Counter[str]:
    """Send requests that must be refused; return how many of each kind got which status."""
    browser, chance = Browser(address), random.Random(0)  # noqa: S311 - no secret
    base, body = browser.base, json.dumps({"number": 0, "queue": "audit", "verdict": "good", "key": "hostile"})
    kinds: dict[str, Callable[[], tuple[int, bytes]]] = {
        "no token": lambda: browser.send("GET", "/facts", None, {}),
        "wrong token": lambda: browser.send("POST", f"/{chance.getrandbits(192):x}/answers", body, JSON),
        "other origin": lambda: browser.send("POST", f"{base}answers", body, JSON | {"Origin": "http://evil.example"}),
        "other host": lambda: browser.send("GET", f"{base}facts", None, {"Host": "evil.example"}),
        "path traversal": lambda: browser.send(
            "GET", base + chance.choice(["../", "assets/..%2fserver.py", "picture/..%2f..%2fetc/image", "%2e%2e/x"]),
            None, {},
        ),
        "no such image": lambda: browser.ask(f"picture/{10**9 + chance.getrandbits(40)}/image"),
        "hostile name": lambda: browser.ask(
            "answers", {"number": 0, "queue": "audit", "verdict": "good", "key": "\0" * 201, "who": "<script>" * 50}
        ),
        "no answer": lambda: browser.ask("answers", {"number": "nan", "queue": "<b>", "verdict": "\ud800", "key": []}),
        "deep": lambda: browser.send("POST", f"{base}answers", "[" * 60_000, JSON),
        "too large": lambda: browser.send("POST", f"{base}answers", " " * 70_000, JSON),
        "other form": lambda: browser.send("POST", f"{base}answers", body, {"Content-Type": "text/plain"}),
        "long address": lambda: browser.send("GET", f"{base}{'a' * 20_000}", None, {}),
    }  # fmt: skip
    names = list(kinds)
    return Counter(f"{name}: {kinds[name]()[0]}" for name in (names[each % len(names)] for each in range(count)))


def memory(pid: int) -> float:
    """Return the resident memory of a process, in MiB."""
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Build the run, start the page, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=4, help="who answer at a time")
    parser.add_argument("--answers", type=int, default=500, help="of each person")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two answers of a person; 0: none")
    parser.add_argument("--hostile", type=int, default=10_000, help="requests that must be refused")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(make_run(Path(folder), options.rows), Path(folder) / "home", options)


def measure(out: Path, home: Path, options: argparse.Namespace) -> None:
    """Start the page of a run, and print what was measured."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", "review", str(out), "--no-browser"]
    environment = os.environ | {"KINTSUGI_HOME": str(home)}
    page = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        address = page.stdout.readline().strip() if page.stdout else ""
        say(f"{options.rows:,} rows: page after {time.perf_counter() - begin:.2f} s")
        measure_page(address, begin, options, lambda: memory(page.pid))
        page.send_signal(signal.SIGINT)
        say(page.communicate(timeout=300)[0].strip())
    finally:
        page.kill()


def measure_page(address: str, begin: float, options: argparse.Namespace, used: Callable[[], float]) -> None:
    """Open the page, answer, and attack it."""
    browser = Browser(address)
    for path in ("", "assets/review.js", "facts", "figures"):
        browser.ask(path)
    first = json.loads(browser.ask("questions?queue=teach&person=first")[1])[0]
    status, content = browser.ask(f"picture/{first['number']}/image")
    if (status, content[:2]) != (200, b"\xff\xd8"):
        sys.exit(f"the first image came with status {status}: {content[:200]!r}")
    say(f"first image after {time.perf_counter() - begin:.2f} s")
    with ThreadPoolExecutor() as pool:
        each = pool.map(lambda person: answer(address, person, options.answers, options.pause), range(options.people))
        taken = sorted(1000 * seconds for answers in each for seconds in answers)
    kept = json.loads(browser.ask("figures")[1])["audit"]["answered"]
    say(
        f"{len(taken):,} answers of {options.people} people, {options.pause:g} s apart, about {kept:,} images: median "
        f"{statistics.median(taken):.1f} ms, 95 % {taken[int(0.95 * len(taken))]:.1f} ms, most {taken[-1]:.1f} ms"
    )
    say(f"memory: {used():.0f} MiB")
    for part in (options.hostile // 2, options.hostile - options.hostile // 2):
        refused = attack(address, part)
        say(f"{part:,} hostile requests: {', '.join(f'{name} ({count})' for name, count in sorted(refused.items()))}")
        say(f"memory: {used():.0f} MiB")
    say(f"answers kept of them: {json.loads(browser.ask('figures')[1])['audit']['answered'] - kept}")


if __name__ == "__main__":
    main()
