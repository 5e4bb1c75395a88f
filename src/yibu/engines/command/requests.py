"""What a program of the user's does with each field of a request is not known: it gets them all."""

from __future__ import annotations

from yibu.engines.requests import RequestTable, passed

COMMAND_REQUESTS = RequestTable({"*": passed("**")})
