"""Families of models: their templates, and the markers that are tokens of their own."""

from collections.abc import Callable
from dataclasses import dataclass, field

OBJECT = {"type": "object", "additionalProperties": False}
# Strings are shorter than any marker, so that none of these fits into one.
NAME = {"type": "string", "maxLength": 5}
GUESTS = {"type": "integer", "minimum": 1, "maximum": 12}


def function(name: str, properties: dict, *required: str) -> dict:
    parameters = {**OBJECT, "properties": properties, "required": list(required)}
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}.", "parameters": parameters},
    }


LAYERS = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
DATE = {"type": "string", "pattern": "^2[0-9]{3}-[01][0-9]$"}
COLOR = {"enum": ["red", "green", "dark blue"]}

TOOLS = [
    function("book_table", {"name": NAME, "guests": GUESTS, "date": DATE}, "name", "guests"),
    function("paint", {"color": COLOR, "layers": LAYERS}, "color", "layers"),
    function("stop_everything", {}),
]
# Where arguments stand between tags, llama.cpp's grammar leaves strings open, as it is the tag that
# ends them, and lets arguments that are not required come again and again.
TAGGED_TOOLS = [
    function("book_table", {"name": {"type": "string"}, "guests": GUESTS}, "name", "guests"),
    function("paint", {"layers": LAYERS, "glossy": {"type": "boolean"}}, "layers", "glossy"),
]


# Added to logits. A line break is rare after the markers that it belongs to.
LIKELY, BREAK = 20, 40


@dataclass(frozen=True)
class Dialect:
    """How a family of models calls tools."""

    template: str
    # Tokens of their own, as in real models.
    markers: tuple[str, ...]
    # What random weights are led to write where the grammar leaves them a choice: they know nothing
    # of when it is time to stop thinking and to call.
    likely: tuple[str, ...]
    tools: list[dict] = field(default_factory=lambda: TOOLS)

    def steering(self, token: Callable[[str], int]) -> dict:
        """Parameters with which random weights come to an end; `token` is the number of a text."""
        bias = {str(token(text)): BREAK if text == "\n" else LIKELY for text in (*self.likely, "</s>")}
        # Without the penalty they would say the same over and over.
        return {"logit_bias": bias, "temperature": 2, "frequency_penalty": 2}


THINK = ("<think>", "</think>")
CALL = ("<tool_call>", "</tool_call>")
DIALECTS = [
    Dialect("hermes", CALL, ("<tool_call>", "\n")),
    Dialect("qwen3", (*THINK, *CALL), ("</think>", "<tool_call>", "\n")),
    Dialect(
        "qwen3-coder",
        (*CALL, "<function=", "</function>", "<parameter=", "</parameter>"),
        ("<tool_call>", "<function=", "</parameter>", "\n"),
        TAGGED_TOOLS,
    ),
    Dialect("llama-3", (), ("{",)),
    Dialect("mistral-nemo", ("[TOOL_CALLS]",), ("[TOOL_CALLS]",)),
    Dialect("mistral-small", ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"), ("[TOOL_CALLS]", "[ARGS]")),
    Dialect(
        "command-r7b",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_ACTION|>", "<|END_ACTION|>"),
        ("<|END_THINKING|>", "<|START_ACTION|>"),
    ),
    Dialect(
        "deepseek-v3",
        (
            *THINK,
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        ("</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    Dialect(
        "gpt-oss",
        ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"),
        (" ", "<|start|>", "<|message|>", "<|end|>"),
    ),
    Dialect(
        "glm-4",
        (*THINK, *CALL, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        ("</think>", "<tool_call>"),
        TAGGED_TOOLS[1:],
    ),
    Dialect("granite", ("<|tool_call|>",), ("<|tool_call|>",)),
    Dialect(
        "kimi-k2",
        (
            *THINK,
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
        ("</think>", "<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
    ),
]
