"""The web application on which people answer: for the user of this machine, or for a team behind a web server.

Nothing is loaded from elsewhere. `pipelines.review.guard` decides who may use it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router

from pipelines.errors import FolderError, ImageError, KintsugiError, ReviewError
from pipelines.review.answers import Answers
from pipelines.review.description import Describer
from pipelines.review.desk import Desk, Desks, ListedRun, read_text
from pipelines.review.guard import MOST_BYTES, Door, Guard, local_door
from pipelines.review.run import ReviewedRun
from pipelines.review.similar import SimilarImages

log = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
MOST_AT_ONCE = 20  # images that a page asks for
MOST_PICTURES = 2  # that are decoded at a time: each may take as much memory as a large image
MOST_CONNECTIONS = 500
QUIET = 300.0  # seconds without an answer, after which a run's report is rebuilt
_ASSETS = {"review.js": "text/javascript", "review.css": "text/css"}
_HERE = Path(__file__).parent / "page"


def make_token() -> str:
    """Return the secret part of a page's address."""
    return secrets.token_urlsafe(24)


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
    token, listening = make_token(), _listen(ADDRESS, port)
    host = f"{ADDRESS}:{listening.getsockname()[1]}"
    desk = Desk(run, answers)
    if "teach" in run.queues:
        desk.similar = SimilarImages(run, answers, lambda: Describer(run.model))
        desk.similar.start()
    tell(f"http://{host}/{token}/")
    try:
        _serve(make_app(desk, token, frozenset({host, host.replace(ADDRESS, "localhost")})), listening)
    finally:  # Ctrl-C is how the page ends
        if desk.similar is not None:
            desk.similar.stop()


def serve_team(
    desks: Desks,
    door: Door,
    *,
    address: str,
    port: int,
    tell: Callable[[str], None],
    rebuild: Callable[[Path], object],
) -> None:
    """Serve the pages of all runs in a folder to a web server that asks for passwords, until somebody interrupts it.

    Args:
        desks: Of the folder.
        door: Of the page.
        address: Of the interface to listen on.
        port: To listen on; 0: a free one.
        tell: Is given the address that the web server reaches once it can.
        rebuild: Rebuilds the report of an output folder: when nobody has answered for a while, and at the end.

    Raises:
        ReviewError: The address or the port cannot be used.
    """
    listening, stopped = _listen(address, port), threading.Event()

    def rebuild_all(quiet: float) -> None:
        for out in desks.take_answered(quiet):
            try:
                rebuild(out)
            except (KintsugiError, OSError) as error:
                log.warning("the report of %s is as it was: %s", out, error)

    def keep_reports() -> None:
        while not stopped.wait(QUIET / 5):
            rebuild_all(QUIET)

    keeper = threading.Thread(target=keep_reports, name="reports", daemon=True)
    keeper.start()
    tell(f"http://{address}:{listening.getsockname()[1]}{door.path}/")
    try:
        _serve(make_team_app(desks, door), listening)
    finally:
        stopped.set()
        keeper.join()
        rebuild_all(0.0)


def make_app(desk: Desk, token: str, hosts: frozenset[str]) -> Starlette:
    """Build the web application for the user of this machine.

    Args:
        desk: Of the run.
        token: Secret part of the address.
        hosts: Names and ports that a browser may call this machine by, such as 127.0.0.1:8765.
    """
    door = local_door(hosts, token)

    async def find(_: Request) -> Desk:
        return desk

    return _app(door, _routes_of_run(find, door))


def make_team_app(desks: Desks, door: Door) -> Starlette:
    """Build the web application for a team: a list of runs, and the page of each.

    Args:
        desks: Of the runs.
        door: With the secret of the web server before it.
    """

    async def find(request: Request) -> Desk:
        return await run_in_threadpool(desks.desk, request.path_params["run"])

    async def listed(_: Request) -> Response:
        return Response(_write_list(await run_in_threadpool(desks.runs)), media_type="text/html")

    routes = [
        Route("/", listed),
        Route("/assets/{name}", _asset),
        _mount("/run/{run}", _routes_of_run(find, door, desks.note_answer)),
    ]
    return _app(door, routes)


def _app(door: Door, routes: Sequence[BaseRoute]) -> Starlette:
    async def refuse(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 404 if isinstance(error, FolderError) else 400)

    return Starlette(
        routes=[_mount(door.path, routes)],
        middleware=[Middleware(Guard, door=door)],
        exception_handlers={ReviewError: refuse, FolderError: refuse},
    )


def _mount(path: str, routes: Sequence[BaseRoute]) -> Mount:
    """Mount routes without redirections: a web server before the page may have another name and scheme."""
    return Mount(path, app=Router(routes, redirect_slashes=False))


