"""Tool calls through the chat templates of many families of models, whose weights are random.

What random weights write is noise wherever the grammar lets them, so that only what the server does
makes a tool call of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion

from support.answers import Call, streamed, whole
from support.dialects import DIALECTS, TAGGED_TOOLS, Dialect
from support.models import random_model
from support.server import Server, serve

SEEDS = range(2)
# Strings between tags, thinking and words before a call have no other end.
MOST_TOKENS = 3000


@pytest.fixture(scope="module", params=DIALECTS, ids=lambda dialect: dialect.template)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param


@pytest.fixture(scope="module")
def server(dialect: Dialect, models: Path) -> Iterator[Server]:
    options = ["--end", "0", "--bytes", "bytes"]
    model = random_model(models, "llama", dialect.template, dialect.markers, options)
    with serve(model, "--parallel", "1", "--ctx-size", "4096") as server:
        yield server


def ask(server: Server, dialect: Dialect, **options: object) -> ChatCompletion:
    settings = {
        "messages": [{"role": "system", "content": "You call tools."}, {"role": "user", "content": "Go on."}],
        "tools": dialect.tools,
        "max_tokens": MOST_TOKENS,
        **dialect.steering(server.token),
        **options,
    }
    return server.client().chat.completions.create(model=server.model, **settings)


def check(call: Call, tools: list[dict]) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    Draft202012Validator(schemas[call.name]).validate(call.parsed())


def test_required_gives_calls_that_fit_their_tools(server: Server, dialect: Dialect) -> None:
    for seed in SEEDS:
        (answer,) = whole(ask(server, dialect, tool_choice="required", seed=seed))
        assert answer.finish_reason == "tool_calls", answer
        assert answer.calls
        for call in answer.calls:
            check(call, dialect.tools)


def test_required_needs_no_help_from_the_model(server: Server, dialect: Dialect) -> None:
    # Nothing is made likely here: the first thing that the grammar allows is a call.
    for seed in range(4):
        completion = server.client().chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "Hello"}],
            tools=dialect.tools[-1:],
            tool_choice="required",
            max_tokens=400,
            seed=seed,
            extra_body={"enable_thinking": False},
        )
        (answer,) = whole(completion)
        assert answer.calls and answer.calls[0].name == dialect.tools[-1]["function"]["name"], answer


def test_streamed_calls_are_the_same(server: Server, dialect: Dialect) -> None:
    for seed in SEEDS:
        options = {"tool_choice": "required", "seed": seed}
        # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
        ask(server, dialect, **options, max_tokens=1)
        (answer,) = whole(ask(server, dialect, **options))
        assert streamed(ask(server, dialect, stream=True, **options)) == [answer]


def test_a_named_tool_is_the_one_called(server: Server, dialect: Dialect) -> None:
    for tool in dialect.tools:
        name = tool["function"]["name"]
        choice = {"type": "function", "function": {"name": name}}
        (answer,) = whole(ask(server, dialect, tool_choice=choice, seed=5))
        assert {call.name for call in answer.calls} == {name}
        check(answer.calls[0], dialect.tools)


def test_one_call_comes_where_parallel_ones_are_off(server: Server, dialect: Dialect) -> None:
    for seed in SEEDS:
        (answer,) = whole(ask(server, dialect, tool_choice="required", parallel_tool_calls=False, seed=seed))
        assert len(answer.calls) == 1


def test_calls_and_results_of_earlier_turns_are_taken(server: Server, dialect: Dialect) -> None:
    name = dialect.tools[0]["function"]["name"]
    arguments = json.dumps({"name": "Ada", "guests": 2, "layers": [True]})
    call = {"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}}
    question = {"role": "user", "content": "Book a table."}
    result = {"role": "tool", "tool_call_id": "call12345", "content": '{"ok": true}'}
    more = [{"role": "assistant", "content": "Booked."}, {"role": "user", "content": "Thanks."}]
    lengths = []
    for content in [None, ""]:
        made = {"role": "assistant", "content": content, "tool_calls": [call]}
        for messages in [[question, made, result], [question, made, result, *more]]:
            usage = ask(server, dialect, messages=messages, max_tokens=1).usage
            lengths.append(usage.prompt_tokens)
    assert lengths[0] == lengths[2] < lengths[1] == lengths[3]


def test_no_tools_mean_no_calls(server: Server, dialect: Dialect) -> None:
    for options in [{"tool_choice": "none"}, {"tools": []}]:
        (answer,) = whole(ask(server, dialect, max_tokens=40, seed=1, **options))
        assert not answer.calls and answer.finish_reason in ("stop", "length")


@pytest.fixture(scope="module")
def kimi(models: Path) -> Iterator[Server]:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.template == "kimi-k2")
    model = random_model(models, "llama", dialect.template, dialect.markers, ["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


def test_ids_that_a_model_gives_twice_are_told_apart(kimi: Server) -> None:
    # Its ids are `functions.NAME:NUMBER`; every number is made to be a 7, and every call to be followed
    # by another.
    likely = ["<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "7"]
    completion = kimi.client().chat.completions.create(
        model=kimi.model,
        messages=[{"role": "user", "content": "Go on."}],
        tools=[tool for tool in DIALECTS[0].tools if not tool["function"]["parameters"]["properties"]],
        tool_choice="required",
        logit_bias={str(kimi.token(text)): 60 for text in likely},
        max_tokens=200,
        seed=1,
    )
    calls = completion.choices[0].message.tool_calls
    assert len(calls) > 2
    assert len({call.id for call in calls}) == len(calls)


@pytest.fixture(scope="module")
def glm(models: Path) -> Iterator[Server]:
    (dialect,) = (dialect for dialect in DIALECTS if dialect.template == "glm-4")
    model = random_model(
        models, "llama", dialect.template, dialect.markers, ["--end", "0", "--bytes", "bytes"]
    )
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


def test_an_answer_that_is_not_understood_is_not_lost(glm: Server) -> None:
    # llama.cpp's grammar allows more line breaks before </tool_call> than its parser.
    likely = {"<tool_call>": 20, "</think>": 20, "</s>": 20, "\n": 35}
    for seed in SEEDS:
        completion = glm.client().chat.completions.create(
            model=glm.model,
            messages=[{"role": "user", "content": "Go on."}],
            tools=[tool for tool in TAGGED_TOOLS if tool["function"]["name"] == "paint"],
            tool_choice="required",
            logit_bias={str(glm.token(text)): bias for text, bias in likely.items()},
            temperature=2,
            frequency_penalty=2,
            max_tokens=1000,
            seed=seed,
        )
        (answer,) = whole(completion)
        assert answer.calls or "layers" in answer.content, answer
