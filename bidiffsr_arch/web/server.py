"""Serve the page until the process is interrupted. Nothing is downloaded from elsewhere, reported or shared."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from bidiffsr_arch.errors import InputError
from bidiffsr_arch.web import Limits
from bidiffsr_arch.web.models import Models
from bidiffsr_arch.web.visitors import Visitors

if TYPE_CHECKING:
    from starlette.types import ASGIApp

SWEEP = 60.0  # seconds between two searches for old files
GOODBYE = 3  # seconds that open connections have when the server ends


def serve(models: Models, limits: Limits, host: str, port: int) -> None:
    """Serve the page until SIGINT or SIGTERM; all visitors' files are deleted then.

    Args:
        host: an address of this machine; ``0.0.0.0`` for all of them.
        port: 0 for any free port; the address is printed.
    Raises:
        InputError: the address does not exist, or its port is taken.
    """
    listener = listen(host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with listener, tempfile.TemporaryDirectory(prefix="bidiffsr-web-", ignore_cleanup_errors=True) as root:
        visitors = Visitors(Path(root))
        # Read by Gradio and huggingface_hub when they are imported.
        os.environ |= {
            "GRADIO_TEMP_DIR": str(visitors.root),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        from uvicorn import Config, Server

        server = Server(Config(application(models, limits, visitors, host), log_level="warning",
                               timeout_graceful_shutdown=GOODBYE))  # fmt: skip
        print(f"serving http://{address(host)}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        server.run([listener])


def application(models: Models, limits: Limits, visitors: Visitors, host: str) -> "ASGIApp":
    """The page behind its guard, as an ASGI application."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from bidiffsr_arch.web.guard import MEGA, Guard
    from bidiffsr_arch.web.page import CSS, Page, theme

    page = Page(models, limits, visitors)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(sweeping(visitors))
        yield
        task.cancel()
        page.cancel_all()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.add_middleware(Guard, visitors=visitors, limits=limits)
    if is_loopback(host):  # against DNS rebinding: another site's name could resolve to this server
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, address(host), "localhost", "127.0.0.1"])
    return gradio.mount_gradio_app(
        app, page.blocks, "/", theme=theme(), css=CSS, max_file_size=int(limits.upload_megabytes * MEGA),
        show_error=False, footer_links=[], run_history=False, ssr_mode=False, enable_monitoring=False, pwa=False,
        mcp_server=False,
    )  # fmt: skip


async def sweeping(visitors: Visitors) -> None:
    """Delete old files every minute."""
    while True:
        await asyncio.to_thread(visitors.sweep)
        await asyncio.sleep(SWEEP)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        InputError: this machine has no such address, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"expected a free --host and --port, got {address(host)}:{port} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The operating system's reason, without the address that `socket.create_server` adds to it."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def address(host: str) -> str:
    """A host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host
