"""Every error is the client's typed exception, with the parameter and what to do about it."""

import json
from collections.abc import Callable

import openai
import pytest
from openai import OpenAI

from support.server import Server

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def refused(
    send: Callable[[], object], kind: type[openai.APIStatusError] = openai.BadRequestError
) -> openai.APIStatusError:
    """The error, once its body is seen to have OpenAI's form."""
    with pytest.raises(kind) as caught:
        send()
    error = json.loads(caught.value.response.text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"] and caught.value.response.headers["content-type"] == "application/json"
    return caught.value


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_p": -1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias", None),
        ({"logit_bias": {"100000000": 1}}, "logit_bias", "invalid_value"),
        ({"messages": []}, "messages", None),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": [*HELLO, {"role": "wizard", "content": "?"}]}, "messages[1].role", None),
        ({"messages": [*HELLO, {"role": "user", "content": 7}]}, "messages[1].content", "invalid_type"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role", "missing_required_parameter"),
        ({"tools": [TOOL, {"type": "function"}]}, "tools[1].function", "missing_required_parameter"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice", "unsupported_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "unsupported_value"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "wrong"}},
                }
            },
            "response_format.json_schema.schema",
            "invalid_value",
        ),
        ({"extra_body": {"grammar": "root ::= ("}}, "grammar", "invalid_value"),
        ({"extra_body": {"grammar": 'other ::= "a"'}}, "grammar", "invalid_value"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(client: OpenAI, options: dict, param: str, code: str | None) -> None:
    error = refused(lambda: client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **options}))
    assert (error.status_code, error.type) == (400, "invalid_request_error")
    assert error.param == param or (param == "logit_bias" and error.param.startswith(param))
    assert code is None or error.code == code


def test_a_tools_bad_schema_is_found_among_good_ones(client: OpenAI) -> None:
    bad = {"type": "function", "function": {"name": "g", "parameters": {"type": "wrong"}}}
    error = refused(
        lambda: client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[TOOL, bad], tool_choice="required"
        )
    )
    assert error.param == "tools[1].function.parameters"


@pytest.mark.parametrize("api", ["chat", "completions", "embeddings"])
def test_an_unknown_model_is_answered_with_the_names_that_exist(client: OpenAI, api: str) -> None:
    send = {
        "chat": lambda: client.chat.completions.create(model="gpt-4", messages=HELLO),
        "completions": lambda: client.completions.create(model="gpt-4", prompt="Hello"),
        "embeddings": lambda: client.embeddings.create(model="gpt-4", input="Hello"),
    }
    error = refused(send[api], openai.NotFoundError)
    assert (error.param, error.code) == ("model", "model_not_found")
    assert "gpt-4" in error.message and "tiny" in error.message


def test_a_stream_that_is_refused_has_the_same_error(client: OpenAI) -> None:
    error = refused(
        lambda: client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True),
        openai.NotFoundError,
    )
    assert error.code == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"messages": [}'])
def test_a_body_that_is_no_json_object_is_refused(tiny: Server, body: bytes) -> None:
    response = tiny.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_field_given_twice_or_deeply_nested_does_no_harm(tiny: Server) -> None:
    for body in [b'{"n":1,"n":2}', b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]:
        response = tiny.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400
    assert tiny.get("/health").status_code == 200


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(endless: Server) -> None:
    client = endless.client()
    prompt = [5] * 5000
    for send in [
        lambda: client.completions.create(model=endless.model, prompt=prompt),
        lambda: client.completions.create(model=endless.model, prompt=prompt, stream=True),
    ]:
        error = refused(send)
        assert (error.param, error.code) == ("prompt", "context_length_exceeded")
        assert "5000" in error.message and "2048" in error.message


def test_a_chat_that_does_not_fit_is_refused(endless: Server) -> None:
    messages = [{"role": "user", "content": "word " * 3000}]
    error = refused(lambda: endless.client().chat.completions.create(model=endless.model, messages=messages))
    assert (error.param, error.code) == ("messages", "context_length_exceeded")


def test_an_answer_that_fills_the_context_ends_there(endless: Server) -> None:
    completion = endless.client().completions.create(model=endless.model, prompt=[5] * 1900, max_tokens=1000)
    assert completion.choices[0].finish_reason == "length"
    assert 2040 <= completion.usage.total_tokens <= 2048


def test_too_large_a_body_is_refused(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "x" * (33 << 20)}]
    error = refused(
        lambda: client.chat.completions.create(model="tiny", messages=messages), openai.APIStatusError
    )
    assert (error.status_code, error.code) == (413, "request_too_large")
