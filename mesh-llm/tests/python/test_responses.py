"""OpenAI Responses, with the official client."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from support.models import random_model
from support.server import Server, serve
from support.waiting import eventually

WEATHER = "What is the weather in Paris?"
STORY = "Tell me a story."


def tool(name: str, description: str, *parameters: str) -> dict:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


TOOLS = [tool("get_weather", "Weather in a city", "city"), tool("get_time", "Local time in a city", "city")]


def ask(client: OpenAI, question: object, **options: object) -> Response:
    return client.responses.create(model="tiny", input=question, **{"temperature": 0, **options})


def stream(client: OpenAI, question: object, **options: object) -> list[ResponseStreamEvent]:
    return list(ask(client, question, stream=True, **options))


def contents(response: Response) -> list[dict]:
    """The output without ids, which are never the same twice."""
    return [item.model_dump(exclude={"id", "call_id"}) for item in response.output]


def long(client: OpenAI, **options: object) -> object:
    """The stream of a response that takes its time."""
    endless = {"ignore_eos": True}
    return ask(client, STORY, stream=True, max_output_tokens=20_000, extra_body=endless, **options)


def test_a_text_is_answered(client: OpenAI) -> None:
    response = ask(client, "Hello", metadata={"a": "b"}, instructions="Be kind.", user="me")
    assert response.output_text and response.status == "completed" and response.id.startswith("resp_")
    assert response.metadata == {"a": "b"} and response.instructions == "Be kind." and response.user == "me"
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == 0


def test_it_is_what_chat_says(single: Server) -> None:
    client = single.client()
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": STORY},
    ]
    settings = {"temperature": 0, "model": "tiny"}
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    client.chat.completions.create(messages=messages, max_tokens=1, **settings)
    chat = client.chat.completions.create(messages=messages, **settings)
    response = client.responses.create(instructions="Be kind.", input=messages[1:], **settings)
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert response.usage.input_tokens_details.cached_tokens == chat.usage.prompt_tokens_details.cached_tokens


@pytest.mark.parametrize("options", [{}, {"tools": TOOLS}, {"max_output_tokens": 3}], ids=str)
def test_a_stream_says_the_same_as_the_answer_in_one_piece(single: Server, options: dict) -> None:
    client = single.client()
    ask(client, WEATHER, **{**options, "max_output_tokens": 1})
    expected = ask(client, WEATHER, **options)
    events = stream(client, WEATHER, **options)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    last = events[-1].response
    assert events[-1].type == f"response.{last.status}" and last.status == expected.status
    assert contents(last) == contents(expected)
    if "max_output_tokens" in options:
        assert last.incomplete_details.reason == "max_output_tokens"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == last.output_text
    assert client.responses.retrieve(last.id) == last


def test_the_client_s_own_helper_follows_a_stream(client: OpenAI) -> None:
    with client.responses.stream(model="tiny", input=WEATHER, tools=TOOLS, temperature=0) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert "response.function_call_arguments.delta" in kinds and kinds[-1] == "response.completed"
    assert json.loads(final.output[0].arguments) == {"city": "Paris"}


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "sent"])
def test_tools_lead_to_an_answer(client: OpenAI, kept: bool) -> None:
    results = {"get_weather": {"city": "Paris", "sky": "sunny", "celsius": 21}}
    results["get_time"] = {"city": "Tokyo", "time": "09:30"}
    said, sent, previous = [], [], None
    for question in [WEATHER, "What time is it in Tokyo?"]:
        fresh = [{"role": "user", "content": question}]
        for _ in range(5):
            sent += fresh
            response = ask(
                client, fresh if kept else sent, tools=TOOLS, store=kept, previous_response_id=previous
            )
            previous = response.id if kept else None
            sent += [item.model_dump(exclude_none=True) for item in response.output]
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                break
            fresh = [
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": json.dumps(results[call.name]),
                }
                for call in calls
            ]
        said.append(response.output_text)
    assert "sunny" in said[0] and "21" in said[0], said
    assert len(sent) == 8 and said[1], sent


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "get_time"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]},
    ],
    ids=["named", "allowed"],
)
def test_a_tool_can_be_chosen(client: OpenAI, choice: dict) -> None:
    response = ask(client, WEATHER, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert [item.name for item in response.output if item.type == "function_call"] == ["get_time"]
    assert response.tool_choice.model_dump(exclude_none=True) == choice


def test_a_schema_is_kept_to(client: OpenAI) -> None:
    class Person(BaseModel):
        name: str
        age: int

    options = {"text_format": Person, "temperature": 0, "max_output_tokens": 500}
    response = client.responses.parse(model="tiny", input="Make JSON: Ada is 36.", **options)
    assert isinstance(response.output_parsed, Person)
    assert response.text.format.type == "json_schema" and response.text.format.name == "Person"
    form = {"format": {"type": "json_object"}}
    text = ask(client, "Make JSON: Ada is 36.", text=form, max_output_tokens=1500).output_text
    assert isinstance(json.loads(text), dict)


def test_log_probabilities_are_the_text_s(client: OpenAI) -> None:
    options = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = ask(client, "Hello", **options)
    (part,) = response.output[0].content
    assert "".join(token.token for token in part.logprobs) == part.text
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in part.logprobs)
    events = stream(client, "Hello", **options)
    deltas = [token.token for event in events if "text.delta" in event.type for token in event.logprobs]
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert deltas == [token.token for token in done.logprobs] == [token.token for token in part.logprobs]


def test_a_conversation_that_is_kept_is_one_that_is_sent(single: Server) -> None:
    client = single.client()
    first = ask(client, "Hello", instructions="Be kind.")
    second = ask(client, STORY, previous_response_id=first.id)
    hello = {"role": "user", "content": "Hello"}
    sent = ask(client, [hello, *[item.model_dump() for item in first.output], {"role": "user", "content": STORY}])
    assert second.usage.input_tokens == sent.usage.input_tokens, "instructions are not carried over"
    items = list(client.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["Hello", first.output_text, STORY]
    newest = client.responses.input_items.list(second.id, limit=1)
    assert newest.data == items[-1:] and newest.has_more
    referred = ask(client, [{"type": "item_reference", "id": item.id} for item in items])
    assert referred.usage.input_tokens == second.usage.input_tokens


def test_what_is_deleted_or_was_never_kept_is_not_there(client: OpenAI) -> None:
    response = ask(client, "Hello")
    assert client.responses.retrieve(response.id) == response
    client.responses.delete(response.id)
    unkept = ask(client, "Hello", store=False)
    for gone in [response.id, unkept.id, "resp_x"]:
        message = f"Response with id '{gone}' not found."
        for call in [
            client.responses.retrieve,
            client.responses.delete,
            client.responses.cancel,
            client.responses.input_items.list,
        ]:
            with pytest.raises(NotFoundError, match=message):
                call(gone)
        with pytest.raises(BadRequestError, match=f"Previous response with id '{gone}' not found.") as raised:
            ask(client, "Hello", previous_response_id=gone)
        assert raised.value.code == "previous_response_not_found"
        assert raised.value.param == "previous_response_id"


def test_a_response_is_cancelled_while_it_is_made(single: Server) -> None:
    client = single.client()
    events = long(client)
    seen = [next(events) for _ in range(20)]
    identity = seen[0].response.id
    assert client.responses.retrieve(identity).status == "in_progress"
    with pytest.raises(BadRequestError, match="still in progress"):
        ask(client, "Hello", previous_response_id=identity)
    cancelled = client.responses.cancel(identity)
    assert cancelled.status == "cancelled"
    eventually("the engine is free", single.is_idle)
    seen += list(events)
    assert seen[-1].type == "response.incomplete" and seen[-1].response == cancelled
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert cancelled.output_text == text and cancelled.output[0].status == "incomplete"
    assert client.responses.retrieve(identity) == cancelled == client.responses.cancel(identity)


def test_the_engine_is_freed_though_nobody_reads(single: Server) -> None:
    client = single.client()
    events = long(client)
    identity = next(events).response.id
    client.responses.delete(identity)
    eventually("the engine is free", single.is_idle)
    assert list(events)[-1].response.status == "cancelled"
    with pytest.raises(NotFoundError):
        client.responses.retrieve(identity)


def test_what_is_over_cannot_be_cancelled(client: OpenAI) -> None:
    response = ask(client, "Hello")
    with pytest.raises(BadRequestError, match="Cannot cancel a completed response"):
        client.responses.cancel(response.id)


def test_a_client_that_goes_away_frees_the_engine(single: Server) -> None:
    client = single.client()
    events = long(client)
    identity = next(events).response.id
    events.close()
    eventually("the engine is free", single.is_idle)
    eventually(
        "it counts as cancelled", lambda: client.responses.retrieve(identity).status == "cancelled"
    )


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}
WRONG = [
    ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0]"),
    ({"input": "Hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": "Hi", "background": True}, "background"),
    ({"input": "Hi", "temperature": "hot"}, "temperature"),
    ({"input": 5}, "input"),
    # What the engine refuses is told in this dialect's words.
    ({"input": "Hi", "temperature": -1}, "temperature"),
    ({"input": "Hi", "max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "Hi", "tools": [tool("no name", "")]}, "tools[0].name"),
    ({"input": "Hi", "tools": TOOLS, "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
]


@pytest.mark.parametrize("body, param", WRONG, ids=[param for _, param in WRONG])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_what_is_wrong_is_named(client: OpenAI, body: dict, param: str, streams: bool) -> None:
    with pytest.raises(BadRequestError) as raised:
        client.responses.create(model="tiny", stream=streams, **body)
    assert raised.value.param == param and param in str(raised.value)


@pytest.mark.parametrize("truncation", ["disabled", "auto"])
def test_a_conversation_that_is_too_long_is_refused(client: OpenAI, truncation: str) -> None:
    with pytest.raises(BadRequestError, match="tokens") as raised:
        ask(client, "word " * 60_000, truncation=truncation)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")


def test_an_unknown_model_and_a_late_stream_are_refused(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as raised:
        client.responses.create(model="gpt-x", input="Hi")
    assert raised.value.code == "model_not_found"
    response = ask(client, "Hello")
    with pytest.raises(BadRequestError) as late:
        client.responses.retrieve(response.id, stream=True)
    assert late.value.param == "stream"


def test_a_wrong_method_is_told(tiny: Server) -> None:
    for method, path, allowed in [
        ("GET", "", "POST"),
        ("PUT", "/resp_x", "GET, DELETE"),
        ("GET", "/resp_x/cancel", "POST"),
        ("POST", "/resp_x/input_items", "GET"),
    ]:
        response = httpx.request(method, f"{tiny.url}/v1/responses{path}")
        assert (response.status_code, response.headers["allow"]) == (405, allowed)
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_body_that_is_no_json_or_breaks_off_does_no_harm(tiny: Server, client: OpenAI) -> None:
    response = tiny.post("/v1/responses", content=b'{"input": "Hi"')
    assert response.status_code == 400 and "JSON" in response.json()["error"]["message"]

    def broken() -> Iterator[bytes]:
        yield b'{"input": '
        raise ConnectionError

    with pytest.raises(ConnectionError):
        httpx.post(f"{tiny.url}/v1/responses", content=broken())
    assert ask(client, "Hello").status == "completed"


@pytest.fixture(scope="module")
def thinker(models: Path) -> Iterator[Server]:
    model = random_model(models, "qwen3", "qwen3", ["<think>", "</think>"], ["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


THOUGHT = r'root ::= "<think>\n" [a-z ]{200} "\n</think>\n\n" [A-Z ]{50}'


def think(server: Server, **options: object) -> object:
    settings = {"input": "Hello", "max_output_tokens": 600, **options}
    body = {"grammar": THOUGHT, "seed": 3}
    return server.client().responses.create(model=server.model, extra_body=body, **settings)


def test_thoughts_are_items_of_their_own(thinker: Server) -> None:
    think(thinker, max_output_tokens=16)
    response = think(thinker)
    thought, said = response.output
    assert thought.type == "reasoning" and thought.summary == [] and thought.status == "completed"
    assert thought.content[0].text.strip().islower() and said.content[0].text.strip().isupper()
    events = list(think(thinker, stream=True))
    assert contents(events[-1].response) == contents(response)
    thoughts = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert thoughts == thought.content[0].text
    again = think(thinker, input=[{"role": "user", "content": "Hello"}, *response.output])
    assert again.status == "completed"


def test_thinking_is_switched_off_by_its_effort(thinker: Server) -> None:
    options = {"input": "Hello", "model": thinker.model, "max_output_tokens": 100}
    grammar = {"grammar": "root ::= [A-Z]{10}"}
    client = thinker.client()
    thinking = client.responses.create(extra_body=grammar, **options)
    plain = client.responses.create(extra_body=grammar, reasoning={"effort": "none"}, **options)
    assert len(plain.output_text) == 10 and [item.type for item in plain.output] == ["message"]
    # The template writes an empty thought into the prompt.
    assert plain.usage.input_tokens > thinking.usage.input_tokens


def test_the_tokens_of_thoughts_are_counted_where_they_are_known(thinker: Server) -> None:
    details = think(thinker, include=["message.output_text.logprobs"]).usage.output_tokens_details
    assert 0 < details.reasoning_tokens
    assert think(thinker).usage.output_tokens_details.reasoning_tokens == 0


def test_errors_have_a_status(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as raised:
        client.responses.create(model="tiny", input="x" * (33 << 20))
    assert raised.value.status_code == 413
