"""The official client against the gateway.

It is imported where it is used: every worker imports every file of tests, and few run these.
"""

from __future__ import annotations

import pytest

from .conftest import SPEECH, FakeBackend, Serve, chat
from .upstream import (
    DONE,
    LLAMA_CHAT,
    LLAMA_CHAT_STREAM,
    LLAMA_USAGE,
    Upstream,
    answering,
    sending,
    streaming,
)

KEY = "a-long-enough-key"


async def test_chat_stream_models_and_audio(serve: Serve, backend: FakeBackend) -> None:
    import openai

    async with Upstream(answering(LLAMA_CHAT)) as up, Upstream(answering({"text": "hi"})) as ears:
        backend.add("org/m", up)
        backend.add("ears", ears, capabilities=SPEECH)
        async with (
            serve(keys=(KEY,)) as gateway,
            openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=KEY, max_retries=0) as client,
        ):
            answer = await client.chat.completions.create(**chat("org/m"))
            assert answer.choices[0].message.content == "Hello"
            assert answer.usage is not None
            assert answer.usage.total_tokens == 34
            assert answer._request_id is not None

            up.behaviour = streaming(*LLAMA_CHAT_STREAM, LLAMA_USAGE, DONE)
            stream = await client.chat.completions.create(
                **chat("org/m"), stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[1].choices[0].delta.content == "hi"
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 2

            assert [model.id async for model in client.models.list()] == ["org/m", "ears"]
            assert (await client.models.retrieve("org/m")).owned_by == "yibu"

            heard = await client.audio.transcriptions.create(model="ears", file=b"RIFF")
            assert heard.text == "hi"


async def test_the_right_exception_for_each_error(serve: Serve, backend: FakeBackend) -> None:
    import openai

    async with Upstream(sending(close=True)) as up:
        backend.add("m", up)
        backend.add("asleep")
        async with serve(keys=(KEY,), max_body=10_000) as gateway:
            url = gateway.url + "/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
                create = client.chat.completions.create
                with pytest.raises(openai.NotFoundError) as missing:
                    await create(**chat("nobody"))
                assert missing.value.code == "model_not_found"
                with pytest.raises(openai.BadRequestError) as bad:
                    await create(**chat(temperature=3))
                assert bad.value.param == "temperature"
                with pytest.raises(openai.InternalServerError) as gone:
                    await create(**chat())
                assert gone.value.status_code == 502
                with pytest.raises(openai.InternalServerError) as asleep:
                    await create(**chat("asleep"))
                assert asleep.value.status_code == 503
                with pytest.raises(openai.APIStatusError) as large:
                    await create(**chat(user="x" * 20_000))
                assert large.value.status_code == 413
                up.behaviour = streaming(LLAMA_CHAT_STREAM[0], close=True)
                stream = await create(**chat(stream=True))
                with pytest.raises(openai.APIError, match="closed the connection"):
                    async for _ in stream:
                        pass
            async with openai.AsyncOpenAI(base_url=url, api_key="wrong-key") as stranger:
                with pytest.raises(openai.AuthenticationError):
                    await stranger.models.list()
