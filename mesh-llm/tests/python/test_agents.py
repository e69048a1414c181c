"""The same agent, in each dialect: it calls a tool twenty times, and its transcript is the same."""

import json
from collections.abc import Callable

import pytest
from anthropic import Anthropic
from ollama import Client as Ollama

from support.server import Server, serve

TURNS = 20
# Enough for a call, after which the model sometimes does not find an end.
TOKENS = 80
INSTRUCTIONS = "Call the tool."
TASK = "What is the weather in Paris?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome", "Berlin", "Madrid"]}, "day": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "day"],
    "additionalProperties": False,
}
NAME, DESCRIPTION = "weather", "The weather of a city."
FUNCTION = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}

Transcript = list[tuple[str, dict]]


@pytest.fixture(scope="module")
def server() -> Server:
    """One slot: every agent finds the same place in the cache."""
    with serve("tiny", "--parallel", "1", "--ctx-size", "4096") as server:
        yield server


def result(turn: int) -> str:
    return f"day {turn}: sunny"


def question(turn: int) -> str:
    return f"What is the weather in {('Paris', 'Rome', 'Berlin', 'Madrid')[turn % 4]} on day {turn}?"


def asked_by_chat(server: Server) -> list:
    """Twenty questions, each with a turn of the tool, if the model wants it: what it called."""
    client = server.client()
    transcript = []
    for turn in range(TURNS):
        messages: list = [{"role": "user", "content": question(turn)}]
        for _ in range(2):
            answer = client.chat.completions.create(
                model="tiny",
                messages=messages,
                tools=[{"type": "function", "function": FUNCTION}],
                temperature=0,
                max_tokens=TOKENS,
            )
            message = answer.choices[0].message
            calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]
            transcript.append(calls)
            for call, (_, arguments) in zip(message.tool_calls or [], calls):
                # Ollama's clients send back what the arguments mean, not how the model spaced them.
                call.function.arguments = json.dumps(arguments, separators=(",", ":"))
            messages.append(message.to_dict())
            for call in message.tool_calls or []:
                messages.append({"role": "tool", "tool_call_id": call.id, "name": NAME, "content": result(turn)})
            if not calls:
                break
    return transcript


def asked_by_ollama(server: Server) -> list:
    client = Ollama(host=server.url)
    transcript = []
    for turn in range(TURNS):
        messages: list = [{"role": "user", "content": question(turn)}]
        for _ in range(2):
            answer = client.chat(
                model="tiny",
                messages=messages,
                tools=[{"type": "function", "function": FUNCTION}],
                options={"temperature": 0, "num_predict": TOKENS},
            )
            message = answer.message
            calls = [(call.function.name, dict(call.function.arguments)) for call in message.tool_calls or []]
            transcript.append(calls)
            messages.append(message)
            for name, _ in calls:
                messages.append({"role": "tool", "tool_name": name, "content": result(turn)})
            if not calls:
                break
    return transcript


def by_chat(server: Server) -> Transcript:
    client = server.client()
    messages: list = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": TASK}]
    calls: Transcript = []
    for turn in range(TURNS):
        answer = client.chat.completions.create(
            model="tiny",
            messages=messages,
            tools=[{"type": "function", "function": FUNCTION}],
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=0,
            max_completion_tokens=TOKENS,
        )
        message = answer.choices[0].message
        call = message.tool_calls[0]
        calls.append((call.function.name, json.loads(call.function.arguments)))
        messages.append(message.to_dict())
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result(turn)})
    return calls


def by_responses(server: Server) -> Transcript:
    client = server.client()
    previous, items = None, TASK
    calls: Transcript = []
    for turn in range(TURNS):
        response = client.responses.create(
            model="tiny",
            instructions=INSTRUCTIONS,
            input=items,
            previous_response_id=previous,
            tools=[{"type": "function", "strict": False, **FUNCTION}],
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=0,
            max_output_tokens=TOKENS,
        )
        call = next(item for item in response.output if item.type == "function_call")
        calls.append((call.name, json.loads(call.arguments)))
        previous = response.id
        items = [{"type": "function_call_output", "call_id": call.call_id, "output": result(turn)}]
    return calls


def by_anthropic(server: Server) -> Transcript:
    client = Anthropic(base_url=server.url, api_key="none")
    messages: list = [{"role": "user", "content": TASK}]
    calls: Transcript = []
    for turn in range(TURNS):
        answer = client.messages.create(
            model="tiny",
            max_tokens=TOKENS,
            system=INSTRUCTIONS,
            messages=messages,
            tools=[{"name": NAME, "description": DESCRIPTION, "input_schema": SCHEMA}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            extra_body={"temperature": 0},
        )
        use = next(block for block in answer.content if block.type == "tool_use")
        calls.append((use.name, use.input))
        messages.append({"role": "assistant", "content": answer.content})
        messages.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": result(turn)}]}
        )
    return calls


AGENTS: dict[str, Callable[[Server], Transcript]] = {
    "responses": by_responses,
    "anthropic": by_anthropic,
}


@pytest.mark.parametrize("dialect", AGENTS)
def test_twenty_turns_are_the_same_in_every_dialect(server: Server, dialect: str) -> None:
    expected = by_chat(server)
    assert len(expected) == TURNS and all(name == NAME for name, _ in expected)
    assert AGENTS[dialect](server) == expected


def test_twenty_questions_are_answered_the_same_by_ollama(server: Server) -> None:
    expected = asked_by_chat(server)
    assert sum(bool(calls) for calls in expected) >= TURNS // 2, "the model calls too few tools to tell anything"
    assert asked_by_ollama(server) == expected
