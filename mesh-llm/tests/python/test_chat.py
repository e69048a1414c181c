"""Chat completions: what a request asks for is what it gets."""

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from support.answers import streamed, whole
from support.server import Server

STORY = [{"role": "user", "content": "Tell me a story."}]


def ask(
    client: OpenAI, question: str | list[ChatCompletionMessageParam], **options: object
) -> ChatCompletion:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return client.chat.completions.create(
        **{"model": "tiny", "messages": messages, "temperature": 0, **options}
    )


def text(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content


def test_an_answer_has_openais_shape(client: OpenAI) -> None:
    completion = ask(client, "What is a mesh?")
    assert completion.object == "chat.completion" and completion.model == "tiny"
    assert completion.id.startswith("chatcmpl-") and completion.created > 1_700_000_000
    (answer,) = whole(completion)
    assert answer.content.startswith("A mesh is a group of machines")
    assert answer.finish_reason == "stop" and not answer.calls and not answer.reasoning
    usage = completion.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_earlier_turns_are_remembered(client: OpenAI) -> None:
    turns = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Nice to meet you, Ada!"},
        {"role": "user", "content": "What is my name?"},
    ]
    assert text(ask(client, turns)) == "Your name is Ada."


def test_a_system_message_reaches_the_prompt(client: OpenAI) -> None:
    user = {"role": "user", "content": "Hello"}
    alone = ask(client, [user])
    for role in ["system", "developer"]:
        both = ask(client, [{"role": role, "content": "Answer briefly."}, user])
        assert both.usage.prompt_tokens > alone.usage.prompt_tokens + 3


def test_content_may_come_in_parts(client: OpenAI) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": " a mesh?"}]
    answer = text(ask(client, [{"role": "user", "content": parts}]))
    assert "mesh" in answer or "machine" in answer


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_limit(client: OpenAI, limit: str) -> None:
    completion = ask(client, "What is a mesh?", **{limit: 5})
    assert completion.usage.completion_tokens == 5
    assert completion.choices[0].finish_reason == "length"
    assert text(ask(client, "What is a mesh?")).startswith(text(completion))


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(client: OpenAI) -> None:
    full = text(ask(client, "Count to 12."))
    assert ", 5, 6" in full
    for stop in [", 6", ["never", ", 6, 7"], [", 6", ", 7"]]:
        for answer in [
            whole(ask(client, "Count to 12.", stop=stop)),
            streamed(ask(client, "Count to 12.", stop=stop, stream=True)),
        ]:
            assert answer[0].content == full[: full.index(", 6")]
            assert answer[0].finish_reason == "stop"


def test_no_part_of_a_stop_text_is_ever_streamed(client: OpenAI) -> None:
    parts = [
        chunk.choices[0].delta.content or ""
        for chunk in ask(client, "Count to 12.", stop="7, 8, 9", stream=True)
        if chunk.choices
    ]
    assert "".join(parts) == "1, 2, 3, 4, 5, 6, "


def test_n_answers_differ_where_chance_decides(client: OpenAI) -> None:
    answers = whole(ask(client, STORY, n=4, seed=7, temperature=1.2, max_tokens=30))
    assert len({answer.content for answer in answers}) == 4


def test_n_greedy_answers_are_one_answer(client: OpenAI) -> None:
    alone = text(ask(client, "What is a mesh?"))
    for answers in [
        whole(ask(client, "What is a mesh?", n=5)),
        streamed(ask(client, "What is a mesh?", n=5, stream=True)),
    ]:
        assert [answer.content for answer in answers] == [alone] * 5


def test_usage_of_n_answers_counts_the_prompt_once(client: OpenAI) -> None:
    one = ask(client, STORY, max_tokens=4).usage
    three = ask(client, STORY, max_tokens=4, n=3).usage
    assert three.prompt_tokens == one.prompt_tokens
    assert three.completion_tokens == 3 * one.completion_tokens


def test_a_seed_makes_an_answer_repeatable(single: Server) -> None:
    def story(seed: int) -> str:
        return text(ask(single.client(), STORY, seed=seed, temperature=1.2, max_tokens=40))

    assert story(1) == story(1)
    assert len({story(seed) for seed in range(4)}) == 4


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    assert len({text(ask(client, STORY, temperature=1.2, max_tokens=40)) for _ in range(4)}) > 1


def test_temperature_0_is_greedy_and_top_k_1_and_min_p_1_come_to_the_same(single: Server) -> None:
    client = single.client()
    greedy = text(ask(client, STORY, max_tokens=40))
    for options in [{"top_k": 1}, {"min_p": 1.0}]:
        assert text(ask(client, STORY, max_tokens=40, temperature=1, extra_body=options)) == greedy
    assert text(ask(client, STORY, max_tokens=40, temperature=1, top_p=1e-6)) == greedy


def test_a_bias_of_100_forces_a_token_and_of_minus_100_bans_it(tiny: Server, client: OpenAI) -> None:
    fox = tiny.tokenize(" fox")
    assert len(fox) == 1
    forced = ask(client, STORY, logit_bias={str(fox[0]): 100}, max_tokens=5)
    assert text(forced) == " fox" * 5
    first = tiny.tokenize(text(ask(client, STORY, max_tokens=1)))[0]
    banned = ask(client, STORY, logit_bias={str(first): -100}, max_tokens=1)
    assert tiny.tokenize(text(banned))[0] != first


@pytest.mark.parametrize(
    "options",
    [
        {"frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"extra_body": {"repeat_penalty": 2.0, "repeat_last_n": 256}},
    ],
)
def test_penalties_make_an_answer_more_varied(endless: Server, options: dict) -> None:
    # One token is made likely, so that only the penalties keep it from being said over and over.
    likely = endless.token("a")

    def said(**more: object) -> int:
        completion = ask(
            endless.client(), STORY, model=endless.model, max_tokens=40, logit_bias={str(likely): 12}, **more
        )
        return text(completion).count("a")

    assert said(**options) < said()


def test_unknown_fields_are_ignored(client: OpenAI) -> None:
    plain = text(ask(client, "What is a mesh?"))
    extra = {"never_heard_of": {"deep": [1, None]}, "store": True, "service_tier": "auto"}
    assert text(ask(client, "What is a mesh?", extra_body=extra, user="me", metadata={"a": "b"})) == plain


def test_a_grammar_shapes_the_answer(client: OpenAI) -> None:
    grammar = 'root ::= "yes" | "no"'
    for answer in [
        whole(ask(client, "Hello", extra_body={"grammar": grammar})),
        streamed(ask(client, "Hello", extra_body={"grammar": grammar}, stream=True)),
    ]:
        assert answer[0].content in ("yes", "no") and answer[0].finish_reason == "stop"


def test_a_json_object_is_one(client: OpenAI) -> None:
    question = "Make JSON: Ada is 36 and lives in Lima."
    answer = whole(ask(client, question, response_format={"type": "json_object"}))[0]
    assert answer.finish_reason == "stop"
    assert answer.content == '{"name": "Ada", "age": 36, "city": "Lima"}'
