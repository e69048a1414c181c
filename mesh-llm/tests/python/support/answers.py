"""Brings answers, streamed or not, into one form that can be compared."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from openai.types.chat import ChatCompletion, ChatCompletionChunk


@dataclass
class Call:
    """A tool call, without its random id."""

    name: str = ""
    arguments: str = ""

    def parsed(self) -> dict:
        return json.loads(self.arguments)


@dataclass
class Answer:
    """One choice of a chat completion."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str | None = None
    tokens: list[tuple[str, float]] = field(default_factory=list)


def whole(completion: ChatCompletion) -> list[Answer]:
    """The choices of an answer in one piece."""
    answers = []
    for index, choice in enumerate(completion.choices):
        assert choice.index == index
        message = choice.message
        assert message.role == "assistant"
        calls = message.tool_calls or []
        check_ids([call.id for call in calls])
        assert all(call.type == "function" for call in calls)
        answers.append(
            Answer(
                content=message.content or "",
                reasoning=reasoning_of(message) or "",
                calls=[Call(call.function.name, call.function.arguments) for call in calls],
                finish_reason=choice.finish_reason,
                tokens=tokens_of(choice),
            )
        )
    return answers


def streamed(chunks: Iterable[ChatCompletionChunk]) -> list[Answer]:
    """The choices of a stream, put together as a client does it: by index."""
    answers: dict[int, Answer] = {}
    ids: dict[int, list[str]] = {}
    identity = set()
    for chunk in chunks:
        assert chunk.object == "chat.completion.chunk"
        identity.add((chunk.id, chunk.created, chunk.model))
        for choice in chunk.choices:
            first = choice.index not in answers
            answer = answers.setdefault(choice.index, Answer())
            assert answer.finish_reason is None, "nothing comes after the end"
            assert choice.delta.role == ("assistant" if first else None)
            answer.content += choice.delta.content or ""
            answer.reasoning += reasoning_of(choice.delta) or ""
            answer.tokens += tokens_of(choice)
            answer.finish_reason = choice.finish_reason
            for delta in choice.delta.tool_calls or []:
                assert delta.index in (len(answer.calls) - 1, len(answer.calls)), (
                    "calls come one after another"
                )
                if delta.index == len(answer.calls):
                    assert delta.type == "function" and delta.function.name, "a call's first part names it"
                    answer.calls.append(Call())
                    ids.setdefault(choice.index, []).append(delta.id)
                call = answer.calls[delta.index]
                call.name += delta.function.name or ""
                call.arguments += delta.function.arguments or ""
    assert len(identity) == 1, f"chunks of one answer share id, created and model: {identity}"
    for each in ids.values():
        check_ids(each)
    assert all(answer.finish_reason for answer in answers.values())
    return [answers[index] for index in range(len(answers))]


def check_ids(ids: list[str | None]) -> None:
    assert all(ids) and len(set(ids)) == len(ids), f"every call has an id of its own: {ids}"


def reasoning_of(part: object) -> str | None:
    return getattr(part, "reasoning_content", None)


def tokens_of(choice: object) -> list[tuple[str, float]]:
    content = choice.logprobs.content if choice.logprobs else None
    return [(token.token, token.logprob) for token in content or []]
