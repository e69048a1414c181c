"""Ollama's API, by its official client."""

import asyncio
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest
from ollama import AsyncClient, ChatResponse, Client, ResponseError

from support.models import random_model
from support.server import Server, serve
from support.waiting import eventually

GREEDY = {"temperature": 0, "num_predict": 200}
HELLO = [{"role": "user", "content": "What is a mesh?"}]
CALL = {"function": {"name": "look", "arguments": {}}}


@pytest.fixture(scope="module")
def api(single: Server) -> Client:
    return Client(host=single.url, timeout=60)


def get_weather(city: str) -> str:
    """Weather in a city

    Args:
      city: The city
    """
    return json.dumps({"city": city, "sky": "sunny", "celsius": 21})


def get_time(city: str) -> str:
    """Local time in a city

    Args:
      city: The city
    """
    return json.dumps({"city": city, "time": "09:30"})


TOOLS = {tool.__name__: tool for tool in [get_weather, get_time]}


def check_end(response: ollama.ChatResponse | ollama.GenerateResponse, reason: str = "stop") -> None:
    assert response.done is True and response.done_reason == reason
    assert response.prompt_eval_count > 0 and response.eval_count > 0
    parts = [response.load_duration, response.prompt_eval_duration, response.eval_duration]
    assert all(part >= 0 for part in parts) and response.total_duration == sum(parts) > 0
    created = datetime.datetime.fromisoformat(response.created_at)
    assert abs((datetime.datetime.now(datetime.UTC) - created).total_seconds()) < 60


def both_ways(api: Client, messages: list, **options: object) -> ChatResponse:
    """The answer in one piece, once it is seen to be that of the stream."""
    settings = {"options": GREEDY, **options}
    # From here on both find the prompt in the cache.
    api.chat("tiny", messages, **{**settings, "options": {**settings["options"], "num_predict": 1}})
    whole = api.chat("tiny", messages, **settings)
    *pieces, end = api.chat("tiny", messages, stream=True, **settings)
    assert all(piece.done is False and piece.message.role == "assistant" for piece in pieces)
    assert end.message.content == "" and (end.done, end.done_reason) == (True, whole.done_reason)
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert "".join(piece.message.thinking or "" for piece in pieces) == (whole.message.thinking or "")
    calls = [call for piece in pieces for call in piece.message.tool_calls or []]
    assert calls == list(whole.message.tool_calls or [])
    assert (end.eval_count, end.prompt_eval_count) == (whole.eval_count, whole.prompt_eval_count)
    return whole


def test_a_chat_is_answered(api: Client) -> None:
    response = both_ways(api, HELLO)
    check_end(response)
    assert response.model == "tiny" and "mesh" in response.message.content.lower()
    assert response.message.tool_calls is None and response.message.thinking is None


def test_the_answer_is_that_of_the_other_dialect(single: Server, api: Client) -> None:
    mine = both_ways(api, HELLO)
    theirs = single.client().chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_tokens=200
    )
    assert mine.message.content == theirs.choices[0].message.content
    assert mine.eval_count == theirs.usage.completion_tokens
    assert mine.prompt_eval_count == theirs.usage.prompt_tokens


def test_a_name_may_have_ollamas_tag(api: Client) -> None:
    response = api.chat("tiny:latest", HELLO, options=GREEDY)
    assert response.model == "tiny:latest" and response.message.content


