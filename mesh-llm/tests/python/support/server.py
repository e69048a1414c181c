"""Runs the real binary."""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import AsyncOpenAI, OpenAI
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[4]
BUILT = REPOSITORY / os.environ.get("MESH_LLM_TARGET", "target") / "release"
BINARY = Path(os.environ.get("MESH_LLM_BIN", BUILT / "mesh-llm"))

# Seconds from the start of the program until it answers, and from SIGTERM until it ended.
START_LIMIT = 60.0
STOP_LIMIT = 40.0


@dataclass
class Server:
    """A daemon that answers requests."""

    url: str
    model: str

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **options)

    def post(self, path: str, **options: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=60, **options)

    def props(self) -> dict:
        return self.get("/props").raise_for_status().json()

    def metric(self, name: str) -> float:
        """The value of a metric without its prefix: `slots_busy`."""
        text = self.get("/metrics").raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"mesh_llm_{name}":
                    return sample.value
        raise KeyError(name)

    def tokenize(self, text: str) -> list[int]:
        return self.post("/tokenize", json={"content": text}).raise_for_status().json()["tokens"]

    def detokenize(self, tokens: list[int]) -> str:
        return self.post("/detokenize", json={"tokens": tokens}).raise_for_status().json()["content"]

    def token(self, text: str) -> int:
        """The one token that is written like this."""
        body = {"content": text, "with_pieces": True}
        tokens = self.post("/tokenize", json=body).raise_for_status().json()["tokens"]
        found = [token["id"] for token in tokens if token["piece"] == text]
        assert len(found) == 1, f"{text!r} is not one token: {tokens}"
        return found[0]

    def is_idle(self) -> bool:
        return self.metric("slots_busy") == 0 and self.metric("requests_waiting") == 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# These tests are about one machine's dialects. Answers that are asked for twice are compared, and guesses, of which there
# are more or fewer as time allows, make steps of other shapes, whose numbers are rounded differently.
SETTINGS = {"MESH_LLM_NO_MESH": "1", "MESH_LLM_NO_CONSOLE": "1", "MESH_LLM_SPECULATE": "off"}


@contextmanager
def serve(model: str | Path, *flags: str) -> Iterator[Server]:
    """Serves a model with a state directory of its own; at the end, the daemon must end well."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mesh-llm-") as folder:
        log = Path(folder, "log")
        # One thread is the quickest for models this small, and the only way that does not wait for a
        # busy core.
        command = [BINARY, "--model", model, "--port", str(port), "--threads", "1", *flags]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MESH_LLM_")}
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**kept, **SETTINGS, "MESH_LLM_HOME": f"{folder}/home"},
            )
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(f"{command} is ready", lambda: is_ready(process, url, log), START_LIMIT)
            name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
            yield Server(url, name)
        finally:
            code = stop(process)
        assert code == 0, f"the daemon ended with {code}:\n{log.read_text()}"


def is_ready(process: subprocess.Popen, url: str, log: Path) -> bool:
    assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{log.read_text()}"
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stop(process: subprocess.Popen) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
