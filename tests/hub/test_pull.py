"""Store.pull against a hub that misbehaves: the same promises for both hubs."""

from __future__ import annotations

import hashlib
import resource
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.hub_server import COMMIT
from tests.hub.conftest import FILES, REPO, WEIGHTS, Home, until
from yibu.errors import (
    DiskFullError,
    HubAuthError,
    HubError,
    HubNotFoundError,
    HubUnreachableError,
    OfflineError,
    PullCancelledError,
    VerificationError,
)
from yibu.hub.types import LocalModel, Progress, Source

BIG = "model.safetensors"


def assert_whole(model: LocalModel, files: dict[str, bytes] = FILES) -> None:
    assert {file.path: file.sha256 for file in model.files} == {
        path: hashlib.sha256(data).hexdigest() for path, data in files.items()
    }
    for path, data in files.items():
        assert (model.path / path).read_bytes() == data


def partials(home: Home) -> list[Path]:
    return [*home.root.rglob("*.part"), *home.root.rglob("*.journal")]


def test_everything_comes_and_is_verified(home: Home, source: Source) -> None:
    seen: list[Progress] = []
    model = home.store.pull(source, progress=seen.append)
    assert_whole(model)
    total = sum(map(len, FILES.values()))
    assert seen[0].phase == "listing"
    assert (seen[-1].phase, seen[-1].done_bytes, seen[-1].total_bytes) == ("done", total, total)
    assert not partials(home)
    assert home.store.find(source) == model