def test_a_stream_is_what_silence_asks_for(single: Server) -> None:
    body = {"model": "tiny", "messages": HELLO, "options": GREEDY}
    response = single.post("/api/chat", json=body)
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len(lines) > 2 and [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    whole = single.post("/api/chat", json={**body, "stream": False})
    assert whole.headers["content-type"].startswith("application/json")
    assert whole.json()["message"]["content"] == "".join(line["message"]["content"] for line in lines)


def test_a_form_that_curl_sends_by_itself_is_taken(single: Server) -> None:
    body = json.dumps({"model": "tiny", "prompt": "Hello", "stream": False, "options": GREEDY})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert single.post("/api/generate", content=body, headers=headers).json()["done"] is True


def test_options_reach_the_engine(api: Client) -> None:
    cut = api.chat("tiny", HELLO, options={**GREEDY, "num_predict": 3, "num_ctx": 1 << 20})
    check_end(cut, "length")
    assert cut.eval_count == 3
    full = both_ways(api, HELLO).message.content
    stopped = api.chat("tiny", HELLO, options={**GREEDY, "stop": [full.split()[2]]})
    assert full.startswith(stopped.message.content) and stopped.message.content != full
    assert stopped.done_reason == "stop"
    unlimited = api.chat("tiny", HELLO, options={**GREEDY, "num_predict": -1})
    assert unlimited.message.content == full
    seeded = {"temperature": 1.5, "seed": 7, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "num_predict": 20}
    api.chat("tiny", HELLO, options=seeded)
    first, again, other = (
        api.chat("tiny", HELLO, options={**seeded, "seed": seed}).message.content for seed in [7, 7, 8]
    )
    assert first == again != other


@pytest.mark.parametrize("question", ["What is the weather in Paris?", "What time is it in Tokyo?"])
def test_tools_are_called_in_a_loop_of_several_turns(api: Client, question: str) -> None:
    messages: list = [{"role": "user", "content": question}]
    called = []
    for _ in range(5):
        response = both_ways(api, messages, tools=list(TOOLS.values()))
        messages.append(response.message)
        if not response.message.tool_calls:
            break
        for call in response.message.tool_calls:
            called.append(call.function.name)
            content = TOOLS[call.function.name](**call.function.arguments)
            messages.append({"role": "tool", "tool_name": call.function.name, "content": content})
    weather = "weather" in question
    assert called == ["get_weather" if weather else "get_time"]
    assert ("21" if weather else "09:30") in messages[-1].content
    # A second question in the same chat.
    messages.append({"role": "user", "content": "What is the weather in Oslo?"})
    (call,) = both_ways(api, messages, tools=list(TOOLS.values())).message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})


def test_a_format_is_kept(api: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "count": {"type": "integer", "maximum": 9}},
        "required": ["city", "count"],
        "additionalProperties": False,
    }
    answer = json.loads(both_ways(api, HELLO, format=schema).message.content)
    assert answer["city"] in ["Paris", "Rome"] and answer["count"] <= 9
    text = both_ways(api, HELLO, format="json", options={**GREEDY, "num_predict": 400})
    assert text.message.content.startswith("{")
    generated = api.generate("tiny", "Name a city.", format=schema, options=GREEDY)
    assert set(json.loads(generated.response)) == {"city", "count"}
    raw = api.generate("tiny", "Name a city.", raw=True, format=schema, options=GREEDY)
    assert set(json.loads(raw.response)) == {"city", "count"}


def test_likelihoods_are_told(api: Client) -> None:
    response = api.chat("tiny", HELLO, logprobs=True, top_logprobs=2, options=GREEDY)
    assert "".join(token.token for token in response.logprobs) == response.message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in response.logprobs)
    pieces = api.generate("tiny", "Once", raw=True, logprobs=True, top_logprobs=2, options=GREEDY, stream=True)
    pieces = list(pieces)
    tokens = [token.token for piece in pieces for token in piece.logprobs or []]
    assert tokens and "".join(tokens) == "".join(piece.response for piece in pieces)


def test_a_prompt_is_answered_as_a_chat(api: Client) -> None:
    prompt = {"model": "tiny", "prompt": "What is a mesh?", "options": GREEDY}
    both_ways(api, HELLO)
    response = api.generate(**prompt)
    check_end(response)
    assert response.response == both_ways(api, HELLO).message.content
    *pieces, end = api.generate(**prompt, stream=True)
    check_end(end)
    assert "".join(piece.response for piece in pieces) == response.response and end.response == ""
    system = api.generate(**prompt, system="Answer in French.")
    assert system.prompt_eval_count > response.prompt_eval_count


def test_a_raw_prompt_is_continued(single: Server, api: Client) -> None:
    settings = {"model": "tiny", "prompt": "Once upon a", "options": {**GREEDY, "num_predict": 8}}
    raw = api.generate(**settings, raw=True)
    check_end(raw, "length")
    assert raw.eval_count == 8 and raw.prompt_eval_count == len(single.tokenize("Once upon a"))
    *pieces, end = api.generate(**settings, raw=True, stream=True)
    check_end(end, "length")
    assert "".join(piece.response for piece in pieces) == raw.response
    assert api.generate(**settings).response != raw.response


def test_a_gap_is_filled_only_by_models_that_can(api: Client) -> None:
    with pytest.raises(ResponseError, match="suffix") as caught:
        api.generate("tiny", "def f(", suffix="return x")
    assert caught.value.status_code == 400


def test_an_empty_request_loads_the_model(api: Client) -> None:
    generate, chat = api.generate("tiny"), api.chat("tiny", [], keep_alive="10m")
    assert (generate.done, generate.done_reason, generate.response) == (True, "load", "")
    assert (chat.done, chat.done_reason, chat.message.content) == (True, "load", "")
    (streamed,) = api.generate("tiny", stream=True)
    assert streamed.done_reason == "load"
    with pytest.raises(ResponseError) as caught:
        api.generate("gpt-4")
    assert caught.value.status_code == 404


