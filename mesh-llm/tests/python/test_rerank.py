"""Reranking, by random weights: what they prefer means nothing, but is always the same."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from support.models import random_model
from support.server import Server, serve

QUERY = "What is a mesh?"
DOCUMENTS = ["A mesh is a group of machines.", "The sky is blue.", "Two plus two is four.", "Foxes are red."]


@pytest.fixture(scope="module")
def ranker(models: Path) -> Iterator[Server]:
    with serve(random_model(models, "bert", options=["--pooling", "rank"])) as server:
        yield server


def rerank(server: Server, path: str = "/v1/rerank", **body: object) -> dict:
    request = {"model": server.model, "query": QUERY, "documents": DOCUMENTS, **body}
    return server.post(path, json=request).raise_for_status().json()


def scores(server: Server, **body: object) -> dict[int, float]:
    return {result["index"]: result["relevance_score"] for result in rerank(server, **body)["results"]}


def refusal(response: httpx.Response) -> dict:
    assert response.status_code == 400, response.text
    return response.json()["error"]


def test_documents_are_sorted_by_their_scores(ranker: Server) -> None:
    answer = rerank(ranker)
    assert (answer["object"], answer["model"]) == ("list", ranker.model)
    found = [result["relevance_score"] for result in answer["results"]]
    assert found == sorted(found, reverse=True) and all(0 < score < 1 for score in found)
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2, 3]
    assert len(set(found)) == 4, "documents are told apart"
    assert rerank(ranker, "/rerank")["results"] == answer["results"]


def test_a_document_has_the_same_score_in_any_company(ranker: Server) -> None:
    together = scores(ranker)
    for index, document in enumerate(DOCUMENTS):
        assert scores(ranker, documents=[document])[0] == pytest.approx(together[index], abs=1e-5)
    turned = scores(ranker, documents=DOCUMENTS[::-1])
    assert [turned[3 - index] for index in range(4)] == pytest.approx([together[i] for i in range(4)], abs=1e-5)


def test_scores_depend_on_the_query_and_on_which_side_a_text_is(ranker: Server) -> None:
    assert scores(ranker, query="Which color?")[0] != pytest.approx(scores(ranker)[0], abs=1e-5)
    one = scores(ranker, query=DOCUMENTS[0], documents=[DOCUMENTS[1]])[0]
    other = scores(ranker, query=DOCUMENTS[1], documents=[DOCUMENTS[0]])[0]
    assert one != pytest.approx(other, abs=1e-5)


def test_usage_counts_each_pair_with_its_marks(ranker: Server) -> None:
    tokens = sum(len(ranker.tokenize(QUERY)) + len(ranker.tokenize(document)) for document in DOCUMENTS)
    usage = rerank(ranker)["usage"]
    # One token begins a pair, one ends each text.
    assert usage["prompt_tokens"] == usage["total_tokens"] == tokens + 3 * len(DOCUMENTS)


def test_the_best_alone_and_with_their_texts(ranker: Server) -> None:
    everything = rerank(ranker)["results"]
    assert all("document" not in result for result in everything)
    best = rerank(ranker, top_n=2, return_documents=True)["results"]
    assert [result["index"] for result in best] == [result["index"] for result in everything[:2]]
    assert all(result["document"] == {"text": DOCUMENTS[result["index"]]} for result in best)
    objects = [{"text": document, "title": "x"} for document in DOCUMENTS]
    assert rerank(ranker, documents=objects)["results"] == everything
    assert len(rerank(ranker, top_n=99)["results"]) == 4


def test_what_is_too_long_is_cut_unless_that_is_not_wanted(ranker: Server) -> None:
    long = "word " * 3000
    answer = rerank(ranker, documents=[long, DOCUMENTS[1]])
    assert len(answer["results"]) == 2
    assert 400 < answer["usage"]["prompt_tokens"] < 2 * 512
    request = {"query": QUERY, "documents": [DOCUMENTS[1], long], "truncate": False}
    error = refusal(ranker.post("/v1/rerank", json=request))
    assert (error["param"], error["code"]) == ("documents[1]", "context_length_exceeded")
    error = refusal(ranker.post("/v1/rerank", json={"query": long, "documents": DOCUMENTS}))
    assert error["code"] == "context_length_exceeded" and "512" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": DOCUMENTS}, "query"),
        ({"query": QUERY}, "documents"),
        ({"query": QUERY, "documents": []}, "documents"),
        ({"query": QUERY, "documents": ["a", 5]}, "documents[1]"),
        ({"query": QUERY, "documents": [{"title": "a"}]}, "documents[0].text"),
        ({"query": QUERY, "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_what_is_wrong_is_named(ranker: Server, body: dict, param: str) -> None:
    assert refusal(ranker.post("/v1/rerank", json=body))["param"] == param


def test_a_model_does_what_it_was_made_for(ranker: Server, tiny: Server) -> None:
    request = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS}
    error = refusal(tiny.post("/v1/rerank", json=request))
    assert error["param"] == "model" and "/v1/embeddings" in error["message"]
    with pytest.raises(openai.BadRequestError, match="/v1/rerank"):
        ranker.client().embeddings.create(model=ranker.model, input="a")
    assert tiny.post("/v1/rerank", json={**request, "model": "gpt-4"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("audio/speech", "speech"),
        ("images/generations", "image"),
        ("moderations", "moderation"),
        ("files", "file"),
        ("fine_tuning/jobs", "fine-tuning"),
        ("batches", "batch"),
        ("assistants", "assistants"),
        ("realtime/sessions", "realtime"),
    ],
)
def test_what_this_server_has_not_it_says(tiny: Server, path: str, what: str) -> None:
    response = tiny.post(f"/v1/{path}", json={})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "unknown_url", "invalid_request_error")
    assert what in error["message"]
