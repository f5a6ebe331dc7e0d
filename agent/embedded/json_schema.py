"""JSON Schema as tools use it: whether a value fits, and a value that does.

    value, schema      -> fits()   -> whether a call may carry it
    schema, words said -> filled() -> a value made of the words, defaults and the least there must be

Pure. The schemas are strangers': whatever is not understood is passed over,
depth is bounded, and no pattern is tried that could take long. Source: JSON
Schema 2020-12, validation vocabulary.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

_MOST_DEPTH = 12
_MOST_ITEMS = 100
_MOST_PATTERN_CHARS = 200
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_FORMATS = {
    "date": re.compile(r"\d{4}-\d{2}-\d{2}"),
    "time": re.compile(r"\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?"),
    "date-time": re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:Z|[+-]\d{2}:\d{2})?"),
    "email": re.compile(r"[^@\s]+@[^@\s]+"),
}


class Unfillable(Exception):
    """No value is known that this schema would take; the path says where."""


def resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a `$ref` within the document; {} for what is no schema."""
    for _ in range(_MOST_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith("#"):
            return schema
        schema = _at(root, ref)
    return {}


def _at(root: object, ref: str) -> object:
    for name in ref.removeprefix("#").split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        root = root.get(name) if isinstance(root, Mapping) else None
    return root


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types a schema names; [] when it names none."""
    kinds = schema.get("type")
    return [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind in _names()]


def _names() -> list[str]:
    return list(_TYPES)


def fits(value: object, schema: object, root: Mapping[str, Any] | None = None) -> bool:
    """Whether a value is what a schema wants, as far as the schema is understood.

    Args:
        value: As JSON has it.
        schema: Any stranger's.
        root: Where `$ref` points into; the schema itself if absent.
    """
    root = root if root is not None else schema if isinstance(schema, Mapping) else {}
    return _fits(value, schema, root, 0)


def _fits(value: object, given: object, root: Mapping[str, Any], depth: int) -> bool:
    if depth > _MOST_DEPTH:
        return False
    if given is False:
        return False
    schema = resolved(given, root)
    kinds = types_of(schema)
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        return False
    if isinstance(schema.get("enum"), list) and not _is_among(value, schema["enum"]):
        return False
    if "const" in schema and not _is_among(value, [schema["const"]]):
        return False
    for key, enough in (("anyOf", any), ("oneOf", any), ("allOf", all)):
        options = schema.get(key)
        if isinstance(options, list) and not enough(
            _fits(value, option, root, depth + 1) for option in options
        ):
            return False
    if isinstance(value, str):
        return _fits_text(value, schema)
    if isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return _fits_number(value, schema)
    if isinstance(value, list):
        least, most = _count(schema, "minItems", 0), _count(schema, "maxItems", _MOST_ITEMS)
        if not least <= len(value) <= most:
            return False
        if schema.get("uniqueItems") is True and any(
            _is_among(each, value[:at]) for at, each in enumerate(value)
        ):
            return False
        items = schema.get("items", {})
        return all(_fits(each, items, root, depth + 1) for each in value)
    if isinstance(value, dict):
        return _fits_object(value, schema, root, depth)
    return True


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _is_among(value: object, choices: list[Any]) -> bool:
    """Equality as JSON has it: true is not 1."""
    return any(
        value == each and isinstance(value, bool) == isinstance(each, bool) for each in choices
    )


def _count(schema: Mapping[str, Any], key: str, otherwise: int) -> int:
    count = schema.get(key)
    return count if isinstance(count, int) and not isinstance(count, bool) else otherwise


def _fits_text(text: str, schema: Mapping[str, Any]) -> bool:
    if not _count(schema, "minLength", 0) <= len(text) <= _count(schema, "maxLength", len(text)):
        return False
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None and not known.fullmatch(text):
        return False
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return True
    compiled = _quick_pattern(pattern)
    return compiled is not None and compiled.search(text) is not None


def _quick_pattern(pattern: str) -> re.Pattern[str] | None:
    """A pattern that cannot take long; None for others: a stranger's must not hold up a server."""
    if len(pattern) > _MOST_PATTERN_CHARS or re.search(r"\)[*+{?]|\\[1-9]|\(\?", pattern):
        return None
    if len(re.findall(r"[*+]|,\}", pattern)) > 3:
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _fits_number(value: float, schema: Mapping[str, Any]) -> bool:
    def limit(key: str) -> float | None:
        found = schema.get(key)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    least, most = limit("minimum"), limit("maximum")
    over, under, step = limit("exclusiveMinimum"), limit("exclusiveMaximum"), limit("multipleOf")
    return (
        (least is None or value >= least)
        and (most is None or value <= most)
        and (over is None or value > over)
        and (under is None or value < under)
        and (not step or abs(value / step - round(value / step)) < 1e-9)
    )


def _fits_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], depth: int
) -> bool:
    properties = _properties(schema)
    if any(name not in value for name in _required(schema)):
        return False
    others = schema.get("additionalProperties", {})
    return all(
        _fits(part, properties.get(name, others), root, depth + 1) for name, part in value.items()
    )


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return (
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    )


