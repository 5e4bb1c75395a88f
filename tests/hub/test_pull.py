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
from tests.hub.conftest import FILES, REPO, WEIGHTS, Machine
from tests.support.polling import until
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


def partials(machine: Machine) -> list[Path]:
    return [*machine.root.rglob("*.part"), *machine.root.rglob("*.journal")]


def test_everything_comes_and_is_verified(machine: Machine, source: Source) -> None:
    seen: list[Progress] = []
    model = machine.store.pull(source, progress=seen.append)
    assert_whole(model)
    total = sum(map(len, FILES.values()))
    assert seen[0].phase == "listing"
    assert (seen[-1].phase, seen[-1].done_bytes, seen[-1].total_bytes) == ("done", total, total)
    assert not partials(machine)
    assert machine.store.find(source) == model


def test_large_files_come_in_parallel_ranges(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    ranges = {seen.range for seen in machine.hub.asked(f"/cdn/{REPO}/{BIG}")}
    assert len(ranges) == -(-len(WEIGHTS) // machine.settings.segment_bytes)
    assert machine.hub.bodies(BIG) == len(WEIGHTS)


def test_a_second_pull_fetches_nothing(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    sent = dict(machine.hub.sent)
    assert_whole(machine.store.pull(source))
    assert machine.hub.sent == sent


def test_a_commit_needs_no_hub_at_all(machine: Machine) -> None:
    source = Source("hf", REPO, COMMIT)
    machine.store.pull(source)
    asked = len(machine.hub.requests)
    assert_whole(machine.store.pull(source))
    assert len(machine.hub.requests) == asked


def test_when_the_hub_is_away_what_is_here_is_used(
    machine: Machine, source: Source, impatient_sdk: None
) -> None:
    machine.store.pull(source)
    machine.hub.fault("/api/", "status", value=503)
    assert_whole(machine.store.pull(source))


def test_one_file(machine: Machine, source: Source) -> None:
    model = machine.store.pull(replace(source, file=BIG))
    assert model.path.read_bytes() == WEIGHTS
    assert [file.path for file in model.files] == [BIG]
    assert not machine.hub.asked("config.json")


def test_one_shard_brings_its_set(machine: Machine, source: Source) -> None:
    names = [f"q4-{number:05}-of-00002.gguf" for number in (1, 2)]
    machine.hub.repos[REPO] |= {name: name.encode() * 200 for name in names}
    model = machine.store.pull(replace(source, file=names[0]))
    assert sorted(file.path for file in model.files) == names
    assert model.path.name == names[0]


def test_more_files_than_a_process_may_open(machine: Machine) -> None:
    machine.hub.repos[REPO] = {f"{number}.json": b"%d" % number for number in range(150)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        model = machine.store.pull(Source("modelscope", REPO))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert_whole(model, machine.hub.repos[REPO])


def test_a_changed_file_is_fetched_alone(machine: Machine, source: Source) -> None:
    machine.store.pull(source)
    machine.hub.repos[REPO]["config.json"] = b'{"model_type": "other"}'
    before = machine.hub.bodies(BIG)
    assert_whole(machine.store.pull(source), machine.hub.repos[REPO])
    assert machine.hub.bodies(BIG) == before


@pytest.mark.parametrize("bytes_before", [0, 1, 30_000])
def test_a_cut_connection_goes_on_where_it_broke(
    machine: Machine, source: Source, bytes_before: int
) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "cut", times=4, value=bytes_before)
    assert_whole(machine.store.pull(source))
    assert machine.hub.bodies(BIG) == len(WEIGHTS)


def test_a_server_without_ranges(machine: Machine, source: Source) -> None:
    machine.hub.fault(BIG, "ignore-range")
    assert_whole(machine.store.pull(source))


def test_a_server_without_ranges_that_always_breaks_is_given_up(
    machine: Machine, source: Source
) -> None:
    machine.hub.fault(BIG, "ignore-range")
    machine.hub.fault(f"cdn.*{BIG}", "cut", value=100_000)
    with pytest.raises(HubUnreachableError, match=BIG):
        machine.store.pull(source)


def test_bad_bytes_are_fetched_once_more(machine: Machine, source: Source) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "corrupt", times=1)
    assert_whole(machine.store.pull(source))


@pytest.mark.parametrize("path", [BIG, "config.json"])
def test_bytes_that_stay_bad_are_refused(machine: Machine, source: Source, path: str) -> None:
    machine.hub.fault(f"{path}$", "corrupt")
    with pytest.raises(VerificationError, match=f"{path}.*found .*, expected "):
        machine.store.pull(source)
    assert machine.store.find(source) is None
    assert not [partial for partial in partials(machine) if path in partial.name]


def test_zero_bytes_are_said_in_words(machine: Machine, source: Source) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "empty")
    with pytest.raises(VerificationError, match="zero bytes"):
        machine.store.pull(source)


def test_a_hash_that_the_hub_lists_wrongly(machine: Machine) -> None:
    machine.hub.listed[BIG] = {"Sha256": "0" * 64}
    with pytest.raises(VerificationError, match=f"expected {'0' * 64}"):
        machine.store.pull(Source("modelscope", REPO))


def test_a_size_that_the_listing_does_not_know(machine: Machine) -> None:
    machine.hub.listed[BIG] = {"Size": 0}
    assert_whole(machine.store.pull(Source("modelscope", REPO)))


def test_429_and_503_are_waited_out(machine: Machine, source: Source) -> None:
    machine.hub.fault(f"cdn.*{BIG}", "status", times=1, value=429, headers={"Retry-After": "0"})
    machine.hub.fault(f"cdn.*{BIG}", "status", times=1, value=503)
    assert_whole(machine.store.pull(source))


def test_a_signed_link_that_ran_out_is_asked_for_again(machine: Machine, source: Source) -> None:
    machine.hub.fault("/cdn/", "status", times=1, value=403)
    assert_whole(machine.store.pull(source))


def test_an_etag_that_changes_midway_starts_the_file_over(machine: Machine, source: Source) -> None:
    slow = machine.with_settings(segment_bytes=len(WEIGHTS), attempts=1)
    machine.hub.fault(f"cdn.*{BIG}", "cut", times=1, value=200_000)
    with pytest.raises(HubUnreachableError):
        slow.store.pull(source)
    machine.hub.fault(f"cdn.*{BIG}", "etag", value=2)
    assert_whole(machine.store.pull(source))
    # If-Range made the server send everything again.
    assert machine.hub.bodies(BIG) == 200_000 + len(WEIGHTS)


def test_a_dead_hub_is_unreachable(machine: Machine, source: Source, impatient_sdk: None) -> None:
    machine.hub.fault("/api/", "status", value=500)
    with pytest.raises(HubUnreachableError):
        machine.store.pull(source)


def test_a_hub_where_nobody_listens_is_named_with_the_reason(
    machine: Machine, source: Source, impatient_sdk: None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        lonely = machine.with_settings(modelscope_endpoint=url, hf_endpoint=url, attempts=1)
        with pytest.raises(HubUnreachableError) as said:
            lonely.store.pull(source)
    assert "refused" in said.value.message
    assert "Pool(" not in said.value.message


def test_a_silent_server_times_out(machine: Machine) -> None:
    source = Source("hf", REPO)
    machine.hub.fault("cdn", "hang")
    quick = machine.with_settings(read_timeout=0.2, attempts=2)
    with pytest.raises(HubUnreachableError, match=BIG):
        quick.store.pull(source)


def test_unknown_names(machine: Machine, source: Source) -> None:
    with pytest.raises(HubNotFoundError, match="org/Absent"):
        machine.store.pull(replace(source, name="org/Absent"))
    with pytest.raises(HubNotFoundError, match="v9"):
        machine.store.pull(replace(source, revision="v9"))
    with pytest.raises(HubNotFoundError, match="no file") as caught:
        machine.store.pull(replace(source, file="model.safetensor"))
    assert BIG in caught.value.hint


def test_a_token_is_needed_and_used(machine: Machine, source: Source) -> None:
    machine.hub.token = "sesame-42"
    with pytest.raises(HubAuthError, match=r"Hugging Face|ModelScope") as caught:
        machine.store.pull(source)
    assert "TOKEN" in caught.value.hint
    known = machine.with_settings(modelscope_token="sesame-42", hf_token="sesame-42")
    assert_whole(known.store.pull(source))
    assert "sesame-42" not in repr(known.settings)


def test_a_token_is_not_sent_to_another_host(machine: Machine, source: Source) -> None:
    machine.hub.token = "sesame-42"
    machine.with_settings(modelscope_token="sesame-42", hf_token="sesame-42").store.pull(source)
    assert machine.hub.asked("/cdn/")
    assert {(seen.authorization, seen.cookie) for seen in machine.hub.asked("/cdn/")} == {
        (None, None)
    }
    cookies = {seen.cookie for seen in machine.hub.asked("FilePath=")}
    assert cookies == ({"m_session_id=sesame-42"} if source.scheme == "modelscope" else set())


def test_a_gated_model_says_where_to_accept(machine: Machine) -> None:
    machine.hub.gated.add(REPO)
    with pytest.raises(HubAuthError, match="gated") as caught:
        machine.store.pull(Source("hf", REPO))
    assert f"https://huggingface.co/{REPO}" in caught.value.hint


def test_a_full_disk_is_seen_before(machine: Machine) -> None:
    machine.hub.listed[BIG] = {"Size": 10**18}
    with pytest.raises(DiskFullError, match=r"needs .* more in .* are free"):
        machine.store.pull(Source("modelscope", REPO))
    assert not machine.hub.asked("/cdn/")


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_paths_that_leave_the_repository_are_refused(
    machine: Machine, source: Source, path: str
) -> None:
    machine.hub.repos[REPO][path] = b"evil"
    with pytest.raises(HubError, match="outside of the repository"):
        machine.store.pull(source)
    assert not list(machine.root.rglob("evil"))


def test_a_cancel_leaves_only_what_can_be_resumed(machine: Machine, source: Source) -> None:
    throttle = machine.hub.fault("cdn", "throttle", value=100_000)
    cancel = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.phase == "downloading" and progress.done_bytes > 100_000:
            cancel.set()

    with pytest.raises(PullCancelledError):
        machine.store.pull(source, cancel=cancel, progress=watch)
    assert machine.store.find(source) is None
    assert {path.suffix for path in partials(machine)} == {".part", ".journal"}
    machine.hub.faults.remove(throttle)
    here = machine.hub.bodies(BIG)
    assert_whole(machine.store.pull(source))
    # What was on its way when the line was cut may have to come again, and no more than that.
    assert machine.hub.bodies(BIG) <= len(WEIGHTS) + 4 * 64 * 1024
    assert here > 50_000


def test_a_cancel_does_not_wait_for_a_silent_server(machine: Machine) -> None:
    source = Source("modelscope", REPO)
    machine.hub.fault("cdn", "hang")
    cancel = threading.Event()
    failed: list[BaseException] = []

    def pull() -> None:
        try:
            machine.with_settings(read_timeout=60).store.pull(source, cancel=cancel)
        except PullCancelledError as error:
            failed.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    until(lambda: machine.hub.asked("/cdn/"))
    cancel.set()
    thread.join(60)
    assert failed


def test_offline_takes_what_is_here(machine: Machine, source: Source) -> None:
    offline = machine.with_settings(offline=True)
    with pytest.raises(OfflineError, match="nothing of it is here"):
        offline.store.pull(source)
    model = machine.store.pull(source)
    asked = len(machine.hub.requests)
    assert offline.store.pull(source) == model
    (model.path / BIG).resolve().unlink()
    with pytest.raises(OfflineError, match=BIG):
        offline.store.pull(source)
    assert len(machine.hub.requests) == asked


def test_pins_go_over_what_the_hub_says(machine: Machine, source: Source) -> None:
    good = {BIG: (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())}
    machine.store.pull(source, expect=good)
    bad = {BIG: (len(WEIGHTS), "1" * 64)}
    with pytest.raises(VerificationError, match="1" * 64):
        machine.store.pull(source, expect=bad)
    with pytest.raises(VerificationError, match=r"absent\.bin"):
        machine.store.pull(source, expect={"absent.bin": (1, "0" * 64)})


def test_a_cache_that_cannot_be_written_is_named(machine: Machine, source: Source) -> None:
    machine.settings.modelscope_cache.write_text("a file")
    machine.settings.hf_cache.write_text("a file")
    with pytest.raises(HubError, match=r"modelscope|hf"):
        machine.store.pull(source)


def test_what_the_hub_withdrew_is_not_left_beside_the_new_weights(
    machine: Machine, source: Source
) -> None:
    """A branch's files of another sharding: an engine would load the old ones as well."""
    files = machine.hub.repos[REPO]
    old = machine.store.pull(replace(source, file="config.json"))
    model = machine.store.pull(source)
    linked = machine.store.pull(source, cache_dir=machine.root / "links").path
    files["renamed.safetensors"] = files.pop(BIG)
    files["sub2/new.json"] = files.pop("sub/tokenizer.json")
    del files["config.json"]
    machine.store.pull(source, cache_dir=machine.root / "links")
    assert {path.relative_to(linked).as_posix() for path in linked.rglob("*.*")} == {
        *files, "config.json", ".yibu.json"
    }  # fmt: skip
    there = {path.relative_to(model.path).as_posix() for path in model.path.rglob("*.*")}
    assert there == {*files, "config.json"}, "a file that another source names stays"
    assert machine.store.find(old.source) is not None
    assert not (model.path / "sub").exists()
