"""The fake hub itself: a fault that does not happen fails the test that ordered it."""

from __future__ import annotations

import urllib.request

import pytest

from tests.fakes.hub_server import HubServer
from tests.hub.conftest import FILES, REPO


@pytest.mark.parametrize(
    ("kind", "options", "ranges"),
    [
        ("corrupt", {}, ()),  # nobody asks
        ("corrupt", {"times": 2}, ("bytes=0-9",)),
        ("cut", {"value": 10}, ("bytes=0-9",)),  # what is asked for ends before the cut
        ("ignore-range", {}, ("",)),
        ("no-such-kind", {}, ("bytes=0-9",)),
    ],
)
def test_a_fault_that_is_not_met_fails(
    kind: str, options: dict[str, int], ranges: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError, match=f"did not happen.*{kind}"):
        order_and_ask(kind, options, ranges)


def order_and_ask(kind: str, options: dict[str, int], ranges: tuple[str, ...]) -> None:
    with HubServer() as hub:
        hub.repos[REPO] = dict(FILES)
        hub.fault("cdn", kind, **options)
        for value in ranges:
            url = f"{hub.url}/cdn/{REPO}/model.safetensors"
            request = urllib.request.Request(url, headers={"Range": value} if value else {})
            with urllib.request.urlopen(request) as answer:
                answer.read()
