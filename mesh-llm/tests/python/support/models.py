"""Makes models with random weights."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .gguf_tokens import add_tokens
from .server import BUILT, REPOSITORY

MAKER = Path(os.environ.get("MESH_LLM_RANDOM_MODEL", BUILT / "examples/random-model"))
TEMPLATES = Path(__file__).resolve().parents[1] / "templates"


def build_maker() -> None:
    """For whoever runs pytest by hand: `just test-python` has built it."""
    if MAKER.exists():
        return
    command = [
        "cargo",
        "build",
        "--release",
        "--quiet",
        "--package",
        "llama-engine",
        "--example",
        "random-model",
    ]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def random_model(
    folder: Path,
    architecture: str,
    template: str | None = None,
    markers: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Path:
    """A small model; `template` names a file of `templates`, `markers` become tokens of their own."""
    name = template or "-".join([architecture, *options]).replace("--", "")
    path = folder / f"{name}.gguf"
    chosen = ["--template", str(TEMPLATES / f"{template}.jinja")] if template else []
    subprocess.run([str(MAKER), architecture, str(path), *chosen, *options], check=True)
    if markers:
        add_tokens(path, markers)
    return path
