"""What YAML can hold against its reader: bombs, other encodings, values that are read otherwise."""

from __future__ import annotations

import json
import os
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from yibu.config import document
from yibu.config import file as config_file
from yibu.config.names import MAX_LENGTH, check_name, name_from, plain_name
from yibu.config.schema import FileSchema, ModelSchema
from yibu.errors import ConfigError
from yibu.messages import render
from yibu.planner.machine_file import parse_machine


def refusal(data: bytes | str, env: dict[str, str] | None = None) -> str:
    data = data.encode() if isinstance(data, str) else data
    with pytest.raises(ConfigError) as caught:
        config_file.parse(data, "yibu.yaml", env=env or {})
    return str(caught.value)


def parsed(text: str) -> FileSchema:
    return config_file.parse(text.encode(), "yibu.yaml", env={})


def model(entry: str, env: dict[str, str] | None = None) -> Any:
    schema = config_file.parse(f"models: [{{name: m, {entry}}}]".encode(), "f", env=env or {})
    return schema.models[0]


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
)
CHAIN = "a0: &a0 1\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(BOMB, "its aliases expand to more than 20000 values", id="bomb"),
        pytest.param(CHAIN, "its aliases nest more than 64 levels deep", id="chain of aliases"),
        pytest.param("a: " + "[" * 3000, "nested more than 64 levels deep", id="brackets"),
        pytest.param("a: " + "[" * 3000 + "]" * 3000, "nested more than 64", id="closed brackets"),
        pytest.param("{a: " * 3000, "nested more than 64 levels deep", id="braces"),
        pytest.param("- " * 3000, "nested more than 64 levels deep", id="dashes"),
        pytest.param("? " * 3000, "nested more than 64 levels deep", id="keys of keys"),
        pytest.param("- a\n" * 200_000, "more than 20000 values", id="long list"),
        pytest.param("a: " + "9" * 5000, "a number of 5000 characters", id="long number"),
        pytest.param("a: 1" + "0" * 5000 + ".5", "a number of 5003 characters", id="long fraction"),
        pytest.param("a: &x [*x]", "refers to the value that it stands in", id="own alias"),
        pytest.param("a: &x {<<: *x}", "refers to the value that it stands in", id="own merge"),
        pytest.param("a: &x {b: {c: *x}}", "refers to the value that it stands in", id="far alias"),
        pytest.param("x" * 2**20 + "x", "a configuration has at most 1 MiB", id="large"),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(text: str, said: str) -> None:
    began = time.process_time()
    assert said in refusal(text)
    assert time.process_time() - began < 2  # what it guards against takes minutes, or never ends


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a:\n\tb: 1", "line 2, column 1: a tab stands where YAML wants spaces"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' stands twice"),
        ("gateway: {port: 1, port: 2}", "line 1, column 20: the key 'port' stands twice"),
        ("a\0b", "line 1, column 2 has the character U+0000"),
        ("a: b\n  \x07", "line 2, column 3 has the character U+0007"),
        ('models: [{name: m, flags: ["a\\0"]}]', "column 28: a value has the character U+0000"),
        ("[1]: 2", "a key has to be a word"),
        ("a: !!binary aGk=", "the tag !!binary is not used here"),
        ("a: !mine b", "the tag !mine is not used here"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
        ("a: *nobody", "line 1, column 4: an alias (*name) has no anchor"),
        ("<<: [1]", "<<: takes a mapping"),
        ("- a", "holds an array where the keys gateway and models are expected"),
        ("just words", "holds a string where"),
        ("42", "holds an integer where"),
        ("# 千问\nmodels: []\nname: 模型".encode("gb18030"), "as GBK, line 1 reads: # 千问"),
        (b"a: \xff\xff\xff", "line 1, column 4 has the byte 0xff"),
        (b"\xff\xfe\x00", "begins like UTF-16 text and is none"),
    ],
)
def test_one_sentence_with_its_place(data: bytes | str, said: str) -> None:
    message = refusal(data)
    assert said in message
    assert len(message.splitlines()) <= 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_read(encoding: str) -> None:
    schema = config_file.parse("models: [{name: 千问}]".encode(encoding), "f", env={})
    assert schema.models[0].name == "千问"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "gateway:\nmodels:\n", "{}"])