def _routes_of_run(
    find: Callable[[Request], Any], door: Door, noted: Callable[[Path], None] | None = None
) -> list[BaseRoute]:
    """Return the page of a run and what it asks for.

    Args:
        find: Returns the desk that a request is about.
        door: Of the page.
        noted: Is given the output folder of each answer.
    """
    decoding = asyncio.Semaphore(MOST_PICTURES)

    async def page(request: Request) -> Response:
        await find(request)
        return Response((_HERE / "review.html").read_text(encoding="utf-8"), media_type="text/html")

    async def facts(request: Request) -> Response:
        desk: Desk = await find(request)
        run = desk.run
        return JSONResponse({
            "verb": run.verb, "queues": run.queues, "folder": str(run.folder), "model": run.model.name,
            "version": run.model.version, "defects": await run_in_threadpool(desk.answers.defects),
            "who": door.person(request), "team": door.secret is not None,
        })  # fmt: skip

    async def questions(request: Request) -> Response:
        desk: Desk = await find(request)
        queue = request.query_params.get("queue", "")
        if queue not in desk.run.queues:
            return PlainTextResponse("no such queue", 404)
        person = request.query_params.get("person", "")[:64]
        return JSONResponse(await run_in_threadpool(desk.ask, queue, person, MOST_AT_ONCE))

    async def picture(request: Request) -> Response:
        desk: Desk = await find(request)
        try:
            async with decoding:
                found = await run_in_threadpool(
                    desk.run.picture, request.path_params["number"], request.path_params["kind"]
                )
        except KeyError:
            return PlainTextResponse("no such image", 404)
        except (ImageError, OSError) as error:
            return PlainTextResponse(str(error), 404)
        return PlainTextResponse("no such picture", 404) if found is None else Response(found[0], media_type=found[1])

    async def similar(request: Request) -> Response:
        desk: Desk = await find(request)
        queue, number = request.query_params.get("queue", ""), request.path_params["number"]
        try:
            return JSONResponse(await run_in_threadpool(desk.compare, queue, number))
        except KeyError:
            return PlainTextResponse("no such image", 404)

    async def answer(request: Request) -> Response:
        desk: Desk = await find(request)
        kept = await run_in_threadpool(desk.answer, await _read(request), door.person(request))
        if noted is not None:
            noted(desk.run.out)
        return JSONResponse(asdict(kept), 201)

    async def withdraw(request: Request) -> Response:
        desk: Desk = await find(request)
        key = read_text((await _read(request)).get("key"))
        found = {"withdrawn": await run_in_threadpool(desk.answers.withdraw, key)}
        if noted is not None:
            noted(desk.run.out)
        return JSONResponse(found)

    async def figures(request: Request) -> Response:
        desk: Desk = await find(request)
        return JSONResponse(await run_in_threadpool(desk.figures))

    return [
        Route("/", page),
        Route("/assets/{name}", _asset),
        Route("/facts", facts),
        Route("/questions", questions),
        Route("/picture/{number:int}/{kind}", picture),
        Route("/similar/{number:int}", similar),
        Route("/answers", answer, methods=["POST"]),
        Route("/withdraw", withdraw, methods=["POST"]),
        Route("/figures", figures),
    ]


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return PlainTextResponse("no such file", 404)
    return Response((_HERE / name).read_text(encoding="utf-8"), media_type=_ASSETS[name])


def _write_list(runs: Sequence[ListedRun]) -> str:
    rows = "".join(
        f'<tr><td><a href="run/{quote(run.name, safe="")}/">{escape(run.name)}</a></td><td>{escape(run.model)}</td>'
        f"<td>{escape(run.started[:16].replace('T', ' '))}</td><td>{run.answered:,}</td></tr>\n"
        for run in runs
    )
    none = "" if runs else "<p>No run has finished yet.</p>\n"
    return (
        (_HERE / "runs.html").read_text(encoding="utf-8").replace("<!-- rows -->", rows).replace("<!-- none -->", none)
    )


async def _read(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ReviewError("an answer is sent as application/json")
    content = bytearray()
    async for part in request.stream():  # a request need not state its length
        content += part
        if len(content) > MOST_BYTES:
            raise ReviewError(f"the answer has more than {MOST_BYTES} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ReviewError(f"the answer does not read: {error}") from None
    if not isinstance(found, dict):
        raise ReviewError("the answer does not read: it is no object")
    return found


def _listen(address: str, port: int) -> socket.socket:
    try:
        family, _, protocol, *_ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        # Without the protocol, asyncio leaves Nagle's algorithm on, and each response waits 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        raise ReviewError(f"{address} cannot be used ({error.strerror}): give another address") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        raise ReviewError(f"port {port} cannot be used ({error.strerror}): give another with --port") from None
    listening.listen()
    return listening


def _serve(app: Starlette, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", proxy_headers=False, server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=5,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
