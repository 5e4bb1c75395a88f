"""All of the console's routes."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from yibu.gateway.console.console import Console
from yibu.gateway.console.deploying import add_deploying
from yibu.gateway.console.events import add_events
from yibu.gateway.console.keys import add_keys
from yibu.gateway.console.logs import add_logs
from yibu.gateway.console.overview import add_overview
from yibu.gateway.console.pages import add_pages


def add_console(app: FastAPI, console: Console) -> None:
    """Put the page, and what it asks for, on the surface. They are described in docs/console.md, and
    not in the document of the API."""
    router = APIRouter(include_in_schema=False)
    add_pages(router, console)
    add_overview(router, console)
    add_events(router, console)
    add_deploying(router, console)
    add_logs(router, console)
    add_keys(router, console)
    app.router.routes.extend(router.routes)
