"""Many clients at once, clients that go away, and more than there is room for."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import Stream
from openai.types.chat import ChatCompletionChunk

from support.answers import streamed
from support.models import random_model
from support.server import Server, serve
from support.waiting import eventually

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def roomy(models: Path) -> Iterator[Server]:
    """Four slots, and more context than a test could fill."""
    with serve(random_model(models, "llama"), "--parallel", "4", "--ctx-size", "32768") as server:
        yield server


@pytest.fixture(scope="module")
def cramped(models: Path) -> Iterator[Server]:
    """One slot, and room for one request to wait."""
    with serve(
        random_model(models, "llama"), "--parallel", "1", "--queue", "1", "--ctx-size", "32768"
    ) as server:
        yield server


def endless_stream(server: Server) -> Stream[ChatCompletionChunk]:
    """A stream that goes on until it is closed, once its first text has come."""
    stream = server.client().chat.completions.create(model=server.model, messages=HELLO, stream=True)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            return stream
    raise AssertionError("the stream ended")


def test_32_streams_at_once_are_all_answered(tiny: Server) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        messages = [{"role": "user", "content": f"Count to {3 + number % 18}."}]
        stream = await client.chat.completions.create(
            model="tiny", messages=messages, temperature=0, stream=True
        )
        (answer,) = streamed([chunk async for chunk in stream])
        assert answer.finish_reason == "stop"
        return answer.content

    async def all_of_them() -> list[str]:
        async with tiny.async_client() as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    for number, answer in enumerate(asyncio.run(all_of_them())):
        assert answer == ", ".join(str(count) for count in range(1, 4 + number % 18))
    eventually("all slots are free", tiny.is_idle)


def test_answers_at_once_are_not_mixed_up(tiny: Server) -> None:
    words = ["owl", "bear", "wolf", "crow", "hare", "deer", "frog", "goat"] * 3

    def repeat(word: str) -> str:
        messages = [{"role": "user", "content": f"Repeat: {word} {word}"}]
        answer = tiny.client().chat.completions.create(model="tiny", messages=messages, temperature=0)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(len(words)) as pool:
        assert list(pool.map(repeat, words)) == [f"{word} {word}" for word in words]


def test_a_client_that_goes_away_frees_its_slot(roomy: Server) -> None:
    cancelled = roomy.metric("requests_cancelled_total")
    streams = [endless_stream(roomy) for _ in range(4)]
    assert roomy.metric("slots_busy") == 4
    while streams:
        streams.pop().close()
        eventually("its slot is free", lambda: roomy.metric("slots_busy") == len(streams), seconds=2)
    assert roomy.metric("requests_cancelled_total") == cancelled + 4


def test_a_client_that_goes_away_while_it_waits_is_forgotten(roomy: Server) -> None:
    running = [endless_stream(roomy) for _ in range(4)]
    with pytest.raises(openai.APITimeoutError):
        roomy.client().with_options(timeout=0.2).chat.completions.create(model=roomy.model, messages=HELLO)
    eventually("nobody waits", lambda: roomy.metric("requests_waiting") == 0)
    for stream in running:
        stream.close()
    eventually("all slots are free", roomy.is_idle)


def test_one_more_than_there_is_room_for_is_told_when_to_come_back(cramped: Server) -> None:
    client = cramped.client()
    short = {"model": cramped.model, "messages": HELLO, "max_tokens": 3}
    for stream in [False, True]:
        running = endless_stream(cramped)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.chat.completions.create, **short)
            eventually("one request waits", lambda: cramped.metric("requests_waiting") == 1)
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**short, stream=stream)
            assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
            running.close()
            assert waiting.result().usage.completion_tokens == 3
    assert client.chat.completions.create(**short).usage.completion_tokens == 3


def test_the_client_tries_again_by_itself(cramped: Server) -> None:
    running = endless_stream(cramped)
    patient = cramped.client().with_options(max_retries=5)
    short = {"model": cramped.model, "messages": HELLO, "max_tokens": 3}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(patient.chat.completions.create, **short) for _ in range(2)]
        eventually("one request waits", lambda: cramped.metric("requests_waiting") == 1)
        running.close()
        assert [each.result().usage.completion_tokens for each in both] == [3, 3]


def test_more_choices_than_there_is_room_for_are_refused_and_leave_nothing_behind(cramped: Server) -> None:
    with pytest.raises(openai.RateLimitError):
        cramped.client().chat.completions.create(model=cramped.model, messages=HELLO, n=3, max_tokens=300)
    eventually("the slot is free", cramped.is_idle)
