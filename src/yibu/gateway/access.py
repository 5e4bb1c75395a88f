"""Who may call a route. Every route says so; the application is not built with one that does not.

Operations say it in their table, routes of the documented surface in ``openapi_extra``, so that
``/openapi.json`` has it too. What no route serves asks for a key like everything else, so that a
stranger learns nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # half a second to import
    from fastapi import FastAPI

Access = Literal["open", "key", "admin", "console"]
"""``open``: everybody. ``key``: whoever has a key, where keys are set. ``admin``: whoever
has an admin's key; the command line needs none. ``console``: an admin's key or session, and without keys
the node's own user."""

AUTHORIZED = "yibu.authorized"
"""In a request's scope: whether it has a key, or needs none."""
CALLER = "yibu.caller"
"""In a request's scope: who calls (``Caller``)."""
EXCHANGE = "yibu.exchange"
"""In a request's scope: its ``Exchange``."""
ADMIT = "yibu.admit"
"""In a request's scope: the function to call with a route and the model's name before its engine is asked."""

_FIELD = "x-access"


def allow(access: Access) -> dict[str, str]:
    """``openapi_extra`` of a route with this access."""
    return {_FIELD: access}


def check_declared(app: FastAPI) -> None:
    """Check that every route of the application says who may call it.

    Raises:
        TypeError: one does not.
    """
    for route in app.routes:
        if _declared(route) not in get_args(Access):
            path = getattr(route, "path", route)
            raise TypeError(f"route {path} does not say who may call it: openapi_extra=allow(…)")


def access_of(app: FastAPI, scope: MutableMapping[str, Any]) -> Access:
    """Who may call the route of this request; ``key`` where there is none."""
    for route in app.routes:
        if route.matches(scope)[0].value:
            access: Access = _declared(route)
            return access
    return "key"


def _declared(route: Any) -> Any:  # a mount or a plain route has no place to say it
    return (getattr(route, "openapi_extra", None) or {}).get(_FIELD)