def test_models_are_listed(single: Server, api: Client) -> None:
    (model,) = api.list().models
    assert model.model == "tiny:latest" and model.size > 1_000_000
    assert model.details.format == "gguf" and model.details.family == "llama"
    assert model.details.quantization_level == "Q8_0" and model.details.parameter_size == "2.76M"
    assert len(model.digest) == 64 and model.modified_at <= datetime.datetime.now(datetime.UTC)
    # The command line and the JavaScript client need the older name, too.
    assert single.get("/api/tags").json()["models"][0]["name"] == "tiny:latest"


def test_a_model_is_shown(single: Server, api: Client) -> None:
    for name in ["tiny", "tiny:latest"]:
        shown = api.show(name)
        assert shown.modelinfo["general.architecture"] == "llama"
        assert shown.modelinfo["llama.context_length"] == 4096
        assert shown.modelinfo["general.parameter_count"] == 2_755_008
        assert shown.capabilities == ["completion", "tools"]
        assert shown.template == single.props()["chat_template"]
        assert "temperature 0.8" in shown.parameters
    with pytest.raises(ResponseError, match="tiny:latest") as caught:
        api.show("gpt-4")
    assert caught.value.status_code == 404


def test_what_is_served_is_in_memory(single: Server, api: Client) -> None:
    (model,) = api.ps().models
    assert model.model == model.name == "tiny:latest"
    assert model.size > 1_000_000 and model.size_vram == 0
    assert model.context_length == single.props()["default_generation_settings"]["n_ctx"]
    assert model.expires_at > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)


def test_texts_become_vectors(api: Client) -> None:
    texts = ["a red fox", "two plus two"]
    response = api.embed("tiny", texts)
    assert [len(vector) for vector in response.embeddings] == [192, 192]
    assert response.prompt_eval_count > 2 and response.model == "tiny"
    (first,) = api.embed("tiny:latest", texts[0]).embeddings
    assert first == pytest.approx(response.embeddings[0], abs=1e-4)
    assert len(api.embed("tiny", "a", dimensions=16).embeddings[0]) == 16
    assert api.embeddings("tiny", texts[0]).embedding == pytest.approx(first, abs=1e-6)


def test_a_text_that_is_too_long_is_cut_unless_that_is_not_wanted(api: Client) -> None:
    long = "too long " * 2000
    assert len(api.embed("tiny", long).embeddings[0]) == 192
    with pytest.raises(ResponseError, match="tokens") as caught:
        api.embed("tiny", long, truncate=False)
    assert caught.value.status_code == 400


def test_editors_find_the_server(single: Server) -> None:
    assert single.get("/").text == "Ollama is running"
    assert httpx.head(single.url).status_code == 200
    assert httpx.head(f"{single.url}/api/tags").status_code == 200
    major, minor, _ = single.get("/api/version").json()["version"].split(".")
    # Older ones are refused by editors.
    assert (int(major), int(minor)) >= (0, 7)


def test_models_are_not_managed_here(single: Server, api: Client) -> None:
    for change in [
        lambda: api.pull("llama3"),
        lambda: list(api.pull("llama3", stream=True)),
        lambda: api.push("llama3"),
        lambda: api.create("mine", from_="tiny"),
        lambda: api.copy("tiny", "mine"),
        lambda: api.create_blob(__file__),
    ]:
        with pytest.raises(ResponseError, match="--model") as caught:
            change()
        assert caught.value.status_code == 400
    response = httpx.request("DELETE", f"{single.url}/api/delete", json={"model": "tiny"})
    assert response.status_code == 400 and "--model" in response.json()["error"]


def test_a_wrong_method_is_told_in_ollamas_words(single: Server) -> None:
    for response in [single.get("/api/chat"), single.post("/api/tags"), httpx.delete(f"{single.url}/api/show")]:
        assert response.status_code == 405 and response.headers["allow"]
        assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": "tiny", "messages": "Hello"}, "messages"),
        ({"model": "tiny", "messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"model": "tiny", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "tiny", "messages": HELLO, "options": {"temperature": "hot"}}, "options.temperature"),
        ({"model": "tiny", "messages": HELLO, "options": {"temperature": 9}}, "temperature"),
        ({"model": "tiny", "messages": HELLO, "options": {"mirostat": 1}}, "options.mirostat"),
        ({"model": "tiny", "messages": HELLO, "think": 3}, "think"),
        ({"model": "tiny", "messages": HELLO, "format": "xml"}, "format"),
        ({"model": "tiny", "messages": HELLO, "stream": 1}, "stream"),
        ({"model": "tiny", "messages": HELLO, "tools": [{"function": {}}]}, "tools[0].function.name"),
    ],
)
def test_what_is_wrong_is_named(single: Server, body: dict, words: str) -> None:
    response = single.post("/api/chat", json=body)
    assert response.status_code == 400 and words in response.json()["error"]


