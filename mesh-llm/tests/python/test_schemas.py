"""What a schema asks for is what comes out, judged by `jsonschema`."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openai import OpenAI

from support import schemas
from support.answers import streamed, whole
from support.server import Server

COUNT = 200
# Threads that ask at once: as many as there are slots.
CLIENTS = 8
# The grammar of a date also allows the 30th of February.
FORMATS = FormatChecker(formats=["uuid"])
ASK = [{"role": "user", "content": "Make JSON: Ada is 36 and lives in Lima."}]


def options(schema: dict, seed: int) -> dict:
    return {
        "messages": ASK,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": schema},
        },
        "seed": seed,
        "temperature": 1.0,
        "max_tokens": 1500,
    }


def fault(server: Server, number: int) -> str | None:
    """What is wrong with the output for schema `number`."""
    schema = schemas.with_definitions(schemas.schema(random.Random(number)))
    Draft202012Validator.check_schema(schema)
    (answer,) = whole(server.client().chat.completions.create(model=server.model, **options(schema, number)))
    about = f"schema {number} {json.dumps(schema)} gave {answer.content!r}"
    if answer.finish_reason != "stop":
        return f"{about} and ended with {answer.finish_reason}"
    try:
        output = json.loads(answer.content)
    except ValueError as error:
        return f"{about}: {error}"
    errors = [
        error.message for error in Draft202012Validator(schema, format_checker=FORMATS).iter_errors(output)
    ]
    return f"{about}: {errors}" if errors else None


@pytest.mark.parametrize("model", ["tiny", "endless"])
def test_every_output_ends_and_fits_its_schema(request: pytest.FixtureRequest, model: str) -> None:
    server: Server = request.getfixturevalue(model)
    with ThreadPoolExecutor(CLIENTS) as pool:
        faults = [found for found in pool.map(lambda number: fault(server, number), range(COUNT)) if found]
    assert not faults, f"{len(faults)} of {COUNT}:\n" + "\n".join(faults[:10])


def test_properties_come_in_the_order_of_the_schema(client: OpenAI) -> None:
    names = ["zebra", "apple", "mango", "kiwi"]
    properties = {name: {"type": "boolean"} for name in names}
    schema = {"type": "object", "properties": properties, "required": sorted(names)}
    (answer,) = whole(client.chat.completions.create(model="tiny", **options(schema, 1)))
    assert list(json.loads(answer.content)) == names


def test_a_stream_under_a_schema_says_the_same(single: Server) -> None:
    create = single.client().chat.completions.create
    for number in range(5):
        schema = schemas.with_definitions(schemas.schema(random.Random(number)))
        request = {"model": "tiny", **options(schema, number)}
        # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
        create(**{**request, "max_tokens": 1})
        assert streamed(create(stream=True, **request)) == whole(create(**request))


def test_a_text_completion_takes_a_schema_too(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    completion = client.completions.create(model="tiny", prompt="{", max_tokens=100, extra_body=body)
    assert json.loads(completion.choices[0].text).keys() == {"ok"}


def test_a_schema_and_tools_may_stand_together(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    (answer,) = whole(
        client.chat.completions.create(model="tiny", tools=[tool], tool_choice="none", **options(schema, 2))
    )
    assert json.loads(answer.content).keys() == {"ok"}
