"""What a model thinks is told apart from what it says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from support.answers import Answer, streamed, whole
from support.models import random_model
from support.server import Server, serve

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
# Random weights think in form when a grammar makes them.
THINKING = {
    "qwen3": r'root ::= "<think>\n" [a-z ]{400} "\n</think>\n\n" [A-Z ]{50}',
    "deepseek-v3": r'root ::= [a-z ]{400} "</think>" [A-Z ]{50}',
    "glm-4": r'root ::= "\n<think>" [a-z ]{400} "</think>\n" [A-Z ]{50}',
    "gpt-oss": r'root ::= "<|channel|>analysis<|message|>" [a-z ]{400} '
    r'"<|end|><|start|>assistant<|channel|>final<|message|>" [A-Z ]{50}',
    "command-r7b": r'root ::= "<|START_THINKING|>" [a-z ]{400} '
    r'"<|END_THINKING|><|START_RESPONSE|>" [A-Z ]{50} "<|END_RESPONSE|>"',
}
MARKERS = {
    "qwen3": ["<think>", "</think>"],
    "deepseek-v3": ["<think>", "</think>"],
    "glm-4": ["<think>", "</think>"],
    "gpt-oss": ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"],
    "command-r7b": [
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
    ],
}


@pytest.fixture(scope="module", params=THINKING)
def server(request: pytest.FixtureRequest, models: Path) -> Iterator[Server]:
    model = random_model(models, "qwen3", request.param, MARKERS[request.param], ["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


def ask(server: Server, grammar: str | None = None, **options: object) -> object:
    client: OpenAI = server.client()
    extra = {"chat_template_kwargs": {"thinking": True}, **options.pop("extra_body", {})}
    settings = {"messages": HELLO, "seed": 3, "max_tokens": 600, **options}
    return client.chat.completions.create(
        model=server.model, extra_body={"grammar": grammar or THINKING[server.model], **extra}, **settings
    )


def is_split(answer: Answer) -> bool:
    thought, said = answer.reasoning.strip("\n"), answer.content.strip("\n")
    # A parser may take blanks away at the ends.
    return bool(re.fullmatch("[a-z ]{360,400}", thought) and re.fullmatch("[A-Z ]{40,50}", said))


def test_thoughts_are_not_part_of_the_content(server: Server) -> None:
    (answer,) = whole(ask(server))
    assert is_split(answer), answer
    assert answer.finish_reason == "stop"


def test_a_stream_tells_them_apart_as_they_come(server: Server) -> None:
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    ask(server, max_tokens=1)
    expected = whole(ask(server))
    chunks = list(ask(server, stream=True))
    assert streamed(chunks) == expected
    kinds = ""
    for chunk in chunks:
        delta = chunk.choices[0].delta
        kinds += "r" if getattr(delta, "reasoning_content", None) else "c" if delta.content else ""
    assert "r" in kinds and "c" in kinds
    assert "cr" not in kinds, "thoughts come first"


def test_thoughts_that_are_cut_off_are_thoughts(server: Server) -> None:
    ask(server, max_tokens=1)
    (full,) = whole(ask(server))
    for max_tokens in [40, 50]:
        (answer,) = whole(ask(server, max_tokens=max_tokens))
        assert answer.finish_reason == "length"
        assert answer.content == "" and answer.reasoning
        assert full.reasoning.startswith(answer.reasoning)


def test_on_request_thoughts_stay_in_the_content(server: Server) -> None:
    (split,) = whole(ask(server))
    (inline,) = whole(ask(server, extra_body={"reasoning_format": "none"}))
    assert not inline.reasoning
    assert inline.content.index(split.reasoning.strip()) < inline.content.index(split.content.strip())


def test_usage_counts_thoughts_too(server: Server) -> None:
    completion = ask(server)
    (answer,) = whole(completion)
    assert completion.usage.completion_tokens > len(server.tokenize(answer.content))


@pytest.fixture(scope="module")
def qwen3(models: Path) -> Iterator[Server]:
    model = random_model(models, "qwen3", "qwen3", MARKERS["qwen3"], ["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


@pytest.mark.parametrize(
    "options",
    [
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"extra_body": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
    ],
    ids=["template", "llama.cpp", "openai"],
)
def test_thinking_is_switched_off(qwen3: Server, options: dict) -> None:
    thinking, plain = (ask(qwen3, "root ::= [A-Z]{10}", **more) for more in ({}, options))
    (answer,) = whole(plain)
    assert not answer.reasoning and len(answer.content) == 10
    # The template writes an empty thought into the prompt.
    assert plain.usage.prompt_tokens > thinking.usage.prompt_tokens


def test_earlier_thoughts_are_not_sent_back_to_the_model(qwen3: Server) -> None:
    def prompt_tokens(**thought: str) -> int:
        turns = [
            *HELLO,
            {"role": "assistant", "content": "Hi!", **thought},
            {"role": "user", "content": "Bye"},
        ]
        return ask(qwen3, messages=turns).usage.prompt_tokens

    assert prompt_tokens(reasoning_content="A long thought about greetings.") == prompt_tokens()
