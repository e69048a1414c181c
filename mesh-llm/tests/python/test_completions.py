"""Text completions, which OpenAI calls legacy."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from support.models import random_model
from support.server import Server, serve

PROMPT = "One day Ada went"


def complete(client: OpenAI, prompt: object = PROMPT, **options: object) -> Completion:
    return client.completions.create(
        **{"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 12, **options}
    )


def texts(completion: Completion) -> list[str]:
    assert [choice.index for choice in completion.choices] == list(range(len(completion.choices)))
    return [choice.text for choice in completion.choices]


def streamed(chunks: openai.Stream[Completion]) -> list[str]:
    pieces: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            pieces[choice.index] = pieces.get(choice.index, "") + choice.text
    return [pieces[index] for index in sorted(pieces)]


def test_a_completion_has_openais_shape(client: OpenAI) -> None:
    completion = complete(client)
    assert completion.object == "text_completion" and completion.id.startswith("cmpl-")
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 12
    assert texts(completion)[0].startswith(" to ")


def test_16_tokens_come_where_the_request_does_not_say(client: OpenAI) -> None:
    completion = client.completions.create(model="tiny", prompt=PROMPT, temperature=0)
    assert completion.usage.completion_tokens == 16


def test_a_stream_says_the_same(single: Server) -> None:
    client = single.client()
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    complete(client, max_tokens=1)
    for options in [{}, {"seed": 3, "temperature": 1}, {"n": 2}, {"echo": True}]:
        assert streamed(complete(client, stream=True, **options)) == texts(complete(client, **options))


def test_a_stream_ends_with_the_usage_asked_for(client: OpenAI) -> None:
    *_, last = complete(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == complete(client).usage


def test_a_prompt_may_be_tokens(single: Server) -> None:
    client = single.client()
    assert texts(complete(client, single.tokenize(PROMPT))) == texts(complete(client))


def test_several_prompts_are_answered_in_their_order(single: Server) -> None:
    client = single.client()
    prompts = [PROMPT, "A mesh is", "def total("]
    alone = [texts(complete(client, prompt))[0] for prompt in prompts]
    together = complete(client, prompts)
    assert texts(together) == alone
    assert together.usage.completion_tokens == 12 * len(prompts)
    assert texts(complete(client, [single.tokenize(prompt) for prompt in prompts])) == alone


def test_each_of_several_prompts_has_n_answers(single: Server) -> None:
    client = single.client()
    completion = complete(client, [PROMPT, "A mesh is"], n=2)
    first, second = complete(client), complete(client, "A mesh is")
    assert texts(completion) == texts(first) * 2 + texts(second) * 2


def test_an_echo_begins_with_the_prompt(single: Server) -> None:
    client = single.client()
    answer = texts(complete(client))[0]
    assert texts(complete(client, echo=True)) == [PROMPT + answer]
    assert texts(complete(client, single.tokenize(PROMPT), echo=True)) == [PROMPT + answer]
    assert texts(complete(client, echo=True, max_tokens=0)) == [PROMPT]


def test_logprobs_are_parallel_lists(client: OpenAI) -> None:
    choice = complete(client, logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 12
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset == sorted(logprobs.text_offset)
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values())


def test_logprobs_of_an_echo_judge_the_prompt(single: Server) -> None:
    client = single.client()
    said = complete(client, logprobs=0, max_tokens=12).choices[0].logprobs
    text = PROMPT + texts(complete(client))[0]
    judged = complete(client, text, echo=True, logprobs=0, max_tokens=0).choices[0].logprobs
    assert "".join(judged.tokens) == text
    assert judged.token_logprobs[0] is None
    assert judged.tokens[-12:] == said.tokens
    assert judged.token_logprobs[-12:] == pytest.approx(said.token_logprobs, abs=0.02)


def test_a_stop_text_ends_a_completion(single: Server) -> None:
    client = single.client()
    full = texts(complete(client, max_tokens=40))[0]
    assert "." in full
    completion = complete(client, max_tokens=40, stop=".")
    assert texts(completion) == [full[: full.index(".")]]
    assert completion.choices[0].finish_reason == "stop"


def test_a_model_that_cannot_fill_in_refuses_a_suffix(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, suffix="and went home.")
    assert (caught.value.param, caught.value.code) == ("suffix", "unsupported_parameter")


@pytest.fixture(scope="module")
def infilling(models: Path) -> Iterator[Server]:
    markers = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    with serve(random_model(models, "qwen2", markers=markers), "--ctx-size", "1024") as server:
        yield server


def test_a_model_that_can_fill_in_sees_prompt_and_suffix(infilling: Server) -> None:
    client, model = infilling.client(), infilling.model
    before, after = "return (", ") / count"
    plain = complete(client, before, model=model)
    between = complete(client, before, model=model, suffix=after)
    other = complete(client, before, model=model, suffix=") / other")
    assert texts(between) != texts(plain) and texts(between) != texts(other)
    marked = f"<|fim_prefix|>{before}<|fim_suffix|>{after}<|fim_middle|>"
    assert texts(complete(client, marked, model=model)) == texts(between)
    assert texts(complete(client, before, model=model, suffix=after, echo=True)) == [
        before + texts(between)[0]
    ]
