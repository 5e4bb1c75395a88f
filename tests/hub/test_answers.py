"""Answers of a hub, its storage and the network between that are none of a hub's."""

from __future__ import annotations

import pytest

from tests.hub.conftest import REPO, Machine
from tests.hub.test_pull import BIG, assert_whole, partials
from yibu.errors import HubError, HubUnreachableError
from yibu.hub.http import retry_after
from yibu.hub.pages import WebPageError
from yibu.hub.types import Source

PAGE = b"<!DOCTYPE html><html><head><title>Access Denied</title></head>policy</html>"
LISTING = r"/api/models/|/repo/files"
FILE = rf"/resolve/.*{BIG}|FilePath={BIG}"
STORAGE = rf"/cdn/.*{BIG}"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("where", [LISTING, FILE, STORAGE], ids=["listing", "file", "storage"])
@pytest.mark.parametrize("status", [401, 403, 404, 451, 511])
def test_a_page_with_an_error_is_the_networks_and_not_the_hubs(
    machine: Machine, source: Source, status: int, where: str
) -> None:
    """A firewall's "access denied" is cured by no token and by no other spelling."""
    machine.hub.fault(where, "status", value=status, body=PAGE, headers=HTML)
    with pytest.raises(WebPageError, match=rf"\(HTTP {status}, 'Access Denied'\)"):
        machine.store.pull(source)
    assert not partials(machine)


@pytest.mark.parametrize("where", [LISTING, FILE, STORAGE], ids=["listing", "file", "storage"])
@pytest.mark.parametrize(
    ("status", "said"), [(407, "wants a user and a password"), (511, "captive portal")]
)
def test_a_status_of_the_networks_needs_no_page(
    machine: Machine, source: Source, status: int, said: str, where: str
) -> None:
    machine.hub.fault(where, "status", value=status)
    with pytest.raises(HubUnreachableError, match=said):
        machine.store.pull(source)


@pytest.mark.parametrize("status", [502, 503, 504, 520, 522, 524])
def test_a_page_with_a_status_that_passes_is_waited_out(
    machine: Machine, source: Source, status: int
) -> None:
    machine.hub.fault(STORAGE, "status", times=1, value=status, body=PAGE, headers=HTML)
    assert_whole(machine.store.pull(source))


@pytest.mark.parametrize(
    "location", ["http://[bad/", "ftp://host/file", "file:///etc/passwd", "?again", "//", "http://"]
)
def test_a_redirect_that_leads_nowhere(machine: Machine, source: Source, location: str) -> None:
    machine.hub.fault(FILE, "status", value=302, headers={"Location": location})
    with pytest.raises(HubError, match=BIG):
        machine.store.pull(source)


@pytest.mark.parametrize("place", ["127.0.0.1:9", "storage.invalid"])
def test_storage_that_cannot_be_reached_is_named_and_not_its_hub(
    machine: Machine, source: Source, place: str
) -> None:
    machine.hub.fault(FILE, "status", value=302, headers={"Location": f"http://{place}/x"})
    with pytest.raises(HubUnreachableError, match=f"no answer from {place}: "):
        machine.store.pull(source)


@pytest.mark.parametrize(
    "answer", [b"[]", b"null", b"", b'{"id": ', b"true", b'"text"', b"12", b"\xff\xfe"]
)
def test_a_list_that_is_none_asks_what_the_endpoint_is(
    machine: Machine, source: Source, answer: bytes
) -> None:
    machine.hub.fault(LISTING, "status", value=200, body=answer)
    with pytest.raises(HubError) as said:
        machine.store.pull(source)
    assert machine.hub.url in said.value.hint


@pytest.mark.parametrize("status", [429, 503, 520])
def test_modelscopes_refusal_is_a_status_and_no_dump(
    machine: Machine, status: int, impatient_sdk: None
) -> None:
    machine.hub.fault(LISTING, "status", value=status, body=PAGE, headers=HTML)
    with pytest.raises(HubUnreachableError) as said:
        machine.store.pull(Source("modelscope", REPO))
    assert said.value.message.endswith(f"HTTP {status}.")


def test_tags_that_differ_with_every_answer_end_in_one_connection(
    machine: Machine, source: Source
) -> None:
    """Mirrors of several machines give each its own: the file would start over for ever."""
    machine.hub.fault(STORAGE, "etags")
    assert_whole(machine.store.pull(source))
    assert not partials(machine)


def test_and_a_cut_one_goes_on(machine: Machine, source: Source) -> None:
    machine.hub.fault(STORAGE, "etags")
    machine.hub.fault(STORAGE, "cut", times=1, value=100_000)
    assert_whole(machine.store.pull(source))


def test_a_server_without_ranges_leaves_no_partial_behind(machine: Machine, source: Source) -> None:
    machine.hub.fault(STORAGE, "ignore-range")
    assert_whole(machine.store.pull(source))
    assert not partials(machine)


def test_the_unit_of_a_range_may_be_written_large(machine: Machine, source: Source) -> None:
    machine.hub.fault(STORAGE, "unit")
    assert_whole(machine.store.pull(source))


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        (" 7 ", 7, 7),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 1e9, 1e10),
        ("Fri, 31 Dec 2100 23:59:59 -0000", 1e9, 1e10),
        ("Sat, 01 Jan 2000 00:00:00 GMT", -1e10, 0),
    ],
)
def test_a_wait_is_seconds_or_a_date(value: str, least: float, most: float) -> None:
    seconds = retry_after({"Retry-After": value})
    assert seconds is not None
    assert least <= seconds <= most


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "٣", "Sun, 99 Nov", "0x10"])
def test_anything_else_is_no_wait(value: str) -> None:
    assert retry_after({"Retry-After": value}) is None


@pytest.mark.parametrize("where", [LISTING, FILE, STORAGE], ids=["listing", "file", "storage"])
def test_a_rate_limit_is_waited_for_and_then_said_to_be_one(
    machine: Machine, source: Source, where: str, impatient_sdk: None
) -> None:
    limited = machine.hub.fault(where, "status", value=429, headers={"Retry-After": "0"})
    with pytest.raises(HubUnreachableError) as error:
        machine.store.pull(source)
    assert "HTTP 429" in error.value.message
    assert "HF_TOKEN" in error.value.hint
    assert "doctor" not in error.value.hint
    machine.hub.faults.remove(limited)
    assert_whole(machine.store.pull(source))