def test_large_files_come_in_parallel_ranges(home: Home, source: Source) -> None:
    home.store.pull(source)
    ranges = {seen.range for seen in home.hub.asked(f"/cdn/{REPO}/{BIG}")}
    assert len(ranges) == -(-len(WEIGHTS) // home.settings.segment_bytes)
    assert home.hub.bodies(BIG) == len(WEIGHTS)


def test_a_second_pull_fetches_nothing(home: Home, source: Source) -> None:
    home.store.pull(source)
    sent = dict(home.hub.sent)
    assert_whole(home.store.pull(source))
    assert home.hub.sent == sent


def test_a_commit_needs_no_hub_at_all(home: Home) -> None:
    source = Source("hf", REPO, COMMIT)
    home.store.pull(source)
    asked = len(home.hub.requests)
    assert_whole(home.store.pull(source))
    assert len(home.hub.requests) == asked


def test_when_the_hub_is_away_what_is_here_is_used(
    home: Home, source: Source, impatient_sdk: None
) -> None:
    home.store.pull(source)
    home.hub.fault("/api/", "status", value=503)
    assert_whole(home.store.pull(source))


def test_one_file(home: Home, source: Source) -> None:
    model = home.store.pull(replace(source, file=BIG))
    assert model.path.read_bytes() == WEIGHTS
    assert [file.path for file in model.files] == [BIG]
    assert not home.hub.asked("config.json")


def test_one_shard_brings_its_set(home: Home, source: Source) -> None:
    names = [f"q4-{number:05}-of-00002.gguf" for number in (1, 2)]
    home.hub.repos[REPO] |= {name: name.encode() * 200 for name in names}
    model = home.store.pull(replace(source, file=names[0]))
    assert sorted(file.path for file in model.files) == names
    assert model.path.name == names[0]


def test_more_files_than_a_process_may_open(home: Home) -> None:
    home.hub.repos[REPO] = {f"{number}.json": b"%d" % number for number in range(150)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        model = home.store.pull(Source("modelscope", REPO))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert_whole(model, home.hub.repos[REPO])


def test_a_changed_file_is_fetched_alone(home: Home, source: Source) -> None:
    home.store.pull(source)
    home.hub.repos[REPO]["config.json"] = b'{"model_type": "other"}'
    before = home.hub.bodies(BIG)
    assert_whole(home.store.pull(source), home.hub.repos[REPO])
    assert home.hub.bodies(BIG) == before


@pytest.mark.parametrize("bytes_before", [0, 1, 30_000])
def test_a_cut_connection_goes_on_where_it_broke(
    home: Home, source: Source, bytes_before: int
) -> None:
    home.hub.fault(f"cdn.*{BIG}", "cut", times=4, value=bytes_before)
    assert_whole(home.store.pull(source))
    assert home.hub.bodies(BIG) == len(WEIGHTS)


def test_a_server_without_ranges(home: Home, source: Source) -> None:
    home.hub.fault(BIG, "ignore-range")
    assert_whole(home.store.pull(source))


def test_a_server_without_ranges_that_always_breaks_is_given_up(home: Home, source: Source) -> None:
    home.hub.fault(BIG, "ignore-range")
    home.hub.fault(f"cdn.*{BIG}", "cut", value=100_000)
    with pytest.raises(HubUnreachableError, match=BIG):
        home.store.pull(source)


def test_bad_bytes_are_fetched_once_more(home: Home, source: Source) -> None:
    home.hub.fault(f"cdn.*{BIG}", "corrupt", times=1)
    assert_whole(home.store.pull(source))


@pytest.mark.parametrize("path", [BIG, "config.json"])
def test_bytes_that_stay_bad_are_refused(home: Home, source: Source, path: str) -> None:
    home.hub.fault(f"{path}$", "corrupt")
    with pytest.raises(VerificationError, match=f"{path}.*found .*, expected "):
        home.store.pull(source)
    assert home.store.find(source) is None
    assert not [partial for partial in partials(home) if path in partial.name]


def test_zero_bytes_are_said_in_words(home: Home, source: Source) -> None:
    home.hub.fault(f"cdn.*{BIG}", "empty")
    with pytest.raises(VerificationError, match="zero bytes"):
        home.store.pull(source)


def test_a_hash_that_the_hub_lists_wrongly(home: Home) -> None:
    home.hub.listed[BIG] = {"Sha256": "0" * 64}
    with pytest.raises(VerificationError, match=f"expected {'0' * 64}"):
        home.store.pull(Source("modelscope", REPO))


def test_a_size_that_the_listing_does_not_know(home: Home) -> None:
    home.hub.listed[BIG] = {"Size": 0}
    assert_whole(home.store.pull(Source("modelscope", REPO)))


def test_429_and_503_are_waited_out(home: Home, source: Source) -> None:
    home.hub.fault(f"cdn.*{BIG}", "status", times=1, value=429, headers={"Retry-After": "0"})
    home.hub.fault(f"cdn.*{BIG}", "status", times=1, value=503)
    assert_whole(home.store.pull(source))


def test_a_signed_link_that_ran_out_is_asked_for_again(home: Home, source: Source) -> None:
    home.hub.fault("/cdn/", "status", times=1, value=403)
    assert_whole(home.store.pull(source))


def test_an_etag_that_changes_midway_starts_the_file_over(home: Home, source: Source) -> None:
    slow = home.with_settings(segment_bytes=len(WEIGHTS), attempts=1)
    cut = home.hub.fault(f"cdn.*{BIG}", "cut", times=1, value=200_000)
    with pytest.raises(HubUnreachableError):
        slow.store.pull(source)
    assert cut.times == 0
    home.hub.fault(f"cdn.*{BIG}", "etag", value=2)
    assert_whole(home.store.pull(source))
    # If-Range made the server send everything again.
    assert home.hub.bodies(BIG) == 200_000 + len(WEIGHTS)


def test_a_dead_hub_is_unreachable(home: Home, source: Source, impatient_sdk: None) -> None:
    home.hub.fault("/api/", "status", value=500)
    with pytest.raises(HubUnreachableError):
        home.store.pull(source)


def test_a_hub_where_nobody_listens_is_named_with_the_reason(
    home: Home, source: Source, impatient_sdk: None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        lonely = home.with_settings(modelscope_endpoint=url, hf_endpoint=url, attempts=1)
        with pytest.raises(HubUnreachableError) as said:
            lonely.store.pull(source)
    assert "refused" in said.value.message
    assert "Pool(" not in said.value.message


def test_a_silent_server_times_out(home: Home) -> None:
    source = Source("hf", REPO)
    home.hub.fault("cdn", "hang")
    quick = home.with_settings(read_timeout=0.2, attempts=2)
    with pytest.raises(HubUnreachableError, match=BIG):
        quick.store.pull(source)


def test_unknown_names(home: Home, source: Source) -> None:
    with pytest.raises(HubNotFoundError, match="org/Absent"):
        home.store.pull(replace(source, name="org/Absent"))
    with pytest.raises(HubNotFoundError, match="v9"):
        home.store.pull(replace(source, revision="v9"))
    with pytest.raises(HubNotFoundError, match="no file") as caught:
        home.store.pull(replace(source, file="model.safetensor"))
    assert BIG in caught.value.hint


def test_a_token_is_needed_and_used(home: Home, source: Source) -> None:
    home.hub.token = "sesame-42"
    with pytest.raises(HubAuthError, match=r"Hugging Face|ModelScope") as caught:
        home.store.pull(source)
    assert "TOKEN" in caught.value.hint
    known = home.with_settings(modelscope_token="sesame-42", hf_token="sesame-42")
    assert_whole(known.store.pull(source))
    assert "sesame-42" not in repr(known.settings)


def test_a_token_is_not_sent_to_another_host(home: Home, source: Source) -> None:
    home.hub.token = "sesame-42"
    home.with_settings(modelscope_token="sesame-42", hf_token="sesame-42").store.pull(source)
    assert home.hub.asked("/cdn/")
    assert {seen.authorization for seen in home.hub.asked("/cdn/")} == {None}


def test_a_gated_model_says_where_to_accept(home: Home) -> None:
    home.hub.gated.add(REPO)
    with pytest.raises(HubAuthError, match="gated") as caught:
        home.store.pull(Source("hf", REPO))
    assert f"https://huggingface.co/{REPO}" in caught.value.hint


def test_a_full_disk_is_seen_before(home: Home) -> None:
    home.hub.listed[BIG] = {"Size": 10**18}
    with pytest.raises(DiskFullError, match="needs 10000"):
        home.store.pull(Source("modelscope", REPO))
    assert not home.hub.asked("/cdn/")


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_paths_that_leave_the_repository_are_refused(home: Home, source: Source, path: str) -> None:
    home.hub.repos[REPO][path] = b"evil"
    with pytest.raises(HubError, match="outside of the repository"):
        home.store.pull(source)
    assert not list(home.root.rglob("evil"))


def test_a_cancel_leaves_only_what_can_be_resumed(home: Home, source: Source) -> None:
    throttle = home.hub.fault("cdn", "throttle", value=100_000)
    cancel = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.phase == "downloading" and progress.done_bytes > 100_000:
            cancel.set()

    with pytest.raises(PullCancelledError):
        home.store.pull(source, cancel=cancel, progress=watch)
    assert home.store.find(source) is None
    assert {path.suffix for path in partials(home)} == {".part", ".journal"}
    home.hub.faults.remove(throttle)
    here = home.hub.bodies(BIG)
    assert_whole(home.store.pull(source))
    # What was on its way when the line was cut may have to come again, and no more than that.
    assert home.hub.bodies(BIG) <= len(WEIGHTS) + 4 * 64 * 1024
    assert here > 50_000


def test_a_cancel_does_not_wait_for_a_silent_server(home: Home) -> None:
    source = Source("modelscope", REPO)
    home.hub.fault("cdn", "hang")
    cancel = threading.Event()
    failed: list[BaseException] = []

    def pull() -> None:
        try:
            home.with_settings(read_timeout=60).store.pull(source, cancel=cancel)
        except PullCancelledError as error:
            failed.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    until(lambda: home.hub.asked("/cdn/"))
    cancel.set()
    thread.join(20)
    assert failed


def test_offline_takes_what_is_here(home: Home, source: Source) -> None:
    offline = home.with_settings(offline=True)
    with pytest.raises(OfflineError, match="nothing of it is here"):
        offline.store.pull(source)
    model = home.store.pull(source)
    asked = len(home.hub.requests)
    assert offline.store.pull(source) == model
    (model.path / BIG).resolve().unlink()
    with pytest.raises(OfflineError, match=BIG):
        offline.store.pull(source)
    assert len(home.hub.requests) == asked


def test_pins_go_over_what_the_hub_says(home: Home, source: Source) -> None:
    good = {BIG: (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())}
    home.store.pull(source, expect=good)
    bad = {BIG: (len(WEIGHTS), "1" * 64)}
    with pytest.raises(VerificationError, match="1" * 64):
        home.store.pull(source, expect=bad)
    with pytest.raises(VerificationError, match=r"absent\.bin"):
        home.store.pull(source, expect={"absent.bin": (1, "0" * 64)})


def test_a_cache_that_cannot_be_written_is_named(home: Home, source: Source) -> None:
    home.settings.modelscope_cache.write_text("a file")
    home.settings.hf_cache.write_text("a file")
    with pytest.raises(HubError, match=r"modelscope|hf"):
        home.store.pull(source)
