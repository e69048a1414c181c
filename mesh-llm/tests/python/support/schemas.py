"""Makes JSON schemas of which every output ends: all strings, lists and numbers are bounded.

Only keywords that llama.cpp turns into its grammar are used, so that every output must validate.
"""

import random

NAMES = ["name", "age", "a b", "a-b", "größe", "x_1", "$id", 'say "hi"', "tags", "😀", "Name", "back\\slash"]
WORDS = ["red", "green", "blue", "", "two words", 'quo"ted', "back\\slash", "línea\nnueva", "日本"]
PATTERNS = [
    "^[a-z]{2,6}$",
    "^[A-Z]{3}-[0-9]{2,4}$",
    "^(yes|no|maybe)$",
    "^v[0-9]{1,2}(\\.[0-9]{1,2}){0,2}$",
    "^#[0-9a-f]{6}$",
    "^(?:ab|c{2,3}){1,3}x?$",
]
FORMATS = ["date", "time", "date-time", "uuid"]
MAX_DEPTH = 3


def schema(chance: random.Random) -> dict:
    """An object, as OpenAI's strict mode wants at the top, or now and then something else."""
    return obj(chance, 0) if chance.random() < 0.8 else value(chance, 0)


def value(chance: random.Random, depth: int) -> dict:
    simple = [string, integer, number, boolean, null, enum, const, nullable]
    nested = [obj, array, tuple_of, any_of, one_of, all_of, reference]
    kinds = simple if depth >= MAX_DEPTH else simple + nested
    return chance.choice(kinds)(chance, depth + 1)


def string(chance: random.Random, depth: int) -> dict:
    kind = chance.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": chance.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": chance.choice(FORMATS)}
    most = chance.randint(0, 12)
    least = {"minLength": chance.randint(0, most)} if kind == 2 else {}
    return {"type": "string", "maxLength": most, **least}


def integer(chance: random.Random, depth: int) -> dict:
    if chance.random() < 0.2:
        return {"type": "integer"}
    size = 10 ** chance.randint(0, 6)
    low = chance.randint(-size, size)
    high = low + chance.randint(2, 2 * size)
    least = chance.choice([{"minimum": low}, {"exclusiveMinimum": low}, {}])
    most = chance.choice([{"maximum": high}, {"exclusiveMaximum": high}, {}])
    return {"type": "integer", **least, **most}


def number(chance: random.Random, depth: int) -> dict:
    return {"type": "number"}


def boolean(chance: random.Random, depth: int) -> dict:
    return {"type": "boolean"}


def null(chance: random.Random, depth: int) -> dict:
    return {"type": "null"}


def enum(chance: random.Random, depth: int) -> dict:
    pool = [*WORDS, 0, -7, 3.5, True, None, {"a": [1, "x"]}, [], 12345678901]
    return {"enum": chance.sample(pool, chance.randint(1, 5))}


def const(chance: random.Random, depth: int) -> dict:
    return {"const": chance.choice([*WORDS, 42, False, None, [1, {"b": "c"}]])}


def nullable(chance: random.Random, depth: int) -> dict:
    return {"type": ["string", "integer", "null"], "maxLength": 6, "minimum": 0, "maximum": 99}


def obj(chance: random.Random, depth: int) -> dict:
    names = chance.sample(NAMES, chance.randint(1, 5))
    required = [name for name in names if chance.random() < 0.6]
    properties = {name: value(chance, depth + 1) for name in names}
    closed = {"additionalProperties": False} if chance.random() < 0.5 else {}
    return {"type": "object", "properties": properties, "required": required, **closed}


def array(chance: random.Random, depth: int) -> dict:
    most = chance.randint(0, 4)
    least = {"minItems": chance.randint(0, most)} if chance.random() < 0.5 else {}
    return {"type": "array", "items": value(chance, depth + 1), "maxItems": most, **least}


def tuple_of(chance: random.Random, depth: int) -> dict:
    return {"type": "array", "prefixItems": [value(chance, depth + 1) for _ in range(chance.randint(1, 3))]}


def any_of(chance: random.Random, depth: int) -> dict:
    return {"anyOf": [value(chance, depth + 1) for _ in range(chance.randint(1, 3))]}


def one_of(chance: random.Random, depth: int) -> dict:
    """Alternatives of which never two fit, told apart by a constant."""
    tags = chance.sample(["cat", "dog", "owl"], chance.randint(1, 3))
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": tag}, "of": value(chance, depth + 1)},
                "required": ["kind", "of"],
            }
            for tag in tags
        ]
    }


def all_of(chance: random.Random, depth: int) -> dict:
    def part(name: str) -> dict:
        return {"type": "object", "properties": {name: value(chance, depth + 1)}, "required": [name]}

    first, second = chance.sample(NAMES, 2)
    return {"allOf": [part(first), part(second)]}


def reference(chance: random.Random, depth: int) -> dict:
    """To a definition that `with_definitions` adds."""
    return {"$ref": f"#/$defs/{chance.choice(['point', 'color'])}"}


def with_definitions(schema: dict) -> dict:
    point = {"type": "integer", "minimum": -9, "maximum": 9}
    definitions = {
        "point": {"type": "object", "properties": {"x": point, "y": point}, "required": ["x", "y"]},
        "color": {"enum": ["red", "green", "blue"]},
    }
    return {**schema, "$defs": definitions}
