"""What a study's answers must look like: a regular expression of the whole answer, or a JSON schema; checked at reading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.records import AnswerFormat
from trimtune.study.check import check, kind_of, quoted
from trimtune.study.document import Place
from trimtune.study.text_file import lines, shown

_EXAMPLE = '`format: {regex: "[0-9]+"}` or `format: {json_schema: schema.json}`'


def read(given: Any, folder: Path, place: Place) -> AnswerFormat:
    """A study's `data.format`. A schema that is named by its file is read, so that what is kept says all.

    Raises:
        TrimtuneError: none or both of the two; no regular expression; no JSON schema, or no such file.
    """
    found = check(AnswerFormat, given, place, 'format: {regex: "…"}')
    if (found.regex is None) == (found.json_schema is None):
        raise TrimtuneError(f"{place}: {'both are' if found.regex is not None else 'nothing is'} given.",
                            "Allowed: either regex or json_schema.", f"Write {_EXAMPLE}.")
    if found.regex is not None:
        _check_regex(found.regex, place / "regex")
        return found
    schema = _loaded(found.json_schema, folder, place / "json_schema")
    _check_schema(schema, place / "json_schema")
    return AnswerFormat(json_schema=schema)


def matcher(form: AnswerFormat) -> Callable[[str], bool]:
    """Whether an answer has the format: the whole of it matches the expression, or it is JSON that the schema allows."""
    if form.regex is not None:
        pattern = re.compile(form.regex)
        return lambda answer: pattern.fullmatch(answer) is not None
    assert isinstance(form.json_schema, dict)  # `read` puts the schema in the place of its file's name
    validator = _validator(form.json_schema)

    def valid(answer: str) -> bool:
        try:
            value = json.loads(answer, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return bool(validator.is_valid(value))

    return valid


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_regex(pattern: str, place: Place) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise TrimtuneError(f"{place}: {quoted(pattern)} is no regular expression ({error}).",
                            "Allowed: Python's syntax; the whole answer must match.",
                            "Correct it. In double quotes YAML takes \\ for itself: write '\\d+' in single ones.") from None


def _loaded(given: Any, folder: Path, place: Place) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    path = Path(os.path.abspath(folder / Path(given).expanduser()))
    if not path.is_file():
        raise TrimtuneError(f"{place}: no such file: {shown(path)}.", "Allowed: a file with a JSON schema, or the schema itself.",
                            f"Relative paths are taken from {os.path.abspath(folder)}.")
    try:
        schema = json.loads("".join(lines(path)))
    except (ValueError, RecursionError) as error:
        raise TrimtuneError(f"{place}: {shown(path)} is no JSON ({error}).", "Allowed: a file with a JSON schema.",
                            "Correct the file.") from None
    if not isinstance(schema, dict):
        raise TrimtuneError(f"{place}: {shown(path)} holds {kind_of(schema)}.", "A JSON schema is an object.",
                            "Correct the file.")
    return schema


def _validator(schema: dict[str, Any]) -> Any:
    """Resolves references inside the schema alone; without a registry of its own it would ask the network."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    return validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())


def _check_schema(schema: dict[str, Any], place: Place) -> None:
    from jsonschema.exceptions import SchemaError

    validator = _validator(schema)
    try:
        type(validator).check_schema(schema)
    except SchemaError as error:
        raise TrimtuneError(f"{place}: {error.json_path.replace('$', 'the schema', 1)} is wrong: {error.message[:200]}.",
                            f"Allowed: a JSON schema ({type(validator).META_SCHEMA['$schema']}).", "Correct it.") from None
    outside = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    if outside:
        raise TrimtuneError(f"{place}: the schema refers to {quoted(outside)}.",
                            "Allowed: references to places inside it, such as #/$defs/name.", "Copy what is referred to into it.")
    for ref in _references(schema):
        if ref.startswith("#/") and not _there(schema, ref):
            raise TrimtuneError(f"{place}: the schema refers to {quoted(ref)}, which it doesn't hold.",
                                "Allowed: references to places inside it.", "Correct the reference.")


def _references(schema: Any) -> Iterator[str]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    for one in inner:
        yield from _references(one)


def _there(schema: Any, ref: str) -> bool:
    for step in ref[2:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdigit() and int(key) < len(schema):
            schema = schema[int(key)]
        elif isinstance(schema, dict) and key in schema:
            schema = schema[key]
        else:
            return False
    return True
