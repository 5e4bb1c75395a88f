"""The renderer."""

from __future__ import annotations

import json

import pytest

from yibu.cli import output


def test_a_table_for_programs_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([["smol", "ready"], ["a-long-name", "-"]], ("MODEL", "STATE"))
    assert capsys.readouterr().out == "MODEL        STATE\nsmol         ready\na-long-name  -\n"


def test_a_listing_as_json_is_versioned(capsys: pytest.CaptureFixture[str]) -> None:
    output.listing([{"name": "易部"}], ("NAME",), as_json=True, kind="models")
    out = capsys.readouterr().out
    assert json.loads(out) == {"version": 1, "models": [{"name": "易部"}]}
    assert "易部" in out
