"""Request fields that change no answer: nobody has to heed them, whatever engine serves the model."""

from __future__ import annotations

from yibu.engines.requests import ignored, refused
from yibu.messages import tr

ACCOUNTING = (
    *ignored(tr("says who asks, for OpenAI's own accounting"), "user", "safety_identifier"),
    *ignored(tr("labels of the caller's own, which nothing here stores"), "metadata"),
    *ignored(tr("how fast OpenAI serves it, and at what price"), "service_tier"),
    *ignored(
        tr("how OpenAI caches prompts; engines cache them of their own accord"),
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    ),
    *ignored(tr("a hint on the answer's length that only OpenAI's models know"), "verbosity"),
    *refused(
        tr("Nothing is stored here. Leave 'store' out, or send false"), "store", unless=(False,)
    ),
    *refused(tr("OpenAI's moderation service is not here. Leave it out"), "moderation"),
)
"""Of chat completions and responses."""

STREAM = (
    *ignored(tr("padding against eavesdroppers; nothing of it is in the text"), "stream_options.include_obfuscation"),
)  # fmt: skip

HOSTED = tr(
    "It is a service of OpenAI's, which no engine has. Give a tool of type 'function' "
    "that your own program carries out"
)
STATE = tr("Responses are not kept here. Send the whole conversation as 'input'")