def test_an_empty_file_has_no_models(text: str) -> None:
    assert config_file.parse(text.encode(), "f", env={}).models == []


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for path, said in (
        (tmp_path, "is a directory; a file was expected"),
        (tmp_path / "pipe", "is a pipe or a device; a file was expected"),
        (Path("/dev/zero"), "is a pipe or a device; a file was expected"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
    ):
        with pytest.raises(ConfigError, match=said):
            config_file.load(path, env={})
    # A directory of that name is no reason to do without the file.
    (tmp_path / "yibu.yaml").mkdir()
    assert config_file.find(None, tmp_path) == tmp_path / "yibu.yaml"


def test_merge_keys() -> None:
    schema = config_file.parse(
        b"""
        models:
          - &base {name: a, source: ./a, options: &o {context: 1024, parallel: 2}, env: {A: 1}}
          - {<<: *base, name: b, options: {<<: *o, context: 2048}}
          - {<<: [{name: c, replicas: 2}, *base], env: {<<: {A: 2, B: 022}, B: no}}
        """,
        "f",
        env={},
    )
    a, b, c = schema.models
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert b.options == {"context": 2048, "parallel": 2}
    assert b.source == c.source == "./a"
    assert c.replicas == 2
    assert c.env == {"A": "2", "B": "no"}


def test_texts_are_kept_as_written() -> None:
    entry = model("env: {N: 4, T: 22:22, M: 022, B: no, D: 2026-11-28}, flags: [--x, 5, true]")
    assert entry.env == {"N": "4", "T": "22:22", "M": "022", "B": "no", "D": "2026-11-28"}
    assert entry.flags == ["--x", "5", "true"]
    words = '[serve, "{port}", 4096, 1.10, yes, 022, "${env.WORKERS}", "${env.NONE}"]'
    env = {"WORKERS": "4", "NONE": ""}
    entry = model(f"engine: command, options: {{command: {words}, n: 5}}", env)
    assert entry.options["command"] == ["serve", "{port}", "4096", "1.10", "yes", "022", "4", ""]
    assert entry.options["n"] == 5
    assert "models.0.env.N: expected a string" in refusal("models: [{name: m, env: {N: }}]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: 22:22", "found '22:22'"),
        ("port: true", "gateway.port: a number was expected, found True"),
        ("port: yes", "gateway.port: a number was expected, found True"),
        ("port: 1.5", "found 1.5"),
        ("request_timeout: .inf", "found inf"),
        ("request_timeout: .nan", "found nan"),
        ("drain_timeout: true", "a number was expected, found True"),
        ("max_body: true", "a number was expected, found True"),
        ("host: [a]", "found ['a']"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_was_read(text: str, said: str) -> None:
    assert said in refusal(f"gateway: {{{text}}}")


def test_a_reference_alone_is_read_as_if_it_were_written_there() -> None:
    env = {"N": "4096", "B": "true", "T": "text", "K": "12345678"}
    entry = model("options: {a: '${env.N}', b: '${env.B}', c: '${env.T}', d: 'x${env.N}'}", env)
    assert entry.options == {"a": 4096, "b": True, "c": "text", "d": "x4096"}
    assert model("replicas: '${env.R}'", {"R": "2"}).replicas == 2
    assert model("env: {A: '${env.N}'}", env).env == {"A": "4096"}
    gateway = config_file.parse(b"gateway: {api_keys: ['${env.K}']}", "f", env=env).gateway
    assert gateway.api_keys == ["12345678"]


def test_every_unset_variable_is_named_at_once_beside_the_other_faults() -> None:
    text = "gateway: {host: '${env.H}', port: '${env.P}', prot: 1}\nmodels: [{name: '${env.N}'}]"
    message = refusal(text)
    for name in "HPN":
        assert f"the environment variable {name} is not set" in message
    assert "gateway.prot: unknown key; did you mean port?" in message
    assert "export H=… P=… N=…" in message


def test_secrets_are_not_repeated() -> None:
    message = refusal("gateway: {api_keys: [[s3cret]]}\nmodels: [{name: m, env: {A: [t0ken]}}]")
    assert "s3cret" not in message
    assert "t0ken" not in message


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        config_file.parse(data, "f", env={})
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("千问", "千问"),
        ("Qwen3 0.6B (Q4)", "Qwen3-0.6B-Q4"),
        ("модель.v2", "модель.v2"),
        ("🚀", "🚀"),
        ("e\u0301te\u0301", "été"),
        ("a  b", "a-b"),
        ("--flag", "flag"),
        ("a\tb\nc", "a-b-c"),
        ("x;rm -rf $HOME", "x-rm--rf-HOME"),
    ],
)
def test_a_name_is_kept_where_it_can_be(file: str, name: str) -> None:
    assert name_from(file) == name


