"""Asks in Anthropic's dialect, with Anthropic's own client."""

from anthropic import Anthropic
from anthropic.types import Message

from .server import Server

HELLO = [{"role": "user", "content": "Hello"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = {"temperature": 0}


def client_of(server: Server) -> Anthropic:
    return Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60)


def ask(client: Anthropic, messages: list, **options: object) -> Message:
    settings = {"model": "tiny", "max_tokens": 200, **options}
    return client.messages.create(
        messages=messages, extra_body={**GREEDY, **settings.pop("extra_body", {})}, **settings
    )


def without_names(message: Message) -> dict:
    """An answer, less what differs each time and what depends on the cache."""
    told = message.model_dump(exclude={"id", "usage"}, exclude_none=True)
    for block in told["content"]:
        block.pop("id", None)
        block.pop("signature", None)
    return {**told, "output_tokens": message.usage.output_tokens}


def both_ways(client: Anthropic, messages: list, **options: object) -> Message:
    """The answer in one piece, once it is seen to be that of the stream."""
    # From here on both find the prompt in the cache: computed as a whole, it is rounded otherwise.
    ask(client, messages, **{**options, "max_tokens": 1})
    whole = ask(client, messages, **options)
    settings = {"model": "tiny", "max_tokens": 200, **options}
    with client.messages.stream(messages=messages, extra_body=GREEDY, **settings) as stream:
        final = stream.get_final_message()
    assert without_names(final) == without_names(whole)
    assert total(final) == total(whole)
    return whole


def total(message: Message) -> int:
    usage = message.usage
    assert usage.cache_creation_input_tokens == 0
    return usage.input_tokens + usage.cache_read_input_tokens
