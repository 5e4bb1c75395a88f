"""A request's form fields, checked once, before anything is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from yibu.errors import InvalidRequestError, UnknownModelError
from yibu.messages import tr
from yibu.speech.answers.formats import RESPONSE_FORMATS
from yibu.speech.answers.languages import normalized
from yibu.speech.http.upload import Form, Upload
from yibu.speech.models.hotwords import parsed
from yibu.speech.stated import Stated, not_one_of, stated
from yibu.speech.types import RecognitionOptions, Recognizer

_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})
_PROMPT_CHARACTERS = 4096
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")
"""As JSON writes it; Python reads 0_1 and other scripts' digits too."""
_SPEAKERS = tr("It names speakers A, B, … as they come. Leave it out")
UNSUPPORTED = {
    "known_speaker_names": _SPEAKERS,
    "known_speaker_references": _SPEAKERS,
    "include": tr("It gives no log probabilities. Leave it out"),
    "languages": tr("One language is taken, or heard. Give it as 'language'"),
}
"""Fields that are refused, and alternatives."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A request's parameters."""

    options: RecognitionOptions
    response_format: str = "json"
    granularities: frozenset[str] = frozenset({"segment"})
    stream: bool = False
    said: Stated = field(default_factory=Stated)


def required_upload(form: Form) -> Upload:
    """Raises InvalidRequestError where the form has no file."""
    if form.upload is None:
        raise InvalidRequestError(
            "The form has no file: send the audio in the field 'file'",
            param="file",
            code="missing_required_parameter",
        )
    return form.upload


def check_model(form: Form, served_name: str, *, required: bool) -> None:
    """Raises where ``model`` is missing or another than the one served here."""
    model = form.first("model")
    if model is None and required:
        raise InvalidRequestError(
            "The field 'model' is missing; this server's is {served_name!r}",
            served_name=served_name,
            param="model",
            code="missing_required_parameter",
        )
    if model is not None and model != served_name:
        raise UnknownModelError(
            "The model {model!r} is not served here; {served_name!r} is",
            model=model[:128],
            served_name=served_name,
            param="model",
        )


def parse(
    form: Form, recognizer: Recognizer, task: str, *, tells_speakers: bool = False
) -> Parameters:
    """Parameters of a transcription or translation.

    Raises:
        InvalidRequestError: a field has a wrong value; ``param`` names it.
    """
    if task not in recognizer.tasks:
        raise InvalidRequestError(
            "The model {recognizer} cannot {task}; it can {tasks}",
            recognizer=recognizer.name,
            task=task,
            tasks=", ".join(recognizer.tasks),
            param="model",
        )
    response_format = _response_format(form, tells_speakers=tells_speakers)
    stream = _boolean(form, "stream", default=False)
    if stream and response_format not in {"json", "text", "diarized_json"}:
        raise InvalidRequestError(
            "stream=true sends events and does not go with response_format={response_format}",
            response_format=response_format,
            param="stream",
        )
    _refuse_unsupported(form)
    hotwords = _hotwords(form, recognizer)
    granularities = _granularities(form, response_format)
    translate = task == "translate"
    speakers = tells_speakers and response_format in {"verbose_json", "diarized_json"}
    options = RecognitionOptions(
        language=normalized(None if translate else form.first("language"), recognizer.languages),
        task="translate" if translate else "transcribe",
        prompt=_prompt(form),
        temperature=_temperature(form),
        words=speakers or "word" in granularities or response_format in {"srt", "vtt"},
        speakers=speakers,
        use_itn=_boolean(form, "use_itn", default=True),
        hotwords=hotwords,
    )
    return Parameters(
        options, response_format, granularities, stream, stated(form, required_upload(form))
    )