@given(st.text(max_size=400))
def test_every_file_gives_a_name_that_may_be_one(text: str) -> None:
    name = name_from(text)
    assert check_name(name) == name
    assert len(name) <= MAX_LENGTH


def test_names_of_which_little_is_left_stay_apart() -> None:
    assert name_from("...") != name_from("   ") != name_from("/")
    long = "x" * 300
    assert name_from(long + "a") != name_from(long + "b")


@pytest.mark.parametrize("name", ["", "a b", "-a", ".a", "a\n", "a'b", "a$b", "x" * 201, "\u200b"])
def test_names_that_cannot_be_typed_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name"):
        check_name(name)


def test_names_that_look_alike_are_one() -> None:
    assert plain_name("Qwen") == plain_name("qwen")
    assert plain_name("ｑｗｅｎ") == plain_name("qwen")
    assert "alike but for case" in refusal("models: [{name: a}, {name: A}]")
    assert len(config_file.parse(b"models: [{name: a, aliases: [A]}]", "f", env={}).models) == 1


def test_the_place_is_found_through_merges() -> None:
    found = document.read("a: &a\n  b: 1\nc: {<<: *a}\n", "f", {})
    assert found.place(("a", "b")) == (2, 6)
    assert found.place(("c", "b")) == (2, 6)
    assert found.place(("c", "nope")) == (3, 4)


MODEL = "models:\n- name: a\n  source: org/name\n"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("${FOO}", "FOO"),
        ("$FOO", "FOO"),
        ("${FOO:-6GiB}", "FOO"),
        ("${env.FOO:-6GiB}", "FOO"),
        ("${ENV.FOO}", "FOO"),
        ("${ env.FOO }", "FOO"),
        ("${ FOO }", "FOO"),
        ("x${FOO}y", "FOO"),
        ("${}", "NAME"),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "gateway: {api_keys: ['%s']}\n",
        "gateway: {host: '%s'}\n",
        "models:\n- {name: a, source: '%s'}\n",
        MODEL + "  memory: '%s'\n",
        MODEL + "  env: {A: '%s'}\n",
        MODEL + "  options: {context_length: '%s'}\n",
    ],
)
def test_a_reference_in_another_programs_form_is_answered_with_ours(
    text: str, written: str, wanted: str
) -> None:
    """``${FOO}`` would else be an API key of six letters."""
    with pytest.raises(ConfigError, match=re.escape("write ${env." + wanted + "}")):
        parsed(text % written)


