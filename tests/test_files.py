"""Files that are written whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from yibu.files import write_new, write_whole


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "below" / "file"
    write_whole(file, "one", 0o644)
    write_whole(file, "two \udce9")  # a byte that is no text comes through as it is
    assert file.read_bytes() == b"two \xe9"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["file"]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - of several kinds, with the file
            write_whole(path, "new")
        assert caught.value.filename == str(path)
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
