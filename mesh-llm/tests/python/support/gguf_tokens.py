"""Gives a model tokens for the markers of a chat template, as real models have them.

The tokens replace made-up words at the end of the vocabulary, so that no tensor changes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL, USER_DEFINED = 3, 4
ALIGNMENT = 32
STRING, ARRAY = 8, 9
FIXED_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def add_tokens(path: Path, markers: Sequence[str]) -> None:
    reader = Reader(path.read_bytes())
    magic, version, tensor_count, entry_count = reader.unpack("<4sIQQ")
    assert magic == b"GGUF" and version == 3
    entries = bytearray()
    for _ in range(entry_count):
        start = reader.offset
        key = reader.string().decode()
        kind = reader.unpack("<I")[0]
        assert key != "general.alignment"
        if key == "tokenizer.ggml.tokens":
            words = reader.strings()
            words[-len(markers) :] = [marker.encode() for marker in markers]
            entries += pack_key(key, ARRAY, STRING) + struct.pack("<Q", len(words))
            entries += b"".join(pack_string(word) for word in words)
        elif key == "tokenizer.ggml.token_type":
            (element,), (count,) = reader.unpack("<I"), reader.unpack("<Q")
            kinds = list(reader.unpack(f"<{count}i"))
            kinds[-len(markers) :] = [kind_of(marker) for marker in markers]
            entries += pack_key(key, ARRAY, element) + struct.pack(f"<Q{count}i", count, *kinds)
        else:
            reader.skip(kind)
            entries += reader.data[start : reader.offset]
    start = reader.offset
    for _ in range(tensor_count):
        reader.string()
        dimensions = reader.unpack("<I")[0]
        reader.offset += 8 * dimensions + 4 + 8
    tensors = reader.data[start : reader.offset]
    head = struct.pack("<4sIQQ", magic, version, tensor_count, entry_count) + bytes(entries) + tensors
    path.write_bytes(padded(head) + reader.data[aligned(reader.offset) :])


def kind_of(marker: str) -> int:
    """Markers such as <think> are text that a client may see, all others are not."""
    return USER_DEFINED if marker.startswith("<") and not marker.startswith(("<|", "<｜")) else CONTROL


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def padded(data: bytes) -> bytes:
    return data.ljust(aligned(len(data)), b"\0")


def pack_string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def pack_key(key: str, kind: int, element: int) -> bytes:
    return pack_string(key.encode()) + struct.pack("<II", kind, element)


@dataclass
class Reader:
    data: bytes
    offset: int = 0

    def unpack(self, form: str) -> tuple:
        values = struct.unpack_from(form, self.data, self.offset)
        self.offset += struct.calcsize(form)
        return values

    def string(self) -> bytes:
        length = self.unpack("<Q")[0]
        self.offset += length
        return self.data[self.offset - length : self.offset]

    def strings(self) -> list[bytes]:
        element, count = *self.unpack("<I"), *self.unpack("<Q")
        assert element == STRING
        return [self.string() for _ in range(count)]

    def skip(self, kind: int) -> None:
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            element, count = *self.unpack("<I"), *self.unpack("<Q")
            for _ in range(count):
                self.skip(element)
        else:
            self.offset += FIXED_SIZES[kind]