def filled(
    schema: object,
    words: str,
    now: datetime,
    root: Mapping[str, Any] | None = None,
    depth: int = 0,
) -> Any:
    """Make a value a schema takes: its default, else what was said, else the least it allows.

    Args:
        schema: Any stranger's.
        words: What was said; a text becomes this, numbers in it are used.
        now: Local time, for dates.
        root: Where `$ref` points into.
        depth: How deep in the value this is.

    Raises:
        Unfillable: Nothing that is known here fits.
    """
    root = root if root is not None else schema if isinstance(schema, Mapping) else {}
    plain = resolved(schema, root)
    if depth <= _MOST_DEPTH:
        for value in _candidates(plain, words, now, root, depth):
            if fits(value, plain, root):
                return value
    raise Unfillable(str(plain.get("title") or plain.get("description") or "a value")[:80])


def _candidates(
    schema: Mapping[str, Any], words: str, now: datetime, root: Mapping[str, Any], depth: int
) -> list[Any]:
    given = [schema[key] for key in ("const", "default") if key in schema]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list):
            given += schema[key]
    for key in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(key) or [] if isinstance(schema.get(key), list) else []:
            try:
                given.append(filled(option, words, now, root, depth + 1))
            except Unfillable:
                continue
    kinds = types_of(schema) or (["object"] if _properties(schema) else ["string"])
    for kind in kinds:
        given += _of_kind(kind, schema, words, now, root, depth)
    return given


def _of_kind(
    kind: str,
    schema: Mapping[str, Any],
    words: str,
    now: datetime,
    root: Mapping[str, Any],
    depth: int,
) -> list[Any]:
    if kind == "string":
        return _texts(schema, words, now.date(), now)
    if kind in ("integer", "number"):
        return _numbers(schema, words)
    if kind == "boolean":
        return [False]
    if kind == "array":
        return _lists(schema, words, now, root, depth)
    if kind == "object":
        properties = _properties(schema)
        try:
            return [
                {
                    name: filled(properties.get(name, {}), words, now, root, depth + 1)
                    for name in _required(schema)
                }
            ]
        except Unfillable:
            return []
    return [None]


def _texts(schema: Mapping[str, Any], words: str, today: date, now: datetime) -> list[str]:
    text = words[: max(0, _count(schema, "maxLength", len(words)))]
    written = [today.isoformat(), now.strftime("%H:%M:%SZ"), now.strftime("%Y-%m-%dT%H:%M:%SZ")]
    return [text, *spellings(words), *words.split()[:_MOST_ITEMS], *written, ""]


def spellings(words: str) -> list[str]:
    """Ways to write what was said: its figures, closed up, in capitals, as an address of e-mail."""
    digits = "".join(re.findall(r"\d", words))
    squeezed = re.sub(r"\W", "", words)
    address = re.sub(r"\s*\b(?:at|dot)\b\s*", lambda m: "@" if "at" in m.group() else ".", words)
    return [
        digits,
        squeezed,
        squeezed.upper(),
        squeezed.lower(),
        re.sub(r"\s", "", address).lower(),
    ]


def _numbers(schema: Mapping[str, Any], words: str) -> list[float]:
    said = [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", words)[:_MOST_ITEMS]]
    limits = []
    for key, step in (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("multipleOf", 0)):
        value = schema.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            limits.append(float(value) + step)
    numbers = [*said, 0.0, 1.0, *limits]
    return [int(number) if number.is_integer() else number for number in numbers]


def _lists(
    schema: Mapping[str, Any], words: str, now: datetime, root: Mapping[str, Any], depth: int
) -> list[list[Any]]:
    items, count = schema.get("items", {}), min(_count(schema, "minItems", 0), _MOST_ITEMS)
    said = [part.strip() for part in re.split(r",|\band\b", words) if part.strip()]
    parts = said[: min(_count(schema, "maxItems", _MOST_ITEMS), _MOST_ITEMS)]
    lists: list[list[Any]] = []
    for texts in (parts, (parts or [words])[:1] * count):
        try:
            lists.append([filled(items, text, now, root, depth + 1) for text in texts])
        except Unfillable:
            continue
    return [*lists, []]
