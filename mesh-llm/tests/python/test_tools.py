"""Tool calls of the embedded model, which was trained to make them."""

import asyncio
import json
from collections.abc import Iterable

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from support.answers import Answer, Call, streamed, whole
from support.server import Server


def tool(name: str, description: str, *parameters: str) -> dict:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("get_weather", "Weather in a city", "city"),
    tool("get_time", "Local time in a city", "city"),
    tool("set_light", "Set the light in a room", "room", "color"),
]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CALL = Call("get_weather", '{"city": "Paris"}')


@pytest.fixture(scope="module")
def client(single: Server) -> OpenAI:
    return single.client()


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def ask(
    client: OpenAI, messages: list[ChatCompletionMessageParam], **options: object
) -> ChatCompletion | Iterable[ChatCompletionChunk]:
    settings = {"model": "tiny", "tools": TOOLS, "temperature": 0, "max_tokens": 200, **options}
    return client.chat.completions.create(messages=messages, **settings)


def both_ways(client: OpenAI, messages: list[ChatCompletionMessageParam], **options: object) -> Answer:
    """The answer in one piece, once it is seen to be that of the stream."""
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    ask(client, messages, **options, max_tokens=1)
    (answer,) = whole(ask(client, messages, **options))
    assert streamed(ask(client, messages, stream=True, **options)) == [answer]
    return answer


@pytest.mark.parametrize("choice", ["auto", "required", named("get_weather")], ids=str)
def test_a_tool_is_called(client: OpenAI, choice: str | dict) -> None:
    answer = both_ways(client, WEATHER, tool_choice=choice)
    assert (answer.calls, answer.content, answer.finish_reason) == ([CALL], "", "tool_calls")


def test_a_tool_is_chosen_among_several(client: OpenAI) -> None:
    answer = both_ways(client, [{"role": "user", "content": "Make the kitchen light red."}])
    (call,) = answer.calls
    # The model knows the room; colors it mixes up.
    assert call.name == "set_light" and call.parsed()["room"] == "kitchen"
    assert list(call.parsed()) == ["room", "color"]


def test_a_question_that_needs_no_tool_is_answered_in_words(client: OpenAI) -> None:
    answer = both_ways(client, [{"role": "user", "content": "What is a mesh?"}])
    assert answer.content and not answer.calls and answer.finish_reason == "stop"


def test_with_none_the_model_does_not_even_see_the_tools(client: OpenAI) -> None:
    hidden = ask(client, WEATHER, tool_choice="none")
    without = client.chat.completions.create(model="tiny", messages=WEATHER, temperature=0, max_tokens=200)
    assert whole(hidden) == whole(without)
    assert hidden.usage.prompt_tokens == without.usage.prompt_tokens
    (answer,) = whole(hidden)
    assert not answer.calls and answer.finish_reason == "stop"


def test_a_named_tool_is_called_instead_of_the_fitting_one(client: OpenAI) -> None:
    answer = both_ways(client, WEATHER, tool_choice=named("get_time"))
    assert [call.name for call in answer.calls] == ["get_time"]
    assert isinstance(answer.calls[0].parsed()["city"], str)
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "question", ["Hello", "Thanks", "What is a mesh?", "Tell me a story.", "Count to 12."]
)
def test_required_calls_a_tool_though_the_model_would_rather_talk(client: OpenAI, question: str) -> None:
    answer = both_ways(client, [{"role": "user", "content": question}], tool_choice="required")
    assert answer.finish_reason == "tool_calls" and answer.calls
    known = {each["function"]["name"]: set(each["function"]["parameters"]["required"]) for each in TOOLS}
    assert all(set(call.parsed()) == known[call.name] for call in answer.calls)


def test_without_parallel_calls_there_is_one(client: OpenAI) -> None:
    for choice in ["auto", "required"]:
        answer = both_ways(client, WEATHER, parallel_tool_calls=False, tool_choice=choice)
        assert answer.calls == [CALL]


def test_arguments_are_streamed_in_pieces(client: OpenAI) -> None:
    text = {"type": "string", "minLength": 300, "maxLength": 300}
    write = tool("write", "Writes a text")
    write["function"]["parameters"] = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    options = {"tools": [write], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 500}
    chunks = list(ask(client, WEATHER, stream=True, **options))
    first, *more = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert first.id and first.function.name == "write" and len(more) > 1
    assert all(delta.id is None and delta.function.name is None for delta in more)
    (answer,) = streamed(chunks)
    assert len(answer.calls[0].parsed()["text"]) == 300


def test_results_of_tools_lead_to_an_answer(client: OpenAI) -> None:
    results = {
        "get_weather": {"city": "Paris", "sky": "sunny", "celsius": 21},
        "get_time": {"city": "Tokyo", "time": "09:30"},
    }
    said = []
    for question in ["What is the weather in Paris?", "What time is it in Tokyo?"]:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question}]
        for _ in range(5):
            message = ask(client, messages).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                break
            for call in message.tool_calls:
                content = json.dumps(results[call.function.name])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        said.append(messages[-1]["content"])
    assert "sunny" in said[0] and "21" in said[0]
    assert "09:30" in said[1]


def test_a_call_may_come_back_without_content(client: OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'},
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"city": "Oslo", "time": "12:15"}'}
    question = {"role": "user", "content": "What time is it in Oslo?"}
    contents = set()
    for assistant in [{"content": None}, {"content": ""}, {}]:
        message = {"role": "assistant", "tool_calls": [call], **assistant}
        contents.add(whole(ask(client, [question, message, result]))[0].content)
    assert contents == {"It is 12:15 in Oslo."}


def test_32_calls_at_once_keep_their_arguments(tiny: Server) -> None:
    cities = ["Paris", "Tokyo", "Lima", "Oslo", "Cairo", "Rome", "Berlin", "Madrid"] * 4

    async def one(client: AsyncOpenAI, city: str) -> str:
        messages = [{"role": "user", "content": f"What is the weather in {city}?"}]
        stream = await client.chat.completions.create(
            model="tiny", messages=messages, tools=TOOLS, temperature=0, stream=True, tool_choice="required"
        )
        (answer,) = streamed([chunk async for chunk in stream])
        return answer.calls[0].parsed()["city"]

    async def all_of_them() -> list[str]:
        async with tiny.async_client() as client:
            return await asyncio.gather(*(one(client, city) for city in cities))

    assert asyncio.run(all_of_them()) == cities
