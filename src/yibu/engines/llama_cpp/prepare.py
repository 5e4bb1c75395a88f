"""Rewrites requests so that llama.cpp does what they ask for.

llama.cpp turns requests of ``/v1/responses`` and ``/v1/messages`` into chat requests
(``tools/server/server-chat.cpp``); what that step drops is put into the words that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from yibu.engines.answers import objects
from yibu.engines.llama_cpp import steps
from yibu.engines.llama_cpp.schemas import express
from yibu.engines.requests import Body, ModelContext, Prepare, Steps, as_object, refusal
from yibu.engines.rows import prepare_best_of, prepare_rerank
from yibu.engines.tool_choice import choose_tools
from yibu.errors import InvalidRequestError
from yibu.messages import tr

_CHARACTERS_ONLY = tr(
    "A grammar that names tokens ends llama.cpp when the model's end token is among "
    "them. Write the grammar in characters"
)
_NO_DIMENSIONS = tr(
    "The model does not say that its vectors may be cut (Matryoshka). Leave 'dimensions' out; "
    "where you know the lengths it was trained for, give them: options: {dimensions: [256, 512]}"
)


def prepare_chat(body: Body, asked: ModelContext) -> None:
    _say_refusals(body.get("messages", []))
    _check_grammar(body, asked)
    _check_biases(body, asked)
    _wanted_schema(body, asked)
    for index, tool in enumerate(body.get("tools") or ()):
        name = f"tools[{index}].function"
        _keep_strictly(tool.get("function"), "parameters", name, asked)
    if "tool_choice" in body:
        body["tool_choice"] = choose_tools(body, asked)
    if body.get("logprobs"):
        # With none beside it llama.cpp leaves a token's own out, and unasked it gives twenty.
        body["top_logprobs"] = max(1, body.get("top_logprobs", 0))


def _wanted_schema(body: Body, asked: ModelContext) -> Any:
    """The schema of a ``response_format``; None where the answer may be any text."""
    wanted = as_object(body.get("response_format"))
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    named = as_object(wanted.get("json_schema"))
    _keep_strictly(named, "schema", "response_format.json_schema", asked)
    return named.get("schema")


def _say_refusals(messages: list[Body]) -> None:
    """Move refusals into the content, where llama.cpp reads them."""
    for message in messages:
        refusal_ = message.pop("refusal", None)
        content = message.get("content")
        if content is None and refusal_:
            message["content"] = refusal_
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "refusal":
                part |= {"type": "text", "text": part.pop("refusal")}


def prepare_responses(body: Body, asked: ModelContext) -> None:
    body.pop("top_logprobs", None)  # 0, for others are refused: llama.cpp refuses that too
    if isinstance(items := body.get("input"), list):
        body["input"] = [whole for item in items if (whole := _whole_item(item)) is not None]
    for index, tool in enumerate(body.get("tools") or ()):
        if tool.get("type", "function") == "function":
            # A tool of this API is strict unless it says otherwise; only one that says so is held to it.
            _keep_strictly(tool, "parameters", f"tools[{index}]", asked)
    if "tool_choice" in body:
        body["tool_choice"] = choose_tools(body, asked)
    wanted = as_object(as_object(body.get("text")).get("format"))
    match wanted.get("type"):
        case "json_schema":
            _keep_strictly(wanted, "schema", "text.format", asked)
            named = {key: value for key, value in wanted.items() if key != "type"}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        case "json_object":
            body["response_format"] = {"type": "json_object"}


def _whole_item(item: Any) -> Any:
    """An item of the conversation with the fields that llama.cpp requires; None where a model could
    read nothing of it."""
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    if kind == "reasoning" and not item.get("content"):
        return None
    if kind not in (None, "message") or item.get("role") != "assistant":
        return item
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": "output_text", "text": content}]
    return {**item, "type": "message", "content": list(map(_said, objects(content)))}


def _said(part: Body) -> Body:
    """A refusal as text, which llama.cpp would not read otherwise."""
    refused = part.get("type") == "refusal"
    return {"type": "output_text", "text": part["refusal"]} if refused else part


def prepare_messages(body: Body, asked: ModelContext) -> Callable[[], Steps] | None:
    for index, tool in enumerate(body.get("tools") or ()):
        _keep_strictly(tool, "input_schema", f"tools[{index}]", asked)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        mode = choose_tools(body, asked)
        if mode == "none":  # which llama.cpp takes for "auto"
            del body["tool_choice"]
            body.pop("tools", None)
    wanted = as_object(body.get("output_config")).get("format")
    if isinstance(wanted, dict):
        schema = express(wanted.get("schema"), "output_config.format.schema", asked)
        return partial(steps.message_by_chat, body, schema)
    if as_object(choice).get("disable_parallel_tool_use") and body.get("tools"):
        return partial(steps.message_by_chat, body, None)
    return None


def prepare_completion(body: Body, asked: ModelContext) -> Callable[[], Steps] | None:
    _check_grammar(body, asked)
    _check_biases(body, asked)
    prepare_best_of(body, asked)
    _check_prompts(body, "prompt", asked)
    if (schema := _wanted_schema(body, asked)) is not None:
        body["json_schema"] = schema
    if body.get("logprobs") == 0:
        body["logprobs"] = 1  # as in chat
    echo = body.pop("echo", False)
    suffix = body.pop("suffix", "")
    if suffix:
        if echo or not isinstance(body.get("prompt"), str):
            raise refusal(
                "suffix", tr("It takes one 'prompt' that is a text, without 'echo'"), asked
            )
        return partial(steps.infill, body, suffix, asked)
    if echo or body.get("max_tokens") == 0:
        return partial(steps.completion, body, echo=bool(echo))
    return None


def prepare_embeddings(body: Body, asked: ModelContext) -> Callable[[], Steps] | None:
    _check_prompts(body, "input", asked)
    length = body.pop("dimensions", None)
    if length is None:
        return None
    if length not in asked.abilities.dimensions:
        why = tr(
            "Its vectors can be cut to {dimensions}",
            dimensions=", ".join(map(str, asked.abilities.dimensions)),
        )
        raise refusal("dimensions", why if asked.abilities.dimensions else _NO_DIMENSIONS, asked)
    return partial(steps.cut_embeddings, body, length)


def prepare_tokenize(body: Body, asked: ModelContext) -> Callable[[], Steps] | None:  # noqa: ARG001
    if "messages" not in body or "prompt" in body:
        return None
    return partial(steps.tokenize_chat, body)


def check_tokens(body: Body, asked: ModelContext) -> None:
    for index, token in enumerate(body["tokens"]):
        _check_token(token, f"tokens[{index}]", asked)


def _check_prompts(body: Body, field: str, asked: ModelContext) -> None:
    """Refuse empty texts, of which llama.cpp makes nothing, and invalid tokens.

    Before a suffix it may be empty.
    """
    given = body.get(field)
    if not isinstance(given, list) or isinstance(given[0], int):
        named = {field: given}
    else:
        named = {f"{field}[{index}]": one for index, one in enumerate(given)}
    for name, prompt in named.items():
        if isinstance(prompt, list):
            for index, token in enumerate(prompt):
                _check_token(token, f"{name}[{index}]", asked)
        elif prompt == "" and not body.get("suffix"):
            raise InvalidRequestError(
                tr("'{param}' is empty; llama.cpp goes on from at least one token", param=name),
                hint=tr("Send the text or token that the model's texts begin with"),
                param=name,
            )


def _check_biases(body: Body, asked: ModelContext) -> None:
    """Refuse biases of tokens outside the vocabulary, which llama.cpp ignores."""
    for token in body.get("logit_bias", ()):
        _check_token(int(token), f"logit_bias.{token}", asked)


def _check_token(token: int, param: str, asked: ModelContext) -> None:
    size = asked.abilities.vocabulary
    if size is not None and token >= size:
        raise InvalidRequestError(
            tr(
                "'{param}' names token {token}; model {model!r} has tokens from 0 to {size}",
                param=param,
                token=token,
                model=asked.model,
                size=size - 1,
            ),
            param=param,
        )


def _check_grammar(body: Body, asked: ModelContext) -> None:
    grammar = body.get("grammar")
    if isinstance(grammar, str) and "<" in grammar and any(_token_rules(grammar)):
        raise refusal("grammar", _CHARACTERS_ONLY, asked)


def _token_rules(grammar: str) -> Iterator[str]:
    """The ``<…>`` of a grammar outside its quotes, brackets and comments."""
    quote = ""
    letters = iter(grammar)
    for letter in letters:
        if letter == "\\":
            next(letters, None)
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in '"[#':
            quote = {'"': '"', "[": "]", "#": "\n"}[letter]
        elif letter == "<":
            yield letter


def _keep_strictly(owner: Any, key: str, name: str, asked: ModelContext) -> None:
    """Rewrite a strict schema so that a grammar can express it."""
    if isinstance(owner, dict) and owner.get("strict") is True and key in owner:
        owner[key] = express(owner[key], f"{name}.{key}", asked)


PREPARE: dict[str, Prepare] = {
    "/v1/chat/completions": prepare_chat,
    "/v1/responses": prepare_responses,
    "/v1/messages": prepare_messages,
    "/v1/completions": prepare_completion,
    "/v1/embeddings": prepare_embeddings,
    "/v1/rerank": prepare_rerank,
    "/tokenize": prepare_tokenize,
    "/detokenize": check_tokens,
}
"""By operation."""
