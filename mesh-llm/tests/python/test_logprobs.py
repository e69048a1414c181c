"""Log probabilities of chat completions."""

import math

import pytest
from openai import OpenAI
from openai.types.chat.chat_completion import ChoiceLogprobs

from support.answers import streamed, whole

OPTIONS = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "What is a mesh?"}],
    "temperature": 0,
    "logprobs": True,
}


def logprobs(client: OpenAI, **options: object) -> ChoiceLogprobs:
    return client.chat.completions.create(**OPTIONS, **options).choices[0].logprobs


def test_tokens_put_together_are_the_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(**OPTIONS)
    tokens = completion.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == completion.choices[0].message.content
    assert (
        bytes(byte for token in tokens for byte in token.bytes).decode()
        == completion.choices[0].message.content
    )
    assert all(token.logprob <= 0 and token.top_logprobs == [] for token in tokens)


def test_the_greedy_token_is_the_likeliest_of_those_shown(client: OpenAI) -> None:
    for token in logprobs(client, top_logprobs=5).content:
        shown = [candidate.logprob for candidate in token.top_logprobs]
        assert len(shown) == 5 and shown == sorted(shown, reverse=True)
        assert (token.top_logprobs[0].token, shown[0]) == (token.token, token.logprob)
        assert sum(map(math.exp, shown)) <= 1.0001


def test_a_stream_carries_the_same(client: OpenAI) -> None:
    whole_answer = whole(client.chat.completions.create(**OPTIONS))
    chunks = client.chat.completions.create(**OPTIONS, stream=True)
    streamed_answer = streamed(chunks)
    assert [token for token, _ in streamed_answer[0].tokens] == [token for token, _ in whole_answer[0].tokens]
    for (_, one), (_, other) in zip(streamed_answer[0].tokens, whole_answer[0].tokens, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_without_asking_there_are_none(client: OpenAI) -> None:
    options = {**OPTIONS, "logprobs": False}
    assert client.chat.completions.create(**options).choices[0].logprobs is None
