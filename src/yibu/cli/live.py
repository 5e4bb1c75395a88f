"""``yibu transcribe --live``: audio from a microphone or a pipe, text as it is spoken."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlencode

from yibu.cli import output
from yibu.cli.connect import Access
from yibu.errors import NotRunningError, UsageError, YibuError
from yibu.messages import tr
from yibu.node.tasks import in_own_thread
from yibu.upstream.connection import UpstreamError
from yibu.upstream.websocket import ClosedError, EngineSocket, HandshakeRefusedError

LiveFormat = Literal["text", "srt", "json"]

_PIECE = 32 * 1024
"""Bytes that are read and sent at once, at most."""
_RATES = (16_000, 48_000, 44_100, 32_000, 24_000, 22_050, 8_000)
"""Sampling rates of live sessions, the best first."""
_MICROPHONE_SECONDS = 0.1
_HEADERS = {
    b"RIFF": "audio/wav",
    b"OggS": "audio/ogg",
    b"\x1aE\xdf\xa3": "audio/webm",
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
}
"""How the files begin that may come through the pipe; everything else is raw samples."""
_LAST, _END = "last", "end"
_TRANSCRIPTION = "conversation.item.input_audio_transcription."
_DIM, _PLAIN, _CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[K"


def transcribe_live(
    access: Access,
    model: str,
    *,
    from_pipe: bool,
    device: str | None,
    language: str | None,
    rate: int,
    output_format: LiveFormat,
) -> None:
    """Print what is said until the audio ends or Ctrl-C.

    Raises:
        YibuError: there is no audio, or the gateway refused it.
    """
    screen = _Screen(output_format)
    with ExitStack() as owned:
        if from_pipe:
            source: Callable[[], bytes] = lambda: os.read(sys.stdin.fileno(), _PIECE)  # noqa: E731
        else:
            source, rate = owned.enter_context(_microphone(device))
            output.say("Listening. Ctrl-C ends it.")
        asyncio.run(_run(access, model, source, language, rate, screen))


@contextmanager
def _microphone(device: str | None) -> Iterator[tuple[Callable[[], bytes], int]]:
    """What reads a tenth of a second at a time, and its sample rate: 16 kHz, or another that the device has."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise UsageError(
            "The microphone needs the package sounddevice, with PortAudio: {error}",
            error=error,
            hint="pip install sounddevice (Debian: apt install libportaudio2), or pipe the sound "
            "in: ffmpeg -f alsa -i default -f s16le -ar 16000 -ac 1 - | yibu transcribe --live -",
        ) from error
    chosen: str | int | None = int(device) if device and device.isdecimal() else device
    how = {"device": chosen, "channels": 1, "dtype": "int16"}
    rate = _RATES[0]
    try:
        for rate in _RATES:
            with suppress(sounddevice.PortAudioError):
                sounddevice.check_input_settings(samplerate=rate, **how)
                break
        stream = sounddevice.RawInputStream(samplerate=rate, **how)
    except (sounddevice.PortAudioError, ValueError) as error:
        known = "; ".join(str(sounddevice.query_devices()).splitlines()) or tr("none")
        raise UsageError(
            "The microphone {device} cannot be opened: {error}",
            device=device or tr("(the default one)"),
            error=error,
            known=known,
            hint="--device takes a name or a number of: {known}",
        ) from error
    reading = threading.Lock()  # PortAudio must not close a stream that another thread reads

    def read() -> bytes:
        try:
            with reading:
                return bytes(stream.read(int(rate * _MICROPHONE_SECONDS))[0])
        except sounddevice.PortAudioError as error:  # the device was unplugged
            raise OSError(str(error)) from error

    stream.start()
    try:
        yield read, rate
    finally:
        with reading:
            stream.close()


async def _run(
    access: Access,
    model: str,
    source: Callable[[], bytes],
    language: str | None,
    rate: int,
    screen: _Screen,
) -> None:
    target = "/v1/realtime?" + urlencode({"intent": "transcription", "model": model})
    try:
        socket = await EngineSocket.open(access.endpoint, target, [], ["realtime"])
    except UpstreamError as error:
        raise NotRunningError(
            "Nothing answers at {url}: {error_message}.",
            url=access.url,
            error_message=error.message,
            hint="Start it with: yibu up",
        ) from error
    except HandshakeRefusedError as error:
        raise _refusal(error) from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    speaking = asyncio.create_task(_speak(socket, source, language, rate, stop), name="speaking")
    try:
        await _listen(socket, screen, speaking)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        socket.close()
        screen.done()


async def _speak(
    socket: EngineSocket,
    source: Callable[[], bytes],
    language: str | None,
    rate: int,
    stop: asyncio.Event,
) -> None:
    """Send the audio, up to where it cannot be read. The second commit at its end finds nothing left, and
    the error that says so is the sign that everything before it was heard."""
    begun = False
    try:
        async for data in _read(source, stop):
            if not begun:
                await _send(socket, "session.update", session=_session(data, language, rate))
                begun = True
            await _send(socket, "input_audio_buffer.append", audio=base64.b64encode(data).decode())
    finally:
        await _send(socket, "input_audio_buffer.commit", event_id=_LAST)
        await _send(socket, "input_audio_buffer.commit", event_id=_END)