PLAIN = '# \uff1a\nmodels:\n- name: m\n  engine: command\n  options: {command: "x \uff1a {port}", ready: /h}\n'


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, ":", "\uff1a"),
        (2, "-", "\uff0d"),
        (2, ":", "\uff1a"),
        (3, "  engine", "\u3000\u3000engine"),
        (3, "  engine", "\xa0\xa0engine"),
        (3, ":", "\uff1a"),
        (4, "{", "\uff5b"),
        (4, '"', "\u201c"),
        (4, ",", "\uff0c"),
        (4, "/h}", "/h\uff5d"),
    ],
)
def test_a_full_width_character_is_named_where_it_stands(line: int, old: str, new: str) -> None:
    """YAML takes it for a letter, and finds its fault elsewhere; in quotes and comments it is one."""
    parsed(PLAIN)
    lines = PLAIN.splitlines()
    column = lines[line].index(old)
    lines[line] = lines[line].replace(old, new, 1)
    wrong = next(i for i, c in enumerate(lines[line]) if c in new and not c.isascii()) + 1
    said = refusal("\n".join(lines))
    assert f"line {line + 1}, column {wrong}: {lines[line][wrong - 1]!r} has to be " in said
    assert wrong > column


@pytest.mark.parametrize("text", ["  flags: ['${A}']\n", "  options: {command: 'echo ${A} $B'}\n"])
def test_what_another_program_reads_keeps_them(text: str) -> None:
    parsed(MODEL + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MODEL + "  group: {nmae: x}\n", "models.0.group.nmae: unknown key; did you mean name?"),
        (MODEL + "  group: {name: x, swap: maybe}\n", "models.0.group.swap: expected true or"),
        (MODEL + "  group: [a]\n", "models.0.group: expected a string or an object, found ['a']"),
        ("models: {m: {source: a/b}}\n", "an object; begin each entry with a dash: - name: \u2026"),
        (MODEL + "  aliases: chat\n", "found 'chat'; begin each entry with a dash: - \u2026"),
        (MODEL + "  env: {'A=B': c}\n", "models.0.env.A=B: "),
        (MODEL + "  gpus: [0, 0]\n", "models.0.gpus: a GPU stands there twice"),
        ("gateway: {port: 8000, funasr_port: 8000}\n", "port and funasr_port are both 8000"),
        ("gateway: {max_connections: true}\n", "max_connections: a number was expected"),
        (MODEL + "  autoscale: {min: true, max: 2}\n", "autoscale.min: a number was expected"),
        (MODEL + "  autoscale: {max: true}\n", "autoscale.max: a number was expected"),
        (MODEL + "  autoscale: {max: 2, target: true}\n", "target: a number was expected"),
        ("gateway:\n  port:8000\n", "gateway: write port: and then a space"),
        ("gateway:\n  port\uff1a8000\n", "gateway: write port: and then a space"),
        ("gateway:\n  port = 8000\n", "gateway: write port: and then a space"),
        ("gateway: {port:8000}\n", "gateway: write port: and then a space"),
        ("gateway: {port\uff1a8000}\n", "gateway: write port: and then a space"),
        ("gateway: {prot: }\n", "gateway.prot: unknown key; did you mean port?"),
        ("modles:\n", "modles: unknown key; did you mean models?"),
        (MODEL + "  sauce:\n", "models.0.sauce: unknown key; did you mean source?"),
        ("models:\n- name:m\n  source: a/b\n", "line 2, column 3: write name: and then a space"),
        ("models:\n- name = m\n  source: a/b\n", "line 2, column 3: write name: and then a space"),
        ("models: []\n---\nmodels: []\n", "a second document begins"),
        ("models:\n- {name: \u201ca\u201d, source: a/b}\n", "cannot have the character"),
        ("gateway: {request_timeout: soon}\n", "'soon' is no time"),
        *(
            (f"gateway: {{host: '{host}'}}\n", "without scheme and port")
            for host in ("http://0.0.0.0", "0.0.0.0:8000", "*", "", "\u672c\u673a", "a b")
        ),
    ],
)
def test_a_refusal_names_what_is_in_the_file(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert said in str(caught.value)
    assert "Schema" not in str(caught.value)
    assert "constrained" not in str(caught.value)


WRONG: list[Any] = [
    True, 7, -1, 2**70, 0.5, "", "text", "a: b", "x" * 600, [], [5], [[]], [{}], {}, {"a": 1}, {"name": []},
]  # fmt: skip


def settings(schema: type[BaseModel], at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """The places of a schema's settings, and below them of those that hold settings themselves."""
    for name, setting in schema.model_fields.items():
        yield (*at, name)
        inner = (setting.annotation, *get_args(setting.annotation))
        for kind in (kind for kind in inner if isinstance(kind, type)):
            if issubclass(kind, BaseModel):
                of_list = (0,) if kind is ModelSchema else ()
                yield from settings(kind, (*at, name, *of_list))


@pytest.mark.parametrize(
    "at", list(settings(FileSchema, ())), ids=lambda at: ".".join(map(str, at))
)
def test_a_refusal_names_each_place_once_by_keys_of_the_file(at: tuple[str | int, ...]) -> None:
    refused = 0
    for value in WRONG:
        tree = value
        for part in reversed(at):
            tree = [{"name": "m", **tree}] if part == 0 else {part: tree}
        try:
            config_file.parse(json.dumps(tree).encode(), "f", env={})
            continue
        except ConfigError as error:
            lines = str(error).splitlines()[1:-1]
            chinese = render(error.message, "zh_CN")
        refused += 1
        places = [re.split("[:\uff1a]", line.split(": ")[1])[0].split(".") for line in lines]
        assert len({tuple(place) for place in places}) == len(places), lines
        for place, line in zip(places, lines, strict=True):
            inside = tree
            for part in place[:-1]:
                inside = inside[int(part)] if isinstance(inside, list) else inside[part]
            assert line.endswith(": is missing") or place[-1] in map(
                str, range(len(inside)) if isinstance(inside, list) else inside
            )
        for words in ("\n".join(lines), chinese):
            assert not re.search("Schema|constrained|function-|_type|_error|pydantic", words)
        assert re.search("[\u4e00-\u9fff]", chinese)
    assert refused


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: {env: {KEY: s3cret}}}\n",
        "models: [[{env: {KEY: s3cret}}]]\n",
        "gateway: {port: 1, funasr_port: 1, api_keys: [s3cret]}\n",
        "gateway: [{api_keys: [s3cret]}]\n",
        MODEL + "  autoscale: {min: 3, max: 2}\n  env: {KEY: s3cret}\n",
        MODEL + "  replicas: 2\n  autoscale: {max: 2}\n  env: {KEY: s3cret}\n",
    ],
)
def test_a_refused_whole_shows_no_secret_in_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("6G", 6 * 2**30),
        ("6Gi", 6 * 2**30),
        ("6 gib", 6 * 2**30),
        ("6GB", 6 * 10**9),
        ("512m", 512 * 2**20),
        ("64k", 64 * 2**10),
        ("1T", 2**40),
        ("1.5TiB", 3 * 2**39),
        (".5GiB", 2**29),
        ("2.GiB", 2**31),
        ("100B", 100),
    ],
)
def test_sizes_are_read_as_elsewhere(size: str, count: int) -> None:
    """As Docker, Kubernetes and NVIDIA's tools write them; in a machine's file and in yibu.yaml alike."""
    assert parsed(MODEL + f"  memory: {size}\n").models[0].memory == count
    assert parse_machine({"memory": size, "cores": 1}, "m").memory_total == count


@pytest.mark.parametrize(
    "size", ["50%", "6,5GiB", "6GiB/2", "\uff16GiB", "auto", "6iB", "GiB", "1 2"]
)
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(ConfigError, match="such as 6GiB"):
        parsed(MODEL + f"  memory: '{size}'\n")
    with pytest.raises(ConfigError, match="such as 6GiB"):
        parse_machine({"memory": size, "cores": 1}, "m")


@pytest.mark.parametrize(
    ("time", "seconds"), [("30", 30), ("30s", 30), ("1.5 h", 5400), ("10m", 600), ("1d", 86400)]
)
@pytest.mark.parametrize("name", ["request_timeout", "drain_timeout", "idle_timeout"])
def test_times_have_units(name: str, time: str, seconds: float) -> None:
    assert getattr(parsed(f"gateway: {{{name}: {time}}}\n").gateway, name) == seconds
