"""The engine's HTTP routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from yibu.errors import UnknownModelError
from yibu.prometheus import CONTENT_TYPE
from yibu.speech.answers.formats import (
    CONTENT_TYPES,
    Transcript,
    body,
    delta_event,
    done_event,
    script_text,
    segment_event,
    separated,
)
from yibu.speech.answers.responses import EventStream, JSONAnswer, unless_gone
from yibu.speech.engine import Serving, SpeechEngine
from yibu.speech.http import params
from yibu.speech.http.params import Parameters
from yibu.speech.http.upload import Upload, read_form
from yibu.speech.live.routes import live_routes
from yibu.speech.types import Recognized


def routes(engine: SpeechEngine) -> list[BaseRoute]:
    """Every route, bound to one engine."""
    handlers = _Handlers(engine)
    return [
        Route("/v1/audio/transcriptions", handlers.transcriptions, methods=["POST"]),
        Route("/v1/audio/translations", handlers.translations, methods=["POST"]),
        Route("/recognize/", handlers.recognize, methods=["POST"]),
        Route("/recognize", handlers.recognize, methods=["POST"]),
        Route("/v1/models", handlers.models),
        Route("/v1/models/{model:path}", handlers.model),
        Route("/health", handlers.health),
        Route("/metrics", handlers.metrics),
        *live_routes(engine),
    ]


class _Handlers:
    def __init__(self, engine: SpeechEngine) -> None:
        self._engine = engine

    async def transcriptions(self, request: Request) -> Response:
        """OpenAI's createTranscription."""
        return await self._audio(request, "transcribe")

    async def translations(self, request: Request) -> Response:
        """OpenAI's createTranslation: into English, whisper only."""
        return await self._audio(request, "translate")

    async def recognize(self, request: Request) -> Response:
        """The FastAPI script's route: ``{"result": text}``."""
        with ExitStack() as owned:
            serving, upload, asked = await self._accept(request, owned, "transcribe", strict=False)
            transcript = await unless_gone(request.receive, _transcript(serving, upload, asked))
            return JSONAnswer({"result": script_text(transcript)}, headers=_seconds(transcript))

    async def _audio(self, request: Request, task: str) -> Response:
        with ExitStack() as owned:
            serving, upload, asked = await self._accept(request, owned, task, strict=True)
            if asked.stream:
                return EventStream(_events(serving, upload, asked), owned.pop_all())
            transcript = await unless_gone(request.receive, _transcript(serving, upload, asked))
        answer = body(transcript, asked.response_format, asked.granularities)
        if isinstance(answer, str):
            kind = CONTENT_TYPES[asked.response_format]
            return Response(answer, media_type=kind, headers=_seconds(transcript))
        return JSONAnswer(answer)

    async def _accept(
        self, request: Request, owned: ExitStack, task: str, *, strict: bool
    ) -> tuple[Serving, Upload, Parameters]:
        """Take a place, read the form and check it; ``owned`` closes place and upload."""
        serving = self._engine.serving()
        owned.enter_context(self._engine.place())
        settings = self._engine.settings
        form = owned.enter_context(await read_form(request, settings.limits))
        params.check_model(form, settings.served_name, required=strict)
        upload = params.required_upload(form)
        return (
            serving,
            upload,
            params.parse(
                form, serving.recognizer, task, tells_speakers=serving.transcriber.tells_speakers
            ),
        )

    async def models(self, _: Request) -> Response:
        return JSONAnswer({"object": "list", "data": [self._model_object()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name != self._engine.settings.served_name:
            raise UnknownModelError(
                "The model {name!r} is not served here", name=name[:128], param="model"
            )
        return JSONAnswer(self._model_object())

    async def health(self, _: Request) -> Response:
        """200 once the model is loaded and warm, unless it hangs; else 503."""
        self._engine.check_health()
        return JSONAnswer({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        return Response(self._engine.metrics.render(), media_type=CONTENT_TYPE)

    def _model_object(self) -> dict[str, Any]:
        return {
            "id": self._engine.settings.served_name,
            "object": "model",
            "created": self._engine.created,
            "owned_by": "yibu",
        }


def _seconds(transcript: Transcript) -> dict[str, str]:
    """The header with the audio's seconds, for the gateway's usage: not every format has them."""
    return {"x-audio-seconds": f"{transcript.heard.seconds:.3f}"}


async def _transcript(serving: Serving, upload: Upload, asked: Parameters) -> Transcript:
    segments: list[Recognized] = []
    heard = await serving.transcriber.run(upload.file, asked.said, asked.options, segments.append)
    return Transcript(segments, heard, asked.options)


async def _events(
    serving: Serving, upload: Upload, asked: Parameters
) -> AsyncGenerator[dict[str, Any], None]:
    """Deltas as segments finish, then the whole text. Closing it cancels the work."""
    finished: asyncio.Queue[Recognized | None] = asyncio.Queue()
    segments: list[Recognized] = []
    work = asyncio.create_task(
        serving.transcriber.run(upload.file, asked.said, asked.options, finished.put_nowait),
        name="streamed transcription",
    )
    work.add_done_callback(lambda _: finished.put_nowait(None))
    before, spoken = "", 0
    try:
        while (segment := await finished.get()) is not None:
            segments.append(segment)
            if asked.response_format == "diarized_json":
                if segment.text:
                    spoken += 1
                    yield segment_event(spoken, segment)
            elif piece := separated(before, segment.text):
                before = piece
                yield delta_event(piece)
        yield done_event(Transcript(segments, await work, asked.options))
    finally:
        work.cancel()
        await asyncio.wait({work})
