"""How the speech engine treats each field of a form; it refuses by itself (``yibu.speech.http.params``)."""

from __future__ import annotations

from yibu.engines.requests import RequestTable, done, ignored, passed, refused
from yibu.messages import tr

_SPEAKERS = tr("It names speakers A, B, … as they come. Leave it out")

_TRANSLATION = (
    *passed("file", "prompt", "response_format", "temperature"),
    *done(tr("the name that the engine knows the model by"), "model"),
)

SPEECH_REQUESTS = RequestTable(
    {
        "/v1/audio/transcriptions": (
            *_TRANSLATION,
            *passed("language", "stream", "timestamp_granularities", "keywords"),
            *refused(_SPEAKERS, "known_speaker_names", "known_speaker_references"),
            *refused(tr("It gives no log probabilities. Leave it out"), "include"),
            *refused(tr("One language is taken, or heard. Give it as 'language'"), "languages"),
            *ignored(tr("audio is always cut where nobody speaks"), "chunking_strategy"),
            *refused(
                tr("The engine cuts by settings of its own. Send 'auto'"),
                "chunking_strategy[type=server_vad]",
            ),
        ),
        "/v1/audio/translations": _TRANSLATION,
    }
)
