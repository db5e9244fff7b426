"""Who may use the review page: what each request must bring, and what each response carries.

On one machine, the address holds a random token. For a team, a web server asks for passwords, and adds a secret to each
request. In both cases a page of another origin is refused, and so is one that has got hold of the port under another
name (DNS rebinding).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pipelines.errors import ReviewError

MOST_BYTES = 64 * 1024  # of a request
FEWEST_CHARACTERS = 20  # of a secret
SECRET, PERSON = "x-kintsugi-secret", "x-kintsugi-user"  # headers that the web server sets
ALIVE = "/healthz"
_PORTS = {"http": 80, "https": 443}  # which browsers leave out
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a request must bring.

    Attributes:
        hosts: Names and ports that a browser may call the page by, such as 127.0.0.1:8765.
        origins: Of the pages that may use it, such as http://127.0.0.1:8765.
        path: What the page's addresses begin with, without a slash at the end.
        secret: What the web server before the page adds to each request; None: there is none before it.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    path: str
    secret: str | None = None

    def refusal(self, request: Request) -> Response | None:
        """Return the response to a request that may not come in; None: it may."""
        given = request.headers.get(SECRET, "").encode("latin-1")
        origin = request.headers.get("origin")
        if self.secret is not None and not secrets.compare_digest(given, self.secret.encode()):
            return PlainTextResponse("this page answers the web server before it only", 403)
        if request.headers.get("host") not in self.hosts:
            return PlainTextResponse(f"this page is for its own address only: {', '.join(sorted(self.origins))}", 403)
        is_change = request.method not in ("GET", "HEAD")  # browsers name the origin of these
        if origin not in self.origins and (origin is not None or (self.secret is not None and is_change)):
            return PlainTextResponse("another page may not use this one", 403)
        if int(request.headers.get("content-length") or 0) > MOST_BYTES:
            return PlainTextResponse(f"more than {MOST_BYTES} bytes", 413)
        return None

    def person(self, request: Request) -> str | None:
        """Return who has signed in, as the web server says; None: it does not say."""
        if self.secret is None:
            return None
        name = request.headers.get(PERSON, "").encode("latin-1").decode("utf-8", "replace").strip()
        return name[:60] or None


def local_door(hosts: frozenset[str], token: str) -> Door:
    """Return the door of a page for the user of this machine.

    Args:
        hosts: Names and ports of the page.
        token: Secret part of its address.
    """
    return Door(hosts=hosts, origins=frozenset(f"http://{host}" for host in hosts), path=f"/{token}")


def team_door(address: str, secret: str | None) -> Door:
    """Return the door of a page behind a web server.

    Args:
        address: Where browsers find the page, such as https://images.example/review/.
        secret: What the web server adds to each request.

    Raises:
        ReviewError: The address is none, or the secret is missing or short.
    """
    try:
        parts = urlsplit(address)
        host = _host_of(parts)
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment or parts.username:
        raise ReviewError(f"--behind is '{address}': give the page's address, such as http://localhost:8000/review/")
    if not secret or len(secret) < FEWEST_CHARACTERS or not secret.isascii():
        raise ReviewError(
            f"KINTSUGI_REVIEW_SECRET has {len(secret or '')} characters: set it to at least {FEWEST_CHARACTERS} random "
            "ones (ASCII), and let the web server send them as the header X-Kintsugi-Secret"
        )
    origins = frozenset({f"{parts.scheme}://{host}"})
    return Door(hosts=frozenset({host}), origins=origins, path=parts.path.rstrip("/"), secret=secret)


def _host_of(parts: SplitResult) -> str:
    """Return host and port as browsers send them."""
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    return name if parts.port in (None, _PORTS.get(parts.scheme)) else f"{name}:{parts.port}"


class Guard(BaseHTTPMiddleware):
    """Turns away what a door refuses, and adds headers to every response."""

    def __init__(self, app: Any, door: Door) -> None:  # noqa: ANN401 - as Starlette has it
        """Guard an application."""
        super().__init__(app)
        self._door = door

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer a request, or refuse it."""
        response: Response | None
        if self._door.secret is not None and request.url.path == ALIVE:  # the container asks; it learns nothing
            response = Response(status_code=204)
        else:
            response = self._door.refusal(request) or await call_next(request)
        response.headers.update(_HEADERS)
        return response