async def _read(source: Callable[[], bytes], stop: asyncio.Event) -> AsyncIterator[bytes]:
    """The bytes of ``source``, until it ends or is to stop. Raises YibuError where it cannot be read."""
    stopping = asyncio.create_task(stop.wait(), name="stopping")
    try:
        while not stop.is_set():
            # A pipe without a writer keeps nobody from leaving.
            reading = asyncio.create_task(in_own_thread(source), name="reading")
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                return
            if not (data := reading.result()):
                return
            yield data
    except OSError as error:
        raise YibuError("The audio cannot be read: {error}.", error=error) from error
    finally:
        stopping.cancel()


async def _send(socket: EngineSocket, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


def _session(data: bytes, language: str | None, rate: int) -> dict[str, Any]:
    """The session's settings for audio that begins with ``data``."""
    known = next((kind for head, kind in _HEADERS.items() if data.startswith(head)), None)
    sound: dict[str, Any] = {
        "format": {"type": known} if known else {"type": "audio/pcm", "rate": rate}
    }
    if language:
        sound["transcription"] = {"language": language}
    return {"type": "transcription", "audio": {"input": sound}}


async def _listen(socket: EngineSocket, screen: _Screen, speaking: asyncio.Task[None]) -> None:
    """Show events until every utterance has its final text."""
    waiting: set[str] = set()
    ended = False
    while not (ended and not waiting):
        try:
            event = json.loads(await socket.receive())
        except ClosedError as error:
            raise YibuError(
                "The session ended: {reason}.",
                reason=error.reason or error.code,
                hint="See why: yibu logs",
            ) from error
        kind = event["type"]
        if kind == "error":
            ended = _ended(event["error"]) or ended
        elif kind == "input_audio_buffer.committed":
            waiting.add(event["item_id"])
        elif kind.startswith(_TRANSCRIPTION):
            screen.show(kind.removeprefix(_TRANSCRIPTION), event)
            if kind.endswith((".completed", ".failed")):
                waiting.discard(event["item_id"])
    await speaking


def _ended(fault: dict[str, Any]) -> bool:
    """Whether the error answers the last commit; that there was nothing left for the one before it is
    no fault. Raises YibuError for one that is."""
    if fault["event_id"] not in (_LAST, _END):
        raise YibuError(fault["message"])
    return bool(fault["event_id"] == _END)


class _Screen:
    """Final texts on stdout, one a line; on a terminal, partial text in dim letters below them."""

    def __init__(self, output_format: LiveFormat) -> None:
        self._format = output_format
        self._dim = output_format == "text" and sys.stdout.isatty()
        self._open: dict[str, str] = {}
        self._cues = 0
        self._named: set[str] = set()
        """Items whose text was printed with its speakers."""

    def show(self, kind: str, event: dict[str, Any]) -> None:
        """Show an event of a transcription."""
        if kind == "delta":
            self._open[event["item_id"]] = self._open.get(event["item_id"], "") + event["delta"]
            self._draw()
        elif kind == "segment":
            self._segment(event)
        else:
            self._final(event)

    def _segment(self, segment: dict[str, Any]) -> None:
        """``speaker`` is empty where speakers are not told apart."""
        speaker, text = segment["speaker"], segment["text"]
        named = f"{speaker}: {text}" if speaker else text
        if self._format == "json":
            fields = {name: segment[name] for name in ("start", "end", "text")}
            fields |= {"speaker": speaker} if speaker else {}
            self._write(json.dumps(fields, ensure_ascii=False))
        elif self._format == "srt":
            self._cues += 1
            times = f"{_clock(segment['start'])} --> {_clock(segment['end'])}"
            self._write(f"{self._cues}\n{times}\n{named}\n")
        elif speaker:
            self._named.add(segment["item_id"])
            self._write(named)

    def _final(self, event: dict[str, Any]) -> None:
        self._open.pop(event["item_id"], None)
        if "error" in event:
            output.talk(event["error"]["message"])
        elif self._format == "text" and event["transcript"] and event["item_id"] not in self._named:
            self._write(event["transcript"])
        self._named.discard(event["item_id"])
        self._draw()

    def done(self) -> None:
        self._open.clear()
        self._draw()

    def _write(self, line: str) -> None:
        output.data((_CLEAR if self._dim else "") + line)
        output.flush()

    def _draw(self) -> None:
        if self._dim:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
            text = "".join(self._open.values())[-(columns - 1) // 2 :]  # a wide one takes two
            sys.stdout.write(f"{_CLEAR}{_DIM}{text}{_PLAIN}" if text else _CLEAR)
            output.flush()


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"


def _refusal(refused: HandshakeRefusedError) -> YibuError:
    try:
        message = str(json.loads(refused.body)["error"]["message"])
    except (ValueError, TypeError, LookupError):
        message = tr("The gateway refused the session.")
    return YibuError(tr("{message} (HTTP {status})", message=message, status=refused.status))
