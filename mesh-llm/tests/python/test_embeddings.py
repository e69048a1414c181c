"""Embeddings of a model that talks, and of one that does nothing else."""

import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from support.models import random_model
from support.server import Server, serve


@pytest.fixture(scope="module")
def encoder(models: Path) -> Iterator[Server]:
    with serve(random_model(models, "bert")) as server:
        yield server


@pytest.fixture(params=["tiny", "encoder"])
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def embed(server: Server, text: object, **options: object) -> list[list[float]]:
    response = server.client().embeddings.create(
        **{"model": server.model, "input": text, "encoding_format": "float", **options}
    )
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return [item.embedding for item in response.data]


def length(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_text_becomes_a_vector_of_length_1(server: Server) -> None:
    (vector,) = embed(server, "What is a mesh?")
    assert len(vector) == server.client().models.list().data[0].meta["n_embd"]
    assert length(vector) == pytest.approx(1, abs=1e-4)


def test_the_same_text_has_the_same_vector_and_others_have_others(server: Server) -> None:
    first, again, other = (embed(server, text)[0] for text in ["a red fox", "a red fox", "two plus two"])
    assert cosine(first, again) == pytest.approx(1, abs=1e-4)
    assert cosine(first, other) < 0.9999


def test_a_batch_gives_what_each_text_gives_alone(server: Server) -> None:
    texts = [f"text number {number} " + "and more " * number for number in range(12)]
    together = embed(server, texts)
    for text, vector in zip(texts, together, strict=True):
        assert cosine(embed(server, text)[0], vector) == pytest.approx(1, abs=1e-3)


def test_base64_holds_the_same_numbers(server: Server) -> None:
    (numbers,) = embed(server, "mesh")
    body = {"model": server.model, "input": "mesh", "encoding_format": "base64"}
    raw = base64.b64decode(server.post("/v1/embeddings", json=body).json()["data"][0]["embedding"])
    assert struct.unpack(f"<{len(numbers)}f", raw) == pytest.approx(numbers, abs=1e-6)
    # The client asks for base64 by itself where nothing is said.
    decoded = server.client().embeddings.create(model=server.model, input="mesh").data[0].embedding
    assert list(decoded) == pytest.approx(numbers, abs=1e-6)


def test_fewer_dimensions_are_the_first_ones_at_length_1(server: Server) -> None:
    (full,) = embed(server, "mesh")
    (short,) = embed(server, "mesh", dimensions=16)
    assert len(short) == 16 and length(short) == pytest.approx(1, abs=1e-4)
    assert cosine(short, full[:16]) / length(full[:16]) == pytest.approx(1, abs=1e-4)


def test_an_input_may_be_tokens(tiny: Server) -> None:
    text = "A mesh is a group"
    tokens = tiny.tokenize(text)
    assert cosine(embed(tiny, tokens)[0], embed(tiny, text)[0]) == pytest.approx(1, abs=1e-4)
    assert len(embed(tiny, [tokens, tokens[:2]])) == 2


def test_usage_counts_the_tokens_of_all_inputs(tiny: Server) -> None:
    texts = ["one", "two of them", "and a third"]
    usage = tiny.client().embeddings.create(model="tiny", input=texts).usage
    assert usage.prompt_tokens == usage.total_tokens == sum(len(tiny.tokenize(text)) for text in texts)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"dimensions": 100_000}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"input": []}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": [1, 100_000_000]}, "input[1]"),
        ({"model": 7}, "model"),
    ],
)
def test_what_is_wrong_is_named(tiny: Server, options: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tiny.client().embeddings.create(**{"model": "tiny", "input": "a", **options})
    assert caught.value.param == param


def test_too_long_an_input_is_refused_with_the_numbers(encoder: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        embed(encoder, "too long " * 1000)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "input"
    assert "512" in caught.value.message


def test_a_model_that_only_embeds_says_so(encoder: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        encoder.client().chat.completions.create(
            model=encoder.model, messages=[{"role": "user", "content": "Hello"}]
        )
    assert "embeddings" in caught.value.message
