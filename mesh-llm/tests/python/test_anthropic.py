"""Anthropic's Messages, with Anthropic's own client: chats, tools and the form of answers."""

import json

import pytest
from anthropic import Anthropic, beta_tool
from anthropic.types import RawMessageStreamEvent
from pydantic import BaseModel

from support.messages import GREEDY, HELLO, STORY, WEATHER, ask, both_ways, client_of, total, without_names
from support.server import Server


def tool(name: str, description: str, *parameters: str) -> dict:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"name": name, "description": description, "input_schema": schema}


TOOLS = [
    tool("get_weather", "Weather in a city", "city"),
    tool("get_time", "Local time in a city", "city"),
    tool("set_light", "Set the light in a room", "room", "color"),
]
RESULTS = {
    "get_weather": {"city": "Paris", "sky": "sunny", "celsius": 21},
    "get_time": {"city": "Tokyo", "time": "09:30"},
}


@pytest.fixture(scope="module")
def client(single: Server) -> Anthropic:
    return client_of(single)


def test_a_question_is_answered_both_ways(client: Anthropic) -> None:
    answer = both_ways(client, [{"role": "user", "content": "What is a mesh?"}], system="You are kind.")
    (block,) = answer.content
    assert block.type == "text" and block.text
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.id.startswith("msg_")


def test_strings_and_blocks_say_the_same(client: Anthropic) -> None:
    def text(said: str) -> dict:
        return {"type": "text", "text": said, "cache_control": {"type": "ephemeral"}}

    plain = ask(client, STORY, system="Be brief.")
    blocks = ask(
        client,
        [{"role": "user", "content": [text("Tell me a story.")]}],
        system=[text("x-anthropic-billing-header: cc_version=2.1; cch=12345;"), text("Be brief.")],
        metadata={"user_id": "me"},
    )
    assert without_names(blocks) == without_names(plain)
    assert total(blocks) == total(plain)


def test_what_is_used_again_is_told(client: Anthropic) -> None:
    messages = [{"role": "user", "content": "Tell me of a cache that nobody asked for before."}]
    first, second = ask(client, messages), ask(client, messages)
    assert total(first) == total(second) > 10
    # The last token of a prompt is always computed.
    assert (second.usage.input_tokens, second.usage.cache_read_input_tokens) == (1, total(first) - 1)
    assert first.usage.input_tokens > 1 and first.usage.output_tokens > 1


def test_the_events_of_a_stream_come_in_order(client: Anthropic) -> None:
    events: list[RawMessageStreamEvent] = list(ask(client, STORY, stream=True))
    types = [event.type for event in events]
    deltas = types.count("content_block_delta")
    assert deltas > 1
    assert types == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start, end = events[0].message, events[-2]
    assert start.content == [] and start.stop_reason is None and start.usage.output_tokens == 0
    # The prompt is counted before the first word.
    assert start.usage.input_tokens == end.usage.input_tokens
    assert start.usage.cache_read_input_tokens == end.usage.cache_read_input_tokens
    assert end.delta.stop_reason == "end_turn" and end.usage.output_tokens > 1


@pytest.mark.parametrize("stop", ["e", " and"])
def test_a_stop_sequence_is_named(client: Anthropic, stop: str) -> None:
    whole = ask(client, STORY).content[0].text
    assert stop in whole
    answer = both_ways(client, STORY, stop_sequences=["no such text", stop])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert answer.content[0].text == whole[: whole.index(stop)]


def test_an_answer_that_is_cut_off_says_so(client: Anthropic, endless: Server) -> None:
    answer = both_ways(client, STORY, max_tokens=5)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 5)
    full = ask(client_of(endless), HELLO, model=endless.model, max_tokens=100_000)
    assert full.stop_reason == "model_context_window_exceeded"
    assert total(full) + full.usage.output_tokens <= 2048


# Tools


@pytest.mark.parametrize("choice", ["auto", "any", "tool"])
def test_a_tool_is_called(client: Anthropic, choice: str) -> None:
    chosen = {"type": choice, **({"name": "get_weather"} if choice == "tool" else {})}
    answer = both_ways(client, WEATHER, tools=TOOLS, tool_choice=chosen)
    (block,) = answer.content
    assert (block.type, block.name, block.input) == ("tool_use", "get_weather", {"city": "Paris"})
    assert block.id and answer.stop_reason == "tool_use"


def test_a_tool_may_be_forbidden(client: Anthropic) -> None:
    answer = both_ways(client, WEATHER, tools=TOOLS, tool_choice={"type": "none"})
    assert answer.stop_reason == "end_turn"
    assert [block.type for block in answer.content] == ["text"]


def test_one_call_at_a_time_on_request(client: Anthropic) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    answer = both_ways(client, WEATHER, tools=TOOLS, tool_choice=choice)
    assert [block.name for block in answer.content] == ["get_weather"]


def test_results_of_tools_lead_to_an_answer(client: Anthropic) -> None:
    said = []
    messages: list = []
    for question in ["What is the weather in Paris?", "What time is it in Tokyo?"]:
        messages = [{"role": "user", "content": question}]
        for _ in range(5):
            answer = both_ways(client, messages, tools=TOOLS)
            messages.append({"role": "assistant", "content": answer.content})
            if answer.stop_reason != "tool_use":
                break
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": json.dumps(RESULTS[call.name])}
                for call in answer.content
                if call.type == "tool_use"
            ]
            messages.append({"role": "user", "content": results})
        assert len(messages) >= 4
        said.append(answer.content[-1].text)
    assert "sunny" in said[0] and "21" in said[0]
    assert "09:30" in said[1]


def test_the_client_runs_tools_by_itself(client: Anthropic) -> None:
    asked = []

    @beta_tool
    def get_weather(city: str) -> str:
        """Weather in a city"""
        asked.append(city)
        return json.dumps(RESULTS["get_weather"])

    runner = client.beta.messages.tool_runner(
        model="tiny", max_tokens=200, tools=[get_weather], messages=WEATHER, extra_body=GREEDY
    )
    assert "sunny" in runner.until_done().content[-1].text
    assert asked == ["Paris"]


def test_a_chat_with_tools_is_what_openai_s_client_would_send(client: Anthropic, single: Server) -> None:
    call = {"type": "tool_use", "id": "a", "name": "get_time", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": '{"time": "12:15"}'}
    messages = [
        {"role": "user", "content": "What time is it in Oslo?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
    ]
    function = {"name": "get_time", "arguments": '{"city": "Oslo"}'}
    same = [
        {"role": "user", "content": "What time is it in Oslo?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": '{"time": "12:15"}'},
        {"role": "user", "content": "Well?"},
    ]
    ours = ask(client, messages)
    theirs = single.client().chat.completions.create(model="tiny", messages=same, temperature=0)
    assert ours.content[0].text == theirs.choices[0].message.content
    assert total(ours) == theirs.usage.prompt_tokens


# The form of answers


class Weather(BaseModel):
    """What an answer has to be."""

    city: str
    celsius: int


def test_an_answer_fits_its_schema(client: Anthropic) -> None:
    schema = Weather.model_json_schema()
    output = {"format": {"type": "json_schema", "schema": schema}}
    for question in [WEATHER, STORY]:
        answer = both_ways(client, question, output_config=output)
        Weather.model_validate_json(answer.content[0].text)
    parsed = client.messages.parse(
        model="tiny", max_tokens=200, messages=WEATHER, output_format=Weather, extra_body=GREEDY
    )
    assert isinstance(parsed.parsed_output, Weather)
    beta = ask(client, WEATHER, extra_body={"output_format": output["format"]})
    Weather.model_validate_json(beta.content[0].text)
