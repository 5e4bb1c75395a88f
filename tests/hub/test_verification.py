"""Bytes that no hash vouches for, pages that are no files, and answers that are wrong otherwise."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zipfile
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from tests.hub.test_pull import assert_whole, partials
from tests.planner.planner_files import LLAMA, gguf_bytes
from tests.support.zygote import ZYGOTE
from yibu.errors import HubError, HubNotFoundError, HubUnreachableError, VerificationError
from yibu.hub.formats import check_format
from yibu.hub.pages import WebPageError
from yibu.hub.types import Source

BIG = "model.safetensors"
PORTAL = b"<!DOCTYPE html><html><head><title>Hotel Wi-Fi: log in</title></head><form></form></html>"
GGUF = gguf_bytes(LLAMA, [("w", (1000,), 0, 0)], data=4000)


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x" * 3000)
    return buffer.getvalue()


# -- A mirror without hashes ---------------------------------------------------------------


def test_a_mirror_without_hashes_is_called_unverified(machine: Machine, source: Source) -> None:
    machine.hub.hashless = True
    machine.hub.repos[REPO]["weights.dat"] = b"z" * 2000
    model = machine.store.pull(source)
    assert_whole(model, machine.hub.repos[REPO])
    (listed,) = machine.store.list()
    assert listed.unverified[BIG] == listed.unverified["config.json"] == "format"
    assert listed.unverified["weights.dat"] == "size"
    (result,) = machine.store.verify(source)
    assert result.ok
    assert set(result.unverified) == set(machine.hub.repos[REPO])
    machine.hub.hashless = False  # the hub itself has hashes: the same bytes become verified
    machine.store.pull(source)
    assert machine.store.list()[0].unverified == {}


def test_a_hub_with_hashes_leaves_nothing_unverified(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    assert machine.store.list()[0].unverified == {}
    assert machine.store.verify(source)[0].unverified == {}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (BIG, WEIGHTS),
        ("m.gguf", GGUF),
        ("pytorch_model.bin", archive()),
        ("config.json", b'{"a": 1}'),
    ],
)
@pytest.mark.parametrize("damage", ["short", "other", "pointer"])
def test_its_bytes_are_held_against_their_format(
    machine: Machine, source: Source, name: str, data: bytes, damage: str
) -> None:
    damaged = {
        "short": data[: len(data) - max(1, len(data) // 50)],
        "other": b"This is something else altogether." * 50,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    }
    machine.hub.hashless = True
    machine.hub.repos[REPO] = {name: damaged[damage]}
    with pytest.raises(VerificationError, match=rf"{name}"):
        machine.store.pull(source)
    assert machine.store.find(source) is None
    assert partials(machine) == []
    machine.hub.repos[REPO] = {name: data}
    assert machine.store.pull(source).files[0].size == len(data)


@pytest.mark.parametrize("header", ["X-Linked-ETag", "ETag", "Content-MD5", "md5 ETag"])
def test_a_hash_in_the_answers_headers_is_compared(machine: Machine, header: str) -> None:
    source = Source("hf", REPO, None, "weights.dat")
    data = b"z" * 2000
    machine.hub.hashless = True
    machine.hub.repos[REPO]["weights.dat"] = data
    sha256 = hashlib.sha256(data).hexdigest()
    md5 = hashlib.md5(data, usedforsecurity=False)
    given = {
        "X-Linked-ETag": {"X-Linked-ETag": f'"{sha256}"'},
        "ETag": {"ETag": f'"{sha256}"'},
        "Content-MD5": {"Content-MD5": base64.b64encode(md5.digest()).decode()},
        "md5 ETag": {"ETag": f'"{md5.hexdigest().upper()}"'},
    }
    machine.hub.fault("weights.dat", "headers", headers=given[header])
    machine.store.pull(source)
    assert machine.store.list()[0].unverified == {}


@pytest.mark.parametrize("header", ["X-Linked-ETag", "ETag"])
def test_and_refused_where_it_differs(machine: Machine, header: str) -> None:
    source = Source("hf", REPO, None, "weights.dat")
    machine.hub.hashless = True
    machine.hub.repos[REPO]["weights.dat"] = b"z" * 2000
    machine.hub.fault("weights.dat", "headers", headers={header: f'"{"0" * 64}"'})
    with pytest.raises(VerificationError, match=f"expected {'0' * 64}"):
        machine.store.pull(source)
    assert machine.store.list() == []
    assert partials(machine) == []


def test_what_is_no_hash_proves_nothing(machine: Machine) -> None:
    source = Source("hf", REPO, None, "weights.dat")
    machine.hub.hashless = True
    machine.hub.repos[REPO]["weights.dat"] = b"z" * 2000
    machine.hub.fault("weights.dat", "headers", headers={"ETag": f'W/"{"0" * 64}"'})
    machine.store.pull(source)
    assert machine.store.list()[0].unverified == {"weights.dat": "size"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("m.onnx", b"\x08\x08" + b"x" * 100, b"hello"),
        ("tokenizer.model", b"\n\x0e\n\x05<unk>", b"\xff\xd8\xff"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n", b"{}"),
        ("pytorch_model.bin", b"\x80\x02}q\x00.", b"PK\x03\x04 and nothing more"),
        ("x.safetensors", WEIGHTS, WEIGHTS + b"1"),
    ],
)
def test_formats(tmp_path: Path, name: str, good: bytes, bad: bytes) -> None:
    file = tmp_path / "file.part"
    file.write_bytes(good)
    assert check_format("it", file, f"folder/{name}")
    file.write_bytes(bad)
    with pytest.raises(VerificationError, match=r"^it: "):
        check_format("it", file, name)
    assert not check_format("it", file, "model.bin")  # CTranslate2's, of which nothing is known


# -- Captive portals -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream", ""])
@pytest.mark.parametrize("hashless", [True, False])
def test_a_login_page_is_no_file(
    machine: Machine, source: Source, kind: str, hashless: bool
) -> None:
    machine.hub.hashless = hashless
    headers = {"Content-Type": kind} if kind else {}
    machine.hub.fault(BIG, "body", body=PORTAL, headers=headers)
    with pytest.raises(WebPageError, match="captive portal") as said:
        machine.store.pull(replace(source, file=BIG))
    assert "web page ('Hotel Wi-Fi: log in') where" in said.value.message
    assert partials(machine) == []
    assert machine.store.list() == []
    assert [
        path for path in machine.root.rglob("*") if path.is_file() and b"Wi-Fi" in path.read_bytes()
    ] == []


def test_nor_is_it_a_list_of_files(machine: Machine, source: Source, impatient_sdk: None) -> None:
    machine.hub.fault(
        "/api/", "status", value=200, body=PORTAL, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(WebPageError, match=r"Hotel Wi-Fi.*the list of org/Tiny-1\.5B's files"):
        machine.store.pull(source)
    with pytest.raises(WebPageError):
        machine.store.fetch_config(source)


def test_nor_where_a_redirect_leads_to_it(
    machine: Machine, source: Source, impatient_sdk: None
) -> None:
    login = machine.hub.url.replace("127.0.0.1", "localhost") + "/login"
    machine.hub.fault("/api/", "status", value=302, headers={"Location": login})
    machine.hub.fault(
        "/login", "status", value=200, body=PORTAL, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(WebPageError, match="captive portal"):
        machine.store.pull(source)


def test_nor_a_package_index(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)  # no pip
    machine.hub.fault(
        "/simple/", "status", value=200, body=PORTAL, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(HubUnreachableError, match="captive portal"):
        machine.store.pull(Source("pypi", "tiny==1.0", None, "m.bin"))


def test_nor_a_header(machine: Machine, source: Source) -> None:
    machine.hub.fault("config.json", "body", body=PORTAL, headers={"Content-Type": "text/html"})
    with machine.store.fetch_config(source) as headers, pytest.raises(WebPageError):
        headers.json("config.json")


def test_what_is_here_is_used_behind_a_portal(
    machine: Machine, source: Source, impatient_sdk: None
) -> None:
    machine.store.pull(source)
    machine.hub.fault(
        "/api/", "status", value=200, body=PORTAL, headers={"Content-Type": "text/html"}
    )
    assert_whole(machine.store.pull(source))


def test_a_page_that_belongs_to_the_model_comes(machine: Machine, source: Source) -> None:
    machine.hub.repos[REPO] |= {"demo.html": PORTAL, "README.md": PORTAL}
    machine.hub.fault("demo.html", "headers", headers={"Content-Type": "text/html"})
    assert_whole(machine.store.pull(source), machine.hub.repos[REPO])


# -- Wrong answers -------------------------------------------------------------------------


def test_compressed_bodies_are_unpacked(machine: Machine, source: Source) -> None:
    packed = gzip.compress(WEIGHTS)
    machine.hub.fault(BIG, "body", body=packed, headers={"Content-Encoding": "gzip"})
    assert_whole(machine.store.pull(source))


@pytest.mark.parametrize("value", [1, -1, 10**6])
def test_a_range_that_was_not_asked_for(machine: Machine, source: Source, value: int) -> None:
    wrong = machine.hub.fault(f"cdn.*{BIG}", "range", times=2, value=value)
    assert_whole(machine.store.pull(source))
    assert wrong.met == 2


def test_a_server_that_always_answers_another_range_is_given_up(
    machine: Machine, source: Source
) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "range", value=1)
    with pytest.raises(HubUnreachableError, match="another range"):
        machine.store.pull(source)


def test_a_file_that_is_listed_and_not_there(machine: Machine, source: Source) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "status", value=404)
    with pytest.raises(HubNotFoundError, match=rf"has no .*{BIG} \(HTTP 404\)"):
        machine.store.pull(source)
    assert machine.store.list() == []


@pytest.mark.parametrize("size", [len(WEIGHTS) - 1, len(WEIGHTS) + 1, 1])
def test_sizes_that_lie(machine: Machine, size: int) -> None:
    machine.hub.listed[BIG] = {"Size": size}
    with pytest.raises(VerificationError, match=f"the hub lists {size} bytes"):
        machine.store.pull(Source("modelscope", REPO))


@pytest.mark.parametrize("size", [-5, "many"])
def test_sizes_that_are_none(machine: Machine, size: object) -> None:
    machine.hub.listed[BIG] = {"Size": size}
    with pytest.raises(HubError, match=r"cannot be used|size"):
        machine.store.pull(Source("modelscope", REPO))


def test_the_hash_of_nothing(machine: Machine) -> None:
    machine.hub.listed[BIG] = {"Sha256": hashlib.sha256(b"").hexdigest()}
    with pytest.raises(VerificationError, match="e3b0c442"):
        machine.store.pull(Source("modelscope", REPO))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"config.json/inner": b"x"}, "as a file and as the folder"),
        ({"a/b": b"x", "a": b"y"}, "as a file and as the folder"),
        ({"C:\\evil": b"x"}, "outside of the repository"),
        ({"a\tb": b"x"}, "outside of the repository"),
        ({"./a": b"x"}, "outside of the repository"),
    ],
)
def test_names_that_cannot_be(
    machine: Machine, source: Source, extra: dict[str, bytes], said: str
) -> None:
    machine.hub.repos[REPO] |= extra
    with pytest.raises(HubError, match=said):
        machine.store.pull(source)
    assert machine.hub.sent == {}


def test_names_that_differ_in_case_alone_both_come(machine: Machine, source: Source) -> None:
    machine.hub.repos[REPO] |= {
        "readme.md": b"small",
        "README.md": b"large",
        "\u5343\u95ee.txt": b"q",
    }
    assert_whole(machine.store.pull(source), machine.hub.repos[REPO])


def test_a_link_in_the_cache_leads_nothing_out_of_it(
    machine: Machine, source: Source, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "tokenizer.json").write_bytes(b"mine")
    root = machine.store.pull(source).path
    (root / "sub" / "tokenizer.json").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(outside)
    with pytest.raises(HubError, match="leads out of"):
        machine.store.pull(source)
    assert (outside / "tokenizer.json").read_bytes() == b"mine"
    assert list(outside.iterdir()) == [outside / "tokenizer.json"]


def test_an_index_that_is_no_index(machine: Machine, source: Source) -> None:
    machine.hub.repos[REPO]["model.safetensors.index.json"] = json.dumps([1]).encode()
    assert machine.store.pull(source).files
    assert set(FILES) <= set(machine.hub.repos[REPO])


def test_ls_and_verify_say_it(machine: Machine) -> None:
    machine.hub.hashless = True
    env = machine.environment()

    yibu = partial(ZYGOTE.run, env=env, check=True)
    yibu("pull", f"hf:{REPO}")
    assert "unverified (length only)" in yibu("ls").stdout
    (listed,) = json.loads(yibu("ls", "--json").stdout)["models"]
    assert listed["verified"] is False
    assert listed["unverified"] == {
        "config.json": "format", BIG: "format", "sub/tokenizer.json": "format", "empty.txt": "size",
    }  # fmt: skip
    assert listed["changed"] == []
    (Path(listed["path"]) / BIG).unlink()
    assert f"gone or changed: {BIG}" in yibu("ls").stdout
    (listed,) = json.loads(yibu("ls", "--json").stdout)["models"]
    assert listed["changed"] == [BIG]
    yibu("pull", f"hf:{REPO}")
    checked = yibu("verify")
    assert "unverified" in checked.stdout
    assert "its hub gave no hash of" in checked.stderr
    (result,) = json.loads(yibu("verify", "--json").stdout)["models"]
    assert result["result"] == "unverified"
    machine.hub.hashless = False
    yibu("pull", f"hf:{REPO}")
    assert "  yes  " in yibu("ls").stdout
    assert json.loads(yibu("verify", "--json").stdout)["models"][0]["result"] == "ok"
