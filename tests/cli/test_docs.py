"""``yibu docs``: pages by name, a search, and the reader's language."""

from __future__ import annotations

import pytest

from yibu.cli import exits, manual
from yibu.cli.main import run


def test_all_pages_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs"]) == exits.DONE
    listed = capsys.readouterr().out
    for name in ("tutorials/first-model", "howto/dify", "configuration", "reference/causes"):
        assert f"\n{name} " in listed
    assert "\nzh/" not in listed


def test_a_page_is_printed_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tutorials/first-model", "first-model", "First-Model.md"):
        assert run(["docs", name]) == exits.DONE
        assert capsys.readouterr().out.startswith("# A first model\n")


@pytest.mark.usefixtures("chinese")
def test_it_is_in_the_readers_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "first-model"]) == exits.DONE
    assert capsys.readouterr().out.startswith("# 第一个模型\n")


def test_words_are_looked_for_in_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "kv", "CACHE"]) == exits.DONE
    found = capsys.readouterr().out
    assert found.startswith("memory: The KV cache\n")
    assert "howto/grafana: Prometheus and Grafana\n" in found


def test_a_word_of_the_other_language_is_found_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "显存与内存估算"]) == exits.DONE
    assert "memory: 显存与内存估算" in capsys.readouterr().out


def test_nothing_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "qwertz-uiop"]) == exits.USAGE
    assert "yibu docs" in capsys.readouterr().err


def test_a_comment_in_a_code_block_is_no_heading() -> None:
    page = manual.Page("p", "# Title\n\n```sh\n# a comment\nrun it\n```\n\n## Next\nmore\n")
    assert page.title == "Title"
    assert [hit.heading for hit in manual.search([page], ["run"])] == ["Title"]
    assert [hit.heading for hit in manual.search([page], ["more"])] == ["Next"]
