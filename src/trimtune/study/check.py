"""What a user gave, checked against a pydantic model; what is wrong is said in words, with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trimtune.errors import TrimtuneError, unknown
from trimtune.study.document import Place

Model = TypeVar("Model", bound=BaseModel)

_TYPES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false", "array": "a list",
          "object": "a mapping", "null": "nothing"}


def kind_of(value: Any) -> str:
    """What a value is, in words: `text`, `a list`, …"""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return "nothing" if value is None else words.get(type(value), type(value).__name__)


def quoted(value: Any) -> str:
    """A value as the message shows it, cut short."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"


def mapping(given: Any, place: Place, example: str) -> dict[str, Any]:
    """`given`, if it is a mapping; nothing counts as an empty one."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise TrimtuneError(f"{place}: {quoted(given)} is {kind_of(given)}.", "Allowed: a mapping.", f"Write it as {example}.")
    return given


def check(model: type[Model], given: Any, place: Place, example: str = "{key: value}", folder: Path | None = None) -> Model:
    """`given` as `model`, types taken strictly: "8" is no number and true is no 1.

    A validator of the model that needs them finds the `place` and the `folder` of relative paths in its context.

    Raises:
        TrimtuneError: an unknown key (the nearest is offered), a wrong type, a value out of range, a missing key.
    """
    values = mapping(given, place, example)
    schema = model.model_json_schema()
    fields = schema.get("properties", {})
    for key in values:
        if key not in fields:
            raise unknown("key", key, fields, str(place / key), "Correct or remove it.")
    try:
        return model.model_validate_json(json.dumps(values), strict=True, context={"place": place, "folder": folder or Path()})
    except ValidationError as error:
        raise _translated(error, values, fields, schema.get("$defs", {}), place) from None


def _translated(error: ValidationError, values: dict[str, Any], fields: dict[str, Any], defs: dict[str, Any],
                place: Place) -> TrimtuneError:
    first = error.errors(include_url=False, include_context=False)[0]
    key = first["loc"][0] if first["loc"] else None
    if key is None or key not in fields:
        return TrimtuneError(f"{place}: these settings don't go together.", first["msg"].removeprefix("Value error, ") + ".",
                             "Change one of them.")
    what = f"Allowed: {allowed(fields[str(key)], defs)}."
    if first["type"] == "missing":
        return TrimtuneError(f"{place}: '{key}' is missing.", what, f"Add `{key}: …`.")
    at, value = place / str(key), values[str(key)]
    if first["type"] in ("value_error", "assertion_error"):
        what = first["msg"].removeprefix("Value error, ") + "."
    return TrimtuneError(f"{at}: {quoted(value)} is not taken.", what, f"{kind_of(value).capitalize()} was given; change it."
                         if not _fits(value, fields[str(key)]) else
                         "Choose one of these." if "enum" in fields[str(key)] else "Choose a value inside the range.")


def _fits(value: Any, field: dict[str, Any]) -> bool:
    wanted = {field.get("type")} | {option.get("type") for option in field.get("anyOf", [])}
    return bool({_TYPES.get(str(name)) for name in wanted} & {kind_of(value), "a number" if type(value) is int else None})


def allowed(field: dict[str, Any], defs: dict[str, Any]) -> str:
    """A JSON schema of one value in words: `a whole number from 1 to 1000 (passes over the rows)`."""
    if "$ref" in field:
        return allowed(defs[field["$ref"].rsplit("/", 1)[-1]], defs)
    if "anyOf" in field:
        text = " or ".join(allowed(option, defs) for option in field["anyOf"])
    elif "enum" in field or "const" in field:
        text = ", ".join(str(value) for value in field.get("enum", [field.get("const")]))
    else:
        text = _TYPES.get(field.get("type", ""), "a value")
        if "items" in field and isinstance(field["items"], dict):
            text += f" of {allowed(field['items'], defs)}"
        low, high = field.get("minimum"), field.get("maximum")
        text += f" from {low} to {high}" if low is not None and high is not None else ""
        text += f" of at least {low}" if low is not None and high is None else ""
        text += f" of at most {high}" if high is not None and low is None else ""
        text += f" above {field['exclusiveMinimum']}" if "exclusiveMinimum" in field else ""
        text += f" below {field['exclusiveMaximum']}" if "exclusiveMaximum" in field else ""
    return text + (f" ({field['description']})" if field.get("description") else "")
