"""Anthropic's Messages: thoughts, counts of tokens, and what is refused."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import pytest
from anthropic import Anthropic

from support.messages import HELLO, WEATHER, ask, both_ways, client_of, total
from support.models import random_model
from support.server import Server, serve
from support.waiting import eventually

TOOLS = [{"name": name, "description": "A tool", "input_schema": {"type": "object"}} for name in ["f", "h"]]


@pytest.fixture(scope="module")
def client(single: Server) -> Anthropic:
    return client_of(single)


@pytest.fixture(scope="module")
def thinker(models: Path) -> Iterator[Server]:
    """Random weights whose prompt begins a thought, unless thinking is off."""
    markers = ["<think>", "</think>"]
    model = random_model(models, "qwen3", "qwen3.5", markers, ["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


@pytest.fixture(scope="module")
def cramped(models: Path) -> Iterator[Server]:
    """One slot, and room for one request to wait."""
    model = random_model(models, "llama")
    with serve(model, "--parallel", "1", "--queue", "1", "--ctx-size", "32768") as server:
        yield server


def think(server: Server, **options: object) -> dict:
    return {"model": server.model, "max_tokens": 60, **options}


@pytest.mark.parametrize("kind", [{"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}], ids=str)
def test_thoughts_are_blocks_of_their_own(thinker: Server, kind: dict) -> None:
    answer = both_ways(client_of(thinker), HELLO, **think(thinker, thinking=kind))
    (block,) = answer.content
    assert block.type == "thinking" and block.thinking and block.signature
    assert answer.stop_reason == "max_tokens"


def test_without_thinking_an_answer_begins_with_text(thinker: Server) -> None:
    for options in [{}, {"thinking": {"type": "disabled"}}]:
        answer = both_ways(client_of(thinker), HELLO, **think(thinker, **options))
        assert [block.type for block in answer.content] == ["text"]


def test_thoughts_that_are_not_shown_come_back_all_the_same(thinker: Server) -> None:
    client = client_of(thinker)
    seen, thoughts = [], {}
    for display in ["summarized", "omitted"]:
        kind = {"type": "adaptive", "display": display}
        answer = both_ways(client, HELLO, **think(thinker, thinking=kind))
        thoughts[display] = answer.content[0].thinking
        # A thought counts until the tools that it is about have answered.
        call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        messages = [
            *HELLO,
            {"role": "assistant", "content": [*answer.content, call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]},
        ]
        seen.append(client.messages.count_tokens(model=thinker.model, messages=messages).input_tokens)
    assert thoughts["summarized"] and not thoughts["omitted"]
    assert seen[0] == seen[1]
    messages[1]["content"] = [call]
    less = client.messages.count_tokens(model=thinker.model, messages=messages).input_tokens
    assert less < seen[0]


# Counting


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"system": "You are kind."},
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": {"type": "none"}},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "f"}},
        {"thinking": {"type": "adaptive"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
    ids=str,
)
def test_counting_is_exact(client: Anthropic, thinker: Server, options: dict) -> None:
    for server, model in [(client, "tiny"), (client_of(thinker), thinker.model)]:
        counted = server.messages.count_tokens(model=model, messages=WEATHER, **options)
        answer = ask(server, WEATHER, model=model, max_tokens=1, **options)
        assert counted.input_tokens == total(answer)


# Errors


def refused(
    send: Callable[[], object], kind: type[anthropic.APIStatusError] = anthropic.BadRequestError
) -> anthropic.APIStatusError:
    """The error, once its body is seen to have Anthropic's form."""
    with pytest.raises(kind) as caught:
        send()
    body = json.loads(caught.value.response.text)
    assert body.keys() == {"type", "error"} and body["type"] == "error"
    assert body["error"].keys() == {"type", "message"} and body["error"]["message"]
    return caught.value


def user(*blocks: dict) -> dict:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "I"}]}, "end with a message of the user"),
        (user({"type": "text", "text": 7}), "messages[0].content[0].text"),
        (user(IMAGE), "describe the image in words"),
        (user({"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}), "content[0].content[0].type"),
        (user({"type": "document", "source": {"type": "url", "url": "x"}}), "send what it says as a text"),
        ({"extra_body": {"temperature": "hot"}}, "temperature"),
        ({"extra_body": {"temperature": 3}}, "temperature"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
        ({"stop_sequences": [5]}, "stop_sequences[0]"),
        ({"stop_sequences": ["x" * 5000]}, "stop"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        (
            {"tools": [{"name": "f", "input_schema": {"type": "wrong"}}], "tool_choice": {"type": "any"}},
            "tools[0].input_schema",
        ),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "wrong"}}}},
            "output_config.format.schema",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_or_cannot_be_done_is_named(client: Anthropic, options: dict, words: str) -> None:
    error = refused(lambda: ask(client, **{"messages": HELLO, **options}))
    assert error.type == "invalid_request_error"
    assert words in error.message


def test_an_unknown_model_is_not_found(client: Anthropic) -> None:
    for send in [
        lambda: ask(client, HELLO, model="claude-of-somebody-else"),
        lambda: ask(client, HELLO, model="claude-of-somebody-else", stream=True),
        lambda: client.messages.count_tokens(model="claude-of-somebody-else", messages=HELLO),
    ]:
        error = refused(send, anthropic.NotFoundError)
        assert error.type == "not_found_error"
        assert "claude-of-somebody-else" in error.message and "tiny" in error.message


def test_a_chat_that_does_not_fit_is_told_so_in_anthropic_s_words(endless: Server) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    for stream in [False, True]:
        error = refused(
            lambda stream=stream: ask(client_of(endless), long, model=endless.model, stream=stream)
        )
        assert re.fullmatch(r".*prompt is too long: \d{4,} tokens > 2048 maximum.*", error.message)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_what_is_no_request_is_refused(tiny: Server, path: str) -> None:
    for body in [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"model":"a","model":"b"}']:
        response = tiny.post(path, content=body)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
    response = tiny.get(path)
    assert (response.status_code, response.json()["type"]) == (405, "error")
    assert response.headers["allow"] == "POST" and response.headers["request-id"].startswith("req_")
    response = tiny.post(path, content=b" " * (33 << 20))
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")


def test_headers_of_clients_are_taken(tiny: Server) -> None:
    body = {"model": "tiny", "max_tokens": 5, "messages": HELLO}
    for headers in [
        {},
        {"x-api-key": "k", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"},
        {"authorization": "Bearer k"},
    ]:
        assert tiny.post("/v1/messages?beta=true", json=body, headers=headers).status_code == 200


def test_a_client_that_goes_away_frees_its_slot_and_too_many_are_told(cramped: Server) -> None:
    client = client_of(cramped)
    options = {"model": cramped.model, "max_tokens": 30_000, "stream": True}
    stream = ask(client, HELLO, **options)
    assert next(event for event in stream if event.type == "content_block_delta")
    with httpx.Client(timeout=60) as waiting:
        body = {"model": cramped.model, "max_tokens": 1, "messages": HELLO}
        request = waiting.build_request("POST", f"{cramped.url}/v1/messages", json={**body, "stream": True})
        # It has no slot yet, so that its first sign of life is a ping.
        response = waiting.send(request, stream=True)
        lines = response.iter_lines()
        assert next(lines) == "event: ping"
        error = refused(lambda: ask(client, HELLO, **options), anthropic.RateLimitError)
        assert error.type == "rate_limit_error" and int(error.response.headers["retry-after"]) > 0
        stream.close()
        # The one that waited has its turn.
        assert "event: message_stop" in list(lines)
    eventually("the slot is free", cramped.is_idle)
