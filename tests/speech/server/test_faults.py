"""What went wrong is said to be whose fault it is: the file's, or this program's."""

from __future__ import annotations

import pytest

pytest.importorskip("av", reason="run with a speech environment's Python")

import av.error

from yibu.errors import RequestError
from yibu.speech.transcriber import _guarded


@pytest.mark.parametrize(
    "error", [av.error.InvalidDataError(1, "damaged"), ValueError(), KeyError()]
)
def test_what_a_damaged_file_raises_is_the_clients_fault(error: Exception) -> None:
    def decode() -> None:
        raise error

    with pytest.raises(RequestError):
        _guarded(decode)


def test_a_fault_of_the_program_is_no_bad_request() -> None:
    """A decoder that has lost a parameter once answered every file with 400."""
    with pytest.raises(TypeError):
        _guarded(lambda: av.open("x", no_such_parameter=True))
