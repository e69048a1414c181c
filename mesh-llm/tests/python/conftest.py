"""Servers that several tests use, started once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from support.models import build_maker, random_model
from support.server import BINARY, Server, serve


def pytest_configure() -> None:
    # Servers are stopped however the tests end.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=1))
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is missing: run `just build`, or set MESH_LLM_BIN", returncode=1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models."""
    build_maker()
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny() -> Iterator[Server]:
    """The embedded model, which talks and calls tools."""
    with serve("tiny", "--parallel", "8", "--queue", "64") as server:
        yield server


@pytest.fixture(scope="session")
def single() -> Iterator[Server]:
    """The same with one slot: every answer finds the same place in the cache, so that its sums, and
    what chance makes of them, are the same to the last digit."""
    with serve("tiny", "--parallel", "1", "--queue", "64") as server:
        yield server


@pytest.fixture(scope="session")
def client(tiny: Server) -> OpenAI:
    return tiny.client()


@pytest.fixture(scope="session")
def endless(models: Path) -> Iterator[Server]:
    """Random weights that never end an answer by themselves."""
    model = random_model(models, "llama", options=["--bytes", "bytes"])
    with serve(model, "--parallel", "4", "--ctx-size", "2048", "--queue", "64") as server:
        yield server
