"""The page on which people answer, on this machine alone.

Who knows the random token in its address may use it; a page of another origin may not, nor one that has got hold of the
port under another name (DNS rebinding). Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from pipelines.errors import ImageError, ReviewError
from pipelines.review.answers import Answer, Answers, Queue
from pipelines.review.audit import estimate_precision, estimate_recall
from pipelines.review.description import Describer
from pipelines.review.run import ReviewedRun
from pipelines.review.similar import SimilarImages

ADDRESS = "127.0.0.1"
LEASE = 120.0  # seconds that an image is shown to one person alone
MOST_AT_ONCE = 20  # images that a page asks for
MOST_BYTES = 64 * 1024  # of a request
_ASSETS = {"review.js": "text/javascript", "review.css": "text/css"}
_HERE = Path(__file__).parent / "page"
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


def make_token() -> str:
    """Return the secret part of a page's address."""
    return secrets.token_urlsafe(24)


class Desk:
    """Hands out questions and takes answers, for several people at once."""

    def __init__(self, run: ReviewedRun, answers: Answers, similar: SimilarImages | None = None) -> None:
        """Tie a run to where its answers are kept, and to what looks for similar images; None: nothing does."""
        self.run, self.answers, self.similar = run, answers, similar
        self._leases: dict[tuple[Queue, int], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def ask(self, queue: Queue, person: str, count: int) -> list[dict[str, Any]]:
        """Return the next images of a queue that nobody else is looking at."""
        found: list[dict[str, Any]] = []
        now, given = time.monotonic(), self.answers.of_run(self.run.name, queue)
        with self._lock:
            self._leases = {key: lease for key, lease in self._leases.items() if lease[1] > now}
            for number, again in self.run.pending(queue, given):
                holder = self._leases.get((queue, number))
                if holder is not None and holder[0] != person:
                    continue
                self._leases[queue, number] = (person, now + LEASE)
                found.append(asdict(self.run.image(number)) | {"again": again})
                if len(found) == count:
                    break
        return found

    def answer(self, given: dict[str, Any]) -> Answer:
        """Keep an answer.

        Raises:
            ReviewError: It is none.
        """
        try:
            image, queue, model = self.run.image(int(given["number"])), given["queue"], self.run.model
            if queue not in self.run.queues:
                raise ReviewError(f"the queue is '{queue}': this run has {', '.join(self.run.queues)}")
            stratum = self.run.stratum_of(image.number) if queue == "audit" else None
            answer = Answer(
                sha256=image.sha256, path=image.path, run=self.run.name, queue=queue, verdict=given["verdict"],
                defect=_text(given.get("defect")) or None, place=_place(given.get("place")),
                who=_text(given.get("who")), key=_text(given["key"]), stratum=stratum,
                probability=None if stratum is None else self.run.audit.chances[stratum],
                model=model.name, version=None if model.version is None else str(model.version), score=image.score,
            )  # fmt: skip
        except KeyError as error:
            raise ReviewError(f"an answer without {error}, or about an image that the run does not have") from None
        except (TypeError, ValueError) as error:
            raise ReviewError(f"the answer does not read: {error}") from None
        self.answers.add(answer)
        return answer

    def compare(self, queue: str, number: int) -> dict[str, Any]:
        """Return what to compare an image with; in an audit nothing, since the model must not speak there.

        Raises:
            KeyError: There is no such image.
        """
        if queue != "teach" or self.similar is None:
            return {"state": "off", "problem": ""}
        return self.similar.look(number)

    def figures(self) -> dict[str, Any]:
        """Return how far each queue is, and what the audit tells."""
        given = self.run.of_this_run(self.answers.of_run(self.run.name))
        found: dict[str, Any] = {
            queue: {
                "answered": len({each.sha256 for each in given if each.queue == queue}),
                "images": len(self.run.numbers),
            }
            for queue in self.run.queues
        }
        if "audit" in found:
            strata = self.run.count_strata(given)
            found["audit"] |= {
                "recall": asdict(estimate_recall(strata)),
                "precision": asdict(estimate_precision(strata)),
            }
        return found


def serve_page(run: ReviewedRun, answers: Answers, *, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page of a run on this machine, until somebody interrupts it.

    Args:
        run: The run.
        answers: Where answers are kept.
        port: Of the page; 0: a free one.
        tell: Is given the address, with its token, once the page can be opened.

    Raises:
        ReviewError: The port is taken.
    """
    import uvicorn

    token, listening = make_token(), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
    except OSError as error:
        raise ReviewError(f"port {port} cannot be used ({error.strerror}): give another with --port") from None
    host = f"{ADDRESS}:{listening.getsockname()[1]}"
    desk = Desk(run, answers)
    if "teach" in run.queues:
        desk.similar = SimilarImages(run, answers, lambda: Describer(run.model))
        desk.similar.start()
    app = make_app(desk, token, frozenset({host, host.replace(ADDRESS, "localhost")}))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    listening.listen()
    tell(f"http://{host}/{token}/")
    try:
        server.run(sockets=[listening])
    finally:  # Ctrl-C is how the page ends
        if desk.similar is not None:
            desk.similar.stop()


def make_app(desk: Desk, token: str, hosts: frozenset[str]) -> Starlette:
    """Build the web application.

    Args:
        desk: Of the run.
        token: Secret part of the address.
        hosts: Names and ports that a browser may call this machine by, such as 127.0.0.1:8765.
    """

    async def page(_: Request) -> Response:
        text = (_HERE / "review.html").read_text(encoding="utf-8")
        return Response(text, media_type="text/html")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return PlainTextResponse("no such file", 404)
        return Response((_HERE / name).read_text(encoding="utf-8"), media_type=_ASSETS[name])

    async def facts(_: Request) -> Response:
        run = desk.run
        return JSONResponse({
            "verb": run.verb, "queues": run.queues, "folder": str(run.folder), "model": run.model.name,
            "version": run.model.version, "defects": await run_in_threadpool(desk.answers.defects),
        })  # fmt: skip

    async def questions(request: Request) -> Response:
        queue = request.query_params.get("queue", "")
        if queue not in desk.run.queues:
            return PlainTextResponse("no such queue", 404)
        person = request.query_params.get("person", "")[:64]
        return JSONResponse(await run_in_threadpool(desk.ask, queue, person, MOST_AT_ONCE))

    async def picture(request: Request) -> Response:
        try:
            found = await run_in_threadpool(
                desk.run.picture, request.path_params["number"], request.path_params["kind"]
            )
        except KeyError:
            return PlainTextResponse("no such image", 404)
        except (ImageError, OSError) as error:
            return PlainTextResponse(str(error), 404)
        return PlainTextResponse("no such picture", 404) if found is None else Response(found[0], media_type=found[1])

    async def similar(request: Request) -> Response:
        queue, number = request.query_params.get("queue", ""), request.path_params["number"]
        try:
            return JSONResponse(await run_in_threadpool(desk.compare, queue, number))
        except KeyError:
            return PlainTextResponse("no such image", 404)

    async def answer(request: Request) -> Response:
        return JSONResponse(asdict(await run_in_threadpool(desk.answer, await _read(request))), 201)

    async def withdraw(request: Request) -> Response:
        key = _text((await _read(request)).get("key"))
        return JSONResponse({"withdrawn": await run_in_threadpool(desk.answers.withdraw, key)})

    async def figures(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(desk.figures))

    async def refuse(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 400)

    guard = Middleware(_Guard, hosts=hosts)
    routes = [
        Route("/", page),
        Route("/assets/{name}", asset),
        Route("/facts", facts),
        Route("/questions", questions),
        Route("/picture/{number:int}/{kind}", picture),
        Route("/similar/{number:int}", similar),
        Route("/answers", answer, methods=["POST"]),
        Route("/withdraw", withdraw, methods=["POST"]),
        Route("/figures", figures),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)], middleware=[guard], exception_handlers={ReviewError: refuse}
    )


class _Guard(BaseHTTPMiddleware):
    """Turns other names of this machine and other origins away, and adds headers to every response."""

    def __init__(self, app: Any, hosts: frozenset[str]) -> None:  # noqa: ANN401 - as Starlette has it
        super().__init__(app)
        self._hosts = hosts

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = request.headers.get("origin")
        if request.headers.get("host") not in self._hosts:
            response: Response = PlainTextResponse("this page is for its own address only", 403)
        elif origin is not None and origin.partition("://")[2] not in self._hosts:
            response = PlainTextResponse("another page may not use this one", 403)
        elif int(request.headers.get("content-length") or 0) > MOST_BYTES:
            response = PlainTextResponse(f"more than {MOST_BYTES} bytes", 413)
        else:
            response = await call_next(request)
        response.headers.update(_HEADERS)
        return response


async def _read(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ReviewError("an answer is sent as application/json")
    try:
        found = json.loads(await request.body())
    except ValueError as error:
        raise ReviewError(f"the answer does not read: {error}") from None
    if not isinstance(found, dict):
        raise ReviewError("the answer does not read: it is no object")
    return found


def _place(value: object) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    left, top, width, height = map(float, value)  # type: ignore[call-overload]
    return left, top, width, height


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 200:
        raise ReviewError("names and keys are texts of at most 200 characters")
    return value.strip()
