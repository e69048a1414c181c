"""The official client's own helpers, which read answers more strictly than its plain calls."""

from typing import Literal

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel, Field

from support.server import Server


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    city: Literal["Lima", "Oslo", "Rome"]


class GetWeather(BaseModel):
    """Weather in a city"""

    city: str


PERSON = [{"role": "user", "content": "Make JSON: Ada is 36 and lives in Lima."}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [openai.pydantic_function_tool(GetWeather, name="get_weather")]


@pytest.fixture(scope="module")
def client(single: Server) -> OpenAI:
    return single.client()


def test_an_answer_is_parsed_into_a_class(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="tiny", messages=PERSON, response_format=Person, temperature=0, max_tokens=200
    )
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36, city="Lima")


def test_arguments_are_parsed_into_a_class(client: OpenAI) -> None:
    completion = client.chat.completions.parse(model="tiny", messages=WEATHER, tools=TOOLS, temperature=0)
    (call,) = completion.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris")


def test_an_answer_that_was_cut_off_is_not_parsed(client: OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="tiny", messages=PERSON, response_format=Person, max_tokens=3)


def final(client: OpenAI, **options: object) -> tuple[list[str], ParsedChatCompletion]:
    """The kinds of events of a stream, and what the client puts together from it."""
    settings = {
        "model": "tiny",
        "temperature": 0,
        "max_tokens": 200,
        "stream_options": {"include_usage": True},
    }
    with client.chat.completions.stream(**settings, **options) as stream:
        kinds = [event.type for event in stream]
        return kinds, stream.get_final_completion()


def test_a_streamed_call_is_put_together_by_the_client(client: OpenAI) -> None:
    kinds, completion = final(client, messages=WEATHER, tools=TOOLS)
    assert kinds.count("tool_calls.function.arguments.delta") >= 1
    assert kinds.count("tool_calls.function.arguments.done") == 1
    (call,) = completion.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris")
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.usage.completion_tokens > 0


def test_streamed_text_is_put_together_by_the_client(client: OpenAI) -> None:
    kinds, completion = final(client, messages=PERSON, response_format=Person)
    assert kinds.count("content.delta") >= 1 and kinds.count("content.done") == 1
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36, city="Lima")


def test_streamed_logprobs_are_put_together_by_the_client(client: OpenAI) -> None:
    kinds, completion = final(client, messages=PERSON, logprobs=True, top_logprobs=2)
    choice = completion.choices[0]
    assert "logprobs.content.delta" in kinds
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
