"""The hubs' own SDKs against the same server, and against what yibu leaves in their caches."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.hub_server import COMMIT
from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from yibu.errors import OfflineError
from yibu.hub.types import Source

BIG = "model.safetensors"
MODELSCOPE = Source("modelscope", REPO)
HF = Source("hf", REPO)


def modelscope_download(machine: Machine, **options: object) -> Path:
    from modelscope_hub import HubApi, HubConfig

    config = HubConfig(endpoint=machine.hub.url, cache_dir=machine.settings.modelscope_cache)
    return Path(HubApi(config).download_repo(REPO, "model", **options))


def hf_download(machine: Machine, **options: object) -> Path:
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        REPO, cache_dir=machine.settings.hf_cache, endpoint=machine.hub.url, **options
    )
    return Path(path)


def contents(root: Path) -> dict[str, bytes]:
    return {path: (root / path).read_bytes() for path in FILES}


def test_modelscopes_sdk_uses_what_yibu_fetched(machine: Machine) -> None:
    model = machine.store.pull(MODELSCOPE)
    sent = dict(machine.hub.sent)
    assert modelscope_download(machine) == model.path
    assert modelscope_download(machine, local_files_only=True) == model.path
    assert machine.hub.sent == sent


def test_hugging_faces_sdk_uses_what_yibu_fetched(machine: Machine) -> None:
    model = machine.store.pull(HF)
    sent = dict(machine.hub.sent)
    assert hf_download(machine) == model.path
    assert hf_download(machine, local_files_only=True) == model.path
    assert machine.hub.sent == sent


def test_yibu_uses_what_modelscopes_sdk_fetched(machine: Machine) -> None:
    root = modelscope_download(machine)
    assert contents(root) == FILES
    sent = dict(machine.hub.sent)
    assert machine.store.pull(MODELSCOPE).path == root
    assert machine.hub.sent == sent


def test_yibu_uses_what_hugging_faces_sdk_fetched(machine: Machine) -> None:
    root = hf_download(machine)
    assert contents(root) == FILES
    sent = dict(machine.hub.sent)
    assert machine.store.pull(HF).path == root
    assert machine.hub.sent == sent


@pytest.mark.parametrize("fetch", [modelscope_download, hf_download])
def test_offline_too_where_no_record_is(machine: Machine, fetch: object) -> None:
    root = fetch(machine)  # type: ignore[operator]
    source = MODELSCOPE if fetch is modelscope_download else HF
    asked = len(machine.hub.requests)
    assert machine.with_settings(offline=True).store.pull(source).path == root
    assert len(machine.hub.requests) == asked


def test_offline_says_which_shard_is_missing(machine: Machine) -> None:
    machine.hub.repos[REPO]["model.safetensors.index.json"] = (
        b'{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    )
    modelscope_download(machine)
    with pytest.raises(OfflineError, match=r"changed here: model-2\.safetensors"):
        machine.with_settings(offline=True).store.pull(MODELSCOPE)


ENGINES = ["*.safetensors", "*.json"]
"""What vLLM has the SDK fetch: one format of the weights, and what it reads beside them."""


def beside_the_model(machine: Machine) -> None:
    machine.hub.repos[REPO] |= {"pytorch_model.bin": WEIGHTS, "README.md": b"# Tiny", "LICENSE": b"",
                                "original/consolidated.00.pth": WEIGHTS, "m.png": b"png"}  # fmt: skip


def test_offline_what_an_engine_fetched_is_a_model(machine: Machine) -> None:
    beside_the_model(machine)
    root = hf_download(machine, allow_patterns=ENGINES)
    offline = machine.with_settings(offline=True).store
    with offline.fetch_config(HF) as headers:
        assert headers.json("config.json") == {"model_type": "tiny"}
        assert headers.read(BIG) == WEIGHTS
    model = offline.pull(HF)
    assert model.path == root
    assert {file.path for file in model.files} == set(FILES) - {"empty.txt"}


@pytest.mark.parametrize("gone", [BIG, "config.json"])
def test_offline_what_an_engine_fetched_and_cannot_do_without(machine: Machine, gone: str) -> None:
    beside_the_model(machine)
    (hf_download(machine, allow_patterns=ENGINES) / gone).resolve().unlink()
    offline = machine.with_settings(offline=True).store
    for ask in (offline.pull, offline.fetch_config):
        with pytest.raises(OfflineError, match=f"changed here: .*{re.escape(gone)}"):
            ask(HF)


def test_offline_a_quantization_that_is_not_here(machine: Machine, source: Source) -> None:
    for label in ("Q4_K_M", "Q8_0"):
        machine.hub.repos[REPO][f"tiny-{label}.gguf"] = b"GGUF" + WEIGHTS
    del machine.hub.repos[REPO][BIG]
    download = modelscope_download if source == MODELSCOPE else hf_download
    root = download(machine, allow_patterns=["*Q8_0*"])
    offline = machine.with_settings(offline=True).store
    for named in (source, replace(source, tag="Q8_0"), replace(source, file="tiny-Q8_0.gguf")):
        with offline.fetch_config(named) as headers:
            assert set(headers.files) == {"tiny-Q8_0.gguf"}
        assert offline.pull(named).path == root / "tiny-Q8_0.gguf"
    for other in (replace(source, tag="Q4_K_M"), replace(source, file="tiny-Q4_K_M.gguf")):
        with pytest.raises(OfflineError, match=r"changed here: .*Q4_K_M"):
            offline.pull(other)


@pytest.mark.parametrize("kept", [["config.json"], ["config.json", "sub/tokenizer.json"]])
def test_offline_a_config_in_the_cache_is_no_model(
    machine: Machine, source: Source, kept: list[str]
) -> None:
    """Programs that read a tokenizer or a config alone leave that much, as ``AutoConfig`` does."""
    root = (modelscope_download if source == MODELSCOPE else hf_download)(machine)
    for path in set(FILES) - set(kept):
        (root / path).unlink()
    if source == HF:
        shutil.rmtree(root.parents[1] / "trees", ignore_errors=True)
    with pytest.raises(OfflineError, match="the weights"):
        machine.with_settings(offline=True).store.pull(source)


def test_offline_what_the_sdk_left_unfinished_is_missing(machine: Machine) -> None:
    root = modelscope_download(machine)
    (root / "sub/tokenizer.json").rename(root / "sub/tokenizer.json.incomplete")
    with pytest.raises(OfflineError, match=r"changed here: sub/tokenizer\.json"):
        machine.with_settings(offline=True).store.pull(MODELSCOPE)


def test_a_broken_file_of_the_hubs_own_cache_is_fetched_anew(machine: Machine) -> None:
    for root, source in ((modelscope_download(machine), MODELSCOPE), (hf_download(machine), HF)):
        bad = (root / BIG).resolve()
        bad.write_bytes(bytes(len(WEIGHTS)))
        assert contents(machine.store.pull(source).path) == FILES
        assert (root / BIG).read_bytes() == WEIGHTS


def test_a_blob_of_another_commit_is_linked_not_fetched(machine: Machine) -> None:
    root = hf_download(machine)
    (root / BIG).unlink()
    before = machine.hub.bodies(BIG)
    model = machine.store.pull(HF)
    assert (model.path / BIG).read_bytes() == WEIGHTS
    assert machine.hub.bodies(BIG) == before


@pytest.mark.parametrize("layout", ["models", "hub/models", "hub", "."])
def test_the_old_modelscope_layout_goes_on_being_used(machine: Machine, layout: str) -> None:
    """The SDK before 1.22 kept no ``models``; the new one looks only where those since then did."""
    old = machine.settings.modelscope_cache / layout / "org" / "Tiny-1___5B"
    (old / "sub").mkdir(parents=True)
    for path, data in FILES.items():
        (old / path).write_bytes(data)
    assert machine.store.pull(MODELSCOPE).path == old
    assert not machine.hub.sent
    assert machine.with_settings(offline=True).store.pull(MODELSCOPE).path == old
    if layout.endswith("models"):
        assert modelscope_download(machine) == old


@pytest.mark.parametrize("layout", ["models", "hub/models", "hub", "."])
def test_links_of_yibus_own_are_no_old_layout(machine: Machine, layout: str) -> None:
    path = machine.store.pull(MODELSCOPE).path
    cache_dir = machine.settings.modelscope_cache / layout
    linked = machine.store.pull(MODELSCOPE, cache_dir=cache_dir)
    assert linked.path == cache_dir / REPO
    assert machine.store.pull(MODELSCOPE).path == path


def test_the_revision_that_was_asked_for_is_kept(machine: Machine) -> None:
    model = machine.store.pull(HF)
    assert model.path.name == COMMIT
    assert (model.path.parents[1] / "refs/main").read_text() == COMMIT
    assert machine.store.pull(Source("modelscope", REPO), revision="v1").path.name == "v1"


def test_the_sdks_see_nothing_odd_in_their_caches(machine: Machine) -> None:
    from huggingface_hub import scan_cache_dir
    from modelscope_hub import HubApi

    machine.store.pull(HF)
    machine.store.pull(MODELSCOPE)
    found = scan_cache_dir(machine.settings.hf_cache)
    assert [repo.repo_id for repo in found.repos] == [REPO]
    assert found.warnings == []
    scanned = HubApi().scan_cache(machine.settings.modelscope_cache)
    assert [repo.repo_id for repo in scanned.repos] == [REPO]