def test_errors_are_the_clients(api: Client) -> None:
    with pytest.raises(ResponseError, match="gpt-4") as caught:
        api.chat("gpt-4", HELLO)
    assert caught.value.status_code == 404
    with pytest.raises(ResponseError, match="gpt-4") as caught:
        list(api.chat("gpt-4", HELLO, stream=True))
    assert caught.value.status_code == 404
    with pytest.raises(ResponseError, match="messages\\[0\\].images") as caught:
        api.chat("tiny", [{"role": "user", "content": "What is this?", "images": [b"\x89PNG"]}])
    assert caught.value.status_code == 400
    with pytest.raises(ResponseError, match="images"):
        api.generate("tiny", "What is this?", images=[b"\x89PNG"])
    with pytest.raises(ResponseError, match="tokens") as caught:
        api.chat("tiny", [{"role": "user", "content": "too long " * 5000}])
    assert caught.value.status_code == 400
    with pytest.raises(ResponseError, match="template"):
        api.generate("tiny", "Hello", template="{{ .Prompt }}")
    with pytest.raises(ResponseError, match="context"):
        api.generate("tiny", "Hello", context=[1, 2])


def test_who_goes_away_frees_the_slot(models: Path) -> None:
    model = random_model(models, "llama", options=["--bytes", "bytes"])
    with serve(model, "--parallel", "1", "--ctx-size", "32768") as server:
        api = Client(host=server.url, timeout=60)
        stream = api.generate(server.model, "Hello", stream=True, options={"num_predict": -1})
        assert next(stream).done is False
        stream.close()
        eventually("the slot is free", server.is_idle, 2)
        assert server.metric("requests_cancelled_total") == 1


def test_many_chats_run_at_once(tiny: Server) -> None:
    async def one(number: int) -> ChatResponse:
        messages = [{"role": "user", "content": f"Count to {number}."}]
        return await AsyncClient(host=tiny.url).chat("tiny", messages, options=GREEDY)

    async def all_of_them() -> list[ChatResponse]:
        return await asyncio.gather(*(one(number) for number in range(2, 18)))

    for response in asyncio.run(all_of_them()):
        check_end(response, response.done_reason)


@pytest.fixture(scope="module")
def thinker(models: Path) -> Iterator[Server]:
    """Random weights behind a template that begins each answer with a thought, which they never end."""
    options = ["--bytes", "bytes"]
    model = random_model(models, "qwen3", "qwen3-thinking", ["<think>", "</think>"], options)
    with serve(model, "--parallel", "1", "--ctx-size", "2048") as server:
        yield server


@pytest.mark.parametrize("think", [None, True, "high", False])
def test_thoughts_are_told_apart(thinker: Server, think: bool | str | None) -> None:
    api = Client(host=thinker.url, timeout=60)
    assert "thinking" in api.show(thinker.model).capabilities
    settings = {"think": think, "options": {"num_predict": 40, "seed": 3}}
    messages = [{"role": "user", "content": "Hello"}]
    chat = api.chat(thinker.model, messages, **settings).message
    generated = api.generate(thinker.model, "Hello", **settings)
    streamed = [piece.message for piece in api.chat(thinker.model, messages, stream=True, **settings)]
    thoughts = [
        chat.thinking,
        generated.thinking,
        "".join(piece.thinking or "" for piece in streamed),
    ]
    said = [chat.content, generated.response, "".join(piece.content for piece in streamed)]
    if think is False:
        assert all(said) and not any(thoughts)
    else:
        assert all(thoughts) and not any(said)


def test_thoughts_come_back_to_the_model(thinker: Server) -> None:
    api = Client(host=thinker.url, timeout=60)

    def prompt_tokens(**answer: str) -> int:
        messages = [
            {"role": "user", "content": "Look it up."},
            {"role": "assistant", "content": "", "tool_calls": [CALL], **answer},
            {"role": "tool", "content": "done", "tool_name": "look"},
        ]
        return api.chat(thinker.model, messages, options={"num_predict": 1}).prompt_eval_count

    assert prompt_tokens(thinking="I should look.") > prompt_tokens()
