"""ASGI middleware that accepts only requests of the page, and only files in the visitor's own folder.

Gradio serves more than this page needs: a proxy, downloads from URLs in a request, pages about itself. Only the paths
below are passed on. A visitor is identified by a cookie; requests can read and name files only in the folder of that
cookie.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bidiffsr_arch.web import Limits
from bidiffsr_arch.web.visitors import COOKIE, Visitors

API = "/gradio_api/"
FILE = f"{API}file="
UPLOAD = f"{API}upload"
# Accepted without a cookie: the page, and files that are the same for all visitors.
PUBLIC = re.compile(r"/|/(config|theme\.css|favicon\.ico)|/(assets|static)/.+")
OWN = re.compile(
    rf"{API}(queue/(join|data)|run/[\w-]+|cancel|reset|upload|upload_progress|heartbeat/\w+|startup-events|file=.+)"
)
JSON_BYTES = 1_000_000  # largest request with names and numbers
FORM_BYTES = 100_000  # largest part of an upload that is not files
MEGA = 1_000_000

HEADERS = {
    # Gradio's page contains inline scripts and compiles others; all files that it loads come from this server.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Refused(Exception):
    """A request is refused, with an HTTP status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.response = PlainTextResponse(line, status)


class Guard:
    """ASGI middleware around the page.

    Args:
        app: the page's application.
        visitors: folders, one for each cookie.
        limits: limits of uploads.
    """

    def __init__(self, app: ASGIApp, visitors: Visitors, limits: Limits) -> None:
        self.app, self.visitors = app, visitors
        self.upload_bytes = int(limits.upload_megabytes * MEGA) * limits.images + FORM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        request = Request(scope, receive)
        send = _with_headers(send, request)
        try:
            await self._pass(request, send)
        except Refused as refused:
            await refused.response(scope, receive, send)

    async def _pass(self, request: Request, send: Send) -> None:
        path, cookie = request.scope["path"], request.cookies.get(COOKIE)
        if PUBLIC.fullmatch(path) and request.method in ("GET", "HEAD"):
            await self.app(request.scope, request.receive, send)
            return
        if not OWN.fullmatch(path):
            raise Refused(404, "no such page")
        if not cookie:
            raise Refused(403, "expected the page's cookie, got none; load the page first")
        if path == UPLOAD:
            await self._upload(request, cookie, send)
            return
        if path.startswith(FILE) and not self.visitors.owns(cookie, path.removeprefix(FILE)):
            raise Refused(403, "expected a file of your own, got another path")
        receive = await self._checked(request, cookie) if request.method == "POST" else request.receive
        await self.app(request.scope, receive, send)

    async def _checked(self, request: Request, cookie: str) -> Receive:
        """A `receive` with the request's JSON, in which all files are in the visitor's folder.

        Raises:
            Refused: too long, not JSON, or with another path.
        """
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > JSON_BYTES:
                raise Refused(413, f"expected at most {JSON_BYTES} bytes, got more")
        try:
            content = json.loads(body or b"{}")
            foreign = [path for path in _paths(content) if not self.visitors.owns(cookie, path)]
        except (ValueError, RecursionError) as error:
            raise Refused(400, "expected JSON, got something else") from error
        if foreign:
            raise Refused(403, "expected files of your own, got another path")
        # Serialized again, so that exactly the checked content is passed on.
        return _replay(request, json.dumps(content).encode())

    async def _upload(self, request: Request, cookie: str, send: Send) -> None:
        """Pass an upload on, then move its files into the visitor's folder, and return their new paths to the page."""
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise Refused(411, "expected the length of the upload, got none")
        if int(length) > self.upload_bytes:
            raise Refused(413, f"expected at most {self.upload_bytes // MEGA} MB together, got {int(length) // MEGA}")
        headers = MutableHeaders(scope=request.scope)
        del headers["accept-encoding"]  # the response is read here
        inner = _Recorded()
        await self.app(request.scope, request.receive, inner.collect)
        response = Response(bytes(inner.body), inner.status, media_type="text/plain")
        if inner.status == 200:
            folder = self.visitors.folder(cookie)
            response = JSONResponse([str(_moved(Path(path), folder)) for path in json.loads(inner.body)])
        await response(request.scope, request.receive, send)


class _Recorded:
    """A response that is recorded instead of sent."""

    def __init__(self) -> None:
        self.status, self.body = 500, bytearray()

    async def collect(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


def _with_headers(send: Send, request: Request) -> Send:
    """A `send` that adds `HEADERS`, and a cookie to the page of a new visitor."""

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if request.scope["path"] == "/" and COOKIE not in request.cookies:
                value = secrets.token_urlsafe(32)
                headers.append("Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax")
        await send(message)

    return add


def _replay(request: Request, body: bytes) -> Receive:
    """A `receive` that returns this body, and afterwards the client's further messages."""
    headers = MutableHeaders(scope=request.scope)
    headers["content-length"] = str(len(body))
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        return next(messages, None) or await request.receive()

    return receive


def _paths(content: Any) -> Iterator[str]:
    """Every value of a key ``path`` in JSON, by which Gradio names files."""
    if isinstance(content, Mapping):
        if "path" in content:
            yield str(content["path"])
        content = list(content.values())
    if isinstance(content, list):
        for entry in content:
            yield from _paths(entry)


def _moved(path: Path, folder: Path) -> Path:
    target = folder / secrets.token_hex(8) / path.name
    target.parent.mkdir()
    os.replace(path, target)
    return target
