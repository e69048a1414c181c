"""A stream says the same as an answer in one piece."""

from collections.abc import Iterable

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk

from support.answers import streamed, whole
from support.server import Server

REQUESTS = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 1, "seed": 11},
    "cut off": {"temperature": 0, "max_tokens": 7},
    "stopped": {"temperature": 0, "stop": [" and", "."]},
}


def story(client: OpenAI, **options: object) -> object:
    messages = [{"role": "user", "content": "Tell me a story."}]
    return client.chat.completions.create(model="tiny", messages=messages, **options)


@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_pieces_of_a_stream_are_the_answer_in_one_piece(single: Server, options: dict) -> None:
    client = single.client()
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    story(client, max_tokens=1)
    assert streamed(story(client, stream=True, **options)) == whole(story(client, **options))


def test_usage_comes_last_and_alone_when_asked_for(single: Server) -> None:
    client = single.client()
    expected = story(client, temperature=0).usage
    options = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = story(client, **options)
    assert last.choices == [] and all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        expected.prompt_tokens,
        expected.completion_tokens,
    )
    assert last.usage.total_tokens == expected.total_tokens


def test_no_usage_comes_unasked(client: OpenAI) -> None:
    chunks: Iterable[ChatCompletionChunk] = story(client, temperature=0, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_text_comes_piece_by_piece(client: OpenAI) -> None:
    chunks = list(story(client, temperature=0, stream=True))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(texts) > 1
    assert all("\ufffd" not in text for text in texts)


def test_on_the_wire_there_are_events_and_a_last_one_that_says_done(tiny: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with httpx.stream("POST", f"{tiny.url}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        events = "".join(response.iter_text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith(('data: {"', ":")) for event in events[:-2])


def test_characters_of_several_tokens_are_never_cut(client: OpenAI) -> None:
    text = "naïve 日本語 😀 Ελλάς"
    chunks = list(story(client, stream=True, extra_body={"grammar": f'root ::= "{text}"'}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
