"""What was computed once is not computed again."""

from openai import OpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from support.server import Server

LONG = "Repeat: " + " ".join(["lantern", "kite", "violin", "basket", "mirror"] * 12)


def ask(client: OpenAI, messages: list[ChatCompletionMessageParam]) -> ChatCompletion:
    return client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=20)


def cached(usage: CompletionUsage) -> int:
    return usage.prompt_tokens_details.cached_tokens


def test_a_second_turn_computes_only_what_is_new(client: OpenAI) -> None:
    turns: list[ChatCompletionMessageParam] = [{"role": "user", "content": LONG}]
    first = ask(client, turns)
    turns.append({"role": "assistant", "content": first.choices[0].message.content})
    turns.append({"role": "user", "content": "Thanks"})
    second = ask(client, turns)
    assert cached(first.usage) < 20
    assert cached(second.usage) >= first.usage.prompt_tokens
    assert second.usage.prompt_tokens - cached(second.usage) < 20 + 15


def test_the_same_prompt_again_computes_one_token(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Say once more. " + LONG}]
    first = ask(client, messages)
    again = ask(client, messages)
    assert cached(again.usage) == first.usage.prompt_tokens - 1
    assert again.choices[0].message.content == first.choices[0].message.content


def test_a_shared_beginning_is_found_in_whichever_slot_has_it(client: OpenAI) -> None:
    system = {"role": "system", "content": "Read this first. " + LONG}
    whole = ask(client, [system, {"role": "user", "content": "Hello"}]).usage.prompt_tokens
    for question in ["What is a node?", "Name 3 fruits.", "Who are you?"]:
        assert cached(ask(client, [system, {"role": "user", "content": question}]).usage) > whole - 15


def test_a_text_completion_reports_it_too(tiny: Server, client: OpenAI) -> None:
    prompt = "Once upon a time. " + LONG
    client.completions.create(model="tiny", prompt=prompt, max_tokens=1)
    usage = client.completions.create(model="tiny", prompt=prompt, max_tokens=1).usage
    assert cached(usage) == len(tiny.tokenize(prompt)) - 1


def test_metrics_count_what_was_not_computed(tiny: Server, client: OpenAI) -> None:
    before = tiny.metric("prompt_tokens_cached_total")
    usage = ask(client, [{"role": "user", "content": LONG}]).usage
    assert tiny.metric("prompt_tokens_cached_total") - before == cached(usage)
