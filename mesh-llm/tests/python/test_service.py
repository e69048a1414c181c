"""What the server tells about itself."""

import openai
import pytest
from openai import OpenAI
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from support.server import Server


def test_health_says_ok(tiny: Server) -> None:
    response = tiny.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_models_lists_the_one_model(client: OpenAI) -> None:
    models = client.models.list()
    assert models.object == "list"
    assert [(model.id, model.object) for model in models] == [("tiny", "model")]
    assert models.data[0].created > 1_700_000_000


def test_a_model_is_found_by_its_name(client: OpenAI) -> None:
    assert client.models.retrieve("tiny") == client.models.list().data[0]


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"
    assert "gpt-4" in caught.value.message and "tiny" in caught.value.message


def test_metrics_are_read_by_prometheus(tiny: Server) -> None:
    response = tiny.get("/metrics")
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert {"mesh_llm_slots", "mesh_llm_slots_busy", "mesh_llm_completion_tokens"} <= families.keys()
    for family in families.values():
        assert family.documentation
        assert all(sample.labels["model"] == "tiny" for sample in family.samples)


def test_metrics_count_what_was_used(tiny: Server, client: OpenAI) -> None:
    names = ["requests_total", "prompt_tokens_total", "completion_tokens_total"]
    before = [tiny.metric(name) for name in names]
    messages = [{"role": "user", "content": "Name 3 colors."}]
    usage = client.chat.completions.create(model="tiny", messages=messages).usage
    after = [tiny.metric(name) for name in names]
    assert [new - old for old, new in zip(before, after, strict=True)] == [
        1,
        usage.prompt_tokens,
        usage.completion_tokens,
    ]


def test_props_describe_model_and_server(tiny: Server) -> None:
    props = tiny.props()
    assert props["total_slots"] == 8 and props["model_alias"] == "tiny"
    assert props["default_generation_settings"]["n_ctx"] > 0
    assert "<|im_start|>" in props["chat_template"]
    assert props["chat_template_caps"]["supports_tool_calls"] is True


def test_text_comes_back_from_its_tokens(tiny: Server) -> None:
    for text in [
        "Hello there!",
        "def f(x):\n\treturn x",
        "naïve → 中文 😀",
        " leading and trailing ",
        "<|im_start|>",
    ]:
        assert tiny.detokenize(tiny.tokenize(text)) == text


def test_tokens_are_shown_with_their_pieces(tiny: Server) -> None:
    body = {"content": "What is a mesh?", "with_pieces": True}
    tokens = tiny.post("/tokenize", json=body).json()["tokens"]
    assert "".join(token["piece"] for token in tokens) == "What is a mesh?"
    assert [token["id"] for token in tokens] == tiny.tokenize("What is a mesh?")


def test_only_local_pages_may_read_answers(tiny: Server) -> None:
    def allowed(origin: str) -> str | None:
        return tiny.get("/v1/models", headers={"Origin": origin}).headers.get("access-control-allow-origin")

    assert allowed("http://localhost:3000") == "http://localhost:3000"
    assert allowed("https://example.com") is None
    assert allowed("http://localhost.example.com") is None


def test_paths_and_methods_that_do_not_exist_are_explained(tiny: Server) -> None:
    for response, status, code in [
        (tiny.get("/v1/nothing"), 404, "unknown_url"),
        (tiny.get("/v1/chat/completions"), 405, "method_not_allowed"),
    ]:
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, None)
        assert error["type"] == "invalid_request_error" and error["message"]