def _response_format(form: Form, *, tells_speakers: bool) -> str:
    response_format = form.first("response_format") or "json"
    if response_format not in RESPONSE_FORMATS:
        raise not_one_of("response_format", response_format, ", ".join(RESPONSE_FORMATS))
    if response_format == "diarized_json" and not tells_speakers:
        raise InvalidRequestError(
            "response_format is 'diarized_json', and this model runs without one for "
            "speakers. Ask for verbose_json, or give the model `speakers: "
            "iic/speech_campplus_sv_zh-cn_16k-common`",
            param="response_format",
        )
    return response_format


def _refuse_unsupported(form: Form) -> None:
    """Refuse OpenAI's fields that would change the answer and that no model here supports."""
    for name, why in UNSUPPORTED.items():
        if form.all(name):
            raise InvalidRequestError(
                "{name} is not supported by this model. {why}", name=name, why=why, param=name
            )
    cutting = next((value for value in form.all("chunking_strategy") if value != "auto"), None)
    if cutting:
        raise InvalidRequestError(
            "chunking_strategy is {cutting!r}; the engine cuts audio by settings of its "
            "own. Send 'auto'",
            cutting=cutting[:32],
            param="chunking_strategy",
        )


def _boolean(form: Form, name: str, *, default: bool) -> bool:
    value = (form.first(name) or str(default)).lower()
    if value not in _TRUE | _FALSE:
        raise not_one_of(name, value, tr("true or false"))
    return value in _TRUE


def _granularities(form: Form, response_format: str) -> frozenset[str]:
    asked = frozenset(map(str.strip, form.all("timestamp_granularities")))
    if others := asked - {"word", "segment"}:
        raise InvalidRequestError(
            "timestamp_granularities[] can be word and segment, not {others}",
            others=", ".join(repr(name[:32]) for name in sorted(others)),
            param="timestamp_granularities",
        )
    if asked and response_format != "verbose_json":
        raise InvalidRequestError(
            "timestamp_granularities[] goes with response_format=verbose_json only",
            param="timestamp_granularities",
        )
    return asked or frozenset({"segment"})


def _prompt(form: Form) -> str | None:
    prompt = form.first("prompt")
    if prompt is not None and len(prompt) > _PROMPT_CHARACTERS:
        raise InvalidRequestError(
            "prompt has {prompt_count} characters; {limit} are the limit",
            prompt_count=len(prompt),
            limit=_PROMPT_CHARACTERS,
            param="prompt",
        )
    return prompt


def _hotwords(form: Form, recognizer: Recognizer) -> tuple[str, ...]:
    """Words to listen for: OpenAI's ``keywords[]``, FunASR's ``hotwords`` (or ``hotword``), and the
    ``prompt``, for models that take them."""
    given = {name: form.all(name) for name in ("keywords", "hotwords", "hotword")}
    asked = next((name for name, values in given.items() if any(values)), None)
    if not recognizer.takes_hotwords:
        if asked is not None:
            raise InvalidRequestError(
                "{asked} is not supported by this model. Its kind takes no keywords: "
                "whisper takes them in 'prompt', and SeACo-Paraformer takes hotwords",
                asked=asked,
                param=asked,
            )
        return ()
    texts = [*given.pop("keywords"), *(text for values in given.values() for text in values)]
    texts += [_prompt(form) or ""]
    if sum(map(len, texts)) > _PROMPT_CHARACTERS:
        raise InvalidRequestError(
            "the hotwords have {length} characters; {limit} are the limit",
            length=sum(map(len, texts)),
            limit=_PROMPT_CHARACTERS,
            param=asked or "prompt",
        )
    return tuple(dict.fromkeys(word for text in texts for word in parsed(text)))


def _temperature(form: Form) -> float:
    value = form.first("temperature") or "0"
    temperature = float(value) if _NUMBER.fullmatch(value.strip()) else float("nan")
    if not 0.0 <= temperature <= 1.0:
        raise InvalidRequestError(
            "temperature is {value!r}; it is a number from 0 to 1",
            value=value[:32],
            param="temperature",
        )
    return temperature
