"""No credential leaves yibu in an error's text, wherever the error goes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake
from tests.fakes.hub_server import HubServer
from yibu import errors, log
from yibu.gateway.envelope import error_body, error_event
from yibu.plain_errors import plain_error, rebuild_error
from yibu.redaction import (
    is_secret,
    is_secret_name,
    redact,
    register,
    register_environment,
    register_urls,
)

TOKEN = "tok-5up3r-s3cret-of-the-hub"
PASSWORD = "p4ssw0rd/of@index"
REPO = "org/tiny"


@pytest.fixture(params=["hf", "modelscope"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def told(tmp_path: Path, scheme: str) -> Iterator[tuple[Home, str]]:
    """A home whose hub repeats the Authorization header in its refusals, as some proxies do, and
    a model of it that has failed so."""
    refusal = json.dumps({"error": f"bad header 'Bearer {TOKEN}'", "Code": 400,
                          "Message": f"cookie m_session_id={TOKEN} refused"}).encode()  # fmt: skip
    with HubServer() as hub:
        hub.fault(REPO, "status", value=400, body=refusal,
                  headers={"X-Error-Message": f"refused: {TOKEN}"})  # fmt: skip
        settings = {
            "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url, "NO_PROXY": "*",
            "HF_TOKEN": f"{TOKEN}\n", "MODELSCOPE_API_TOKEN": f' "{TOKEN}"\r\n',
            "UV_DEFAULT_INDEX": f"http://me:{PASSWORD}@127.0.0.1:9/simple",
        }  # fmt: skip
        with Home(tmp_path, settings=settings) as home:
            yield home, f"{scheme}:{REPO}"


def test_every_way_out_of_a_running_node(told: tuple[Home, str]) -> None:
    home, source = told
    home.write([fake("fake")])
    home.yibu("up", "-d")  # a node that stays when the next model fails
    seen = {"up": home.yibu("up", "-d", source, "--name", "tiny", code=1).stderr}
    assert "refused" in seen["up"] or "cannot be used" in seen["up"]
    seen["ps"] = "".join(_both(home, "ps"))
    assert "tiny" in seen["ps"]
    seen["ps --json"] = home.yibu("ps", "--json").stdout
    seen["control socket"] = json.dumps(home.client.call("ps"))
    seen["pull"] = home.yibu("pull", source, code=1).stderr
    seen["plan"] = home.yibu("plan", source, code=1).stderr
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        seen[path] = _refusal(home, path)
    seen["/metrics"] = urllib.request.urlopen(f"{home.url()}/metrics").read().decode()
    seen["logs"] = home.yibu("logs", "node").stdout
    for path in (path for path in home.root.rglob("*") if path.is_file()):
        seen[str(path)] = path.read_bytes().decode("utf-8", "replace")
    assert any("node.json" in name for name in seen)
    leaks = {name: text for name, text in seen.items() if TOKEN in text or "p4ssw0rd" in text}
    assert not leaks


def test_a_defects_traceback() -> None:
    program = (
        "from yibu.cli import main\n"
        f"def broken(argv): raise ValueError('GET https://me:hidden@host/x?sig={TOKEN}')\n"
        "main.run = broken\n"
        "main.main(['ps'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "MY_TOKEN": TOKEN},
    )  # fmt: skip
    assert "ValueError: GET https://***@host" in done.stderr
    assert TOKEN not in done.stderr
    assert "hidden" not in done.stderr


def every_error() -> list[type[errors.YibuError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, errors.YibuError)]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_redacted_however_it_is_made_text(kind: type[errors.YibuError]) -> None:
    third_party = ValueError(f"Invalid header value b'Bearer {TOKEN}'")
    error = kind(f"the hub failed: {third_party!r}", hint=f"curl -H 'Authorization: {TOKEN}'")
    register(TOKEN)
    texts = [str(error), error.message, error.hint, json.dumps(plain_error(error))]
    texts.append(str(rebuild_error(plain_error(error))))
    if isinstance(error, errors.RequestError):
        texts += [error_body(error, dialect).decode() for dialect in ("openai", "anthropic")]
        texts += [error_event(error, dialect).decode() for dialect in ("openai", "responses")]
    assert all(TOKEN not in text for text in texts), texts
    assert any("***" in text for text in texts)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%r", (error,), None)
    assert TOKEN not in log.RedactingFormatter().format(record)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@proxy:3128 refused", "http://***@proxy:3128 refused"),
        ("socks5h://token@proxy", "socks5h://***@proxy"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic bWU6cHc='}", "{'authorization': 'Basic ***'}"),
        ("Cookie: m_session_id=abc-123-def", "Cookie: ***"),
        ("/f?X-Amz-Signature=aa&X-Amz-Credential=bb&x=1", "/f?X-Amz-Signature=***&X-Amz-Credential=***&x=1"),
        ("/f?Expires=1&Signature=a%2B&Key-Pair-Id=K&Policy=P", "/f?Expires=1&Signature=***&Key-Pair-Id=***&Policy=***"),
        ("/f?OSSAccessKeyId=LT&security-token=x", "/f?OSSAccessKeyId=***&security-token=***"),
        ("api_key='sk-1'", "api_key='***'"),
        ('{"token": "abcd"}', '{"token": "***"}'),
        ("password: hunter2 is wrong", "password: *** is wrong"),
        ("--api-key abcd --port 1", "--api-key *** --port 1"),
        ("hf_ABCDEFGHIJKLMNOPQRST", "***"),
        (f"got yibu-{'Ab-_9' * 8}xyz.", "got ***."),
        # What is none:
        ("Set HF_TOKEN to a valid token that may read it", None),
        ("token: expected a string, found 3", None),
        ("max_tokens: 4096 is over the limit of 2048", None),
        ("Write hf:Qwen/Qwen3-0.6B", None),
        ("send the header Authorization: Bearer KEY", None),
        ("https://huggingface.co/a/b?x=1", None),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret(text: str, shown: str | None) -> None:
    assert redact(text) == (text if shown is None else shown)


def test_what_is_known_to_be_one() -> None:
    register("correct-horse-battery", "abc", None, "")
    register_urls("http://me:w%20rd/with@sign@proxy:3128", "https://plain.example/simple")
    assert redact("it was correct-horse-battery.") == "it was ***."
    assert redact("x=correct-horse-battery2") == "x=correct-horse-battery2"
    assert redact("w%20rd/with@sign and w rd/with@sign") == "*** and ***"
    assert redact("abc plain.example") == "abc plain.example"


@pytest.mark.parametrize(
    "name",
    ["PGPASSWORD", "MYSQL_PWD", "SMTP_PASS", "GPG_PASSPHRASE", "OPENAI_APIKEY", "apiKey", "api_key",
     "accessToken", "clientSecret", "PRIVATEKEY", "GITHUB_PAT", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert is_secret(name, "a value")


@pytest.mark.parametrize(
    "name",
    ["PWD", "OLDPWD", "PATH", "COMPASS", "BYPASS", "MONKEY", "TOKENIZERS_PARALLELISM", "max_tokens",
     "tokenizer", "PASSWORD_FILE", "compat", "passes"],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)
    assert not is_secret(name, "a value")


def test_a_proxy_without_a_scheme_has_a_password_too() -> None:
    register_environment({"PIP_PROXY": "me:bare-proxy-pass@proxy:3128", "CONTACT": "someone@here"})
    assert redact("bare-proxy-pass of someone") == "*** of someone"


def _both(home: Home, *words: str) -> tuple[str, str]:
    done = home.yibu(*words)
    return done.stdout, done.stderr


def _refusal(home: Home, path: str) -> str:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5,
            "input": "x"}  # fmt: skip
    request = urllib.request.Request(
        f"{home.url()}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as answer:
        assert answer.code == 503
        return answer.read().decode() + str(answer.headers)
