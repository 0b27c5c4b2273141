"""The JSON schema of a study file, made from the records and from the parts that the folders list.

Editors use it for completion: put `# yaml-language-server: $schema=study.schema.json` at the top of a study.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from trimtune import parts
from trimtune.records import Auto, Budget, DataSpec, Fit, Prefer
from trimtune.study import limits


def schema() -> dict[str, Any]:
    """Draft 2020-12; a part that is dropped into its folder is in it."""
    defs: dict[str, Any] = {}
    trim = _use("trim", defs)
    limit = {"type": "string", "pattern": limits.PATTERN}
    properties = {
        "name": {"type": "string", "pattern": r"^\w[\w.-]{0,63}$", "description": "of the study, and of its run folder"},
        "model": {"type": "string", "default": "minilm", "description": "`minilm`, a folder, or a hub id 'owner/name'"},
        "smaller": {"type": ["string", "null"], "description": "the next smaller model off the shelf (as `model`), tuned alike, "
                    "untrimmed, and measured beside the candidates"},
        "task": {"enum": sorted({*parts.names("task"), *(name.replace("_", "-") for name in parts.names("task"))})},
        "data": {"anyOf": [{"type": "string"}, _model("data", DataSpec, defs)],
                 "description": "a file, a hub id or a bundled set; or one for each split"},
        "tune": {"type": "array", "minItems": 1, "items": _use("method", defs)},
        "trim": {"anyOf": [{"const": "auto"}, {"type": "array", "items": {"anyOf": [
            {"enum": ["none", "auto"]}, trim, {"type": "array", "minItems": 1, "items": trim}]}}]},
        "auto": {"anyOf": [_model("auto", Auto, defs), {"type": "null"}]},
        "engine": {"type": "array", "minItems": 1, "items": _use("engine", defs)},
        "skip": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "string"}}],
                 "description": "patterns of candidate names that are not built, such as head+*@torch_eager"},
        "fit": {"anyOf": [_model("fit", Fit, defs), {"type": "null"}]},
        "budget": {"anyOf": [_model("budget", Budget, defs), {"type": "null"}]},
        "require": {"anyOf": [{"type": "null"}, {
            "type": "object", "additionalProperties": False,
            "properties": {name: {"anyOf": [limit, {"type": "array", "items": limit}], "description": f"in {unit}"}
                           for name, unit in limits.known().items()}}]},
        "prefer": {"enum": list(get_args(Prefer)), "default": "quality"},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A study for trimtune", "type": "object",
            "additionalProperties": False, "required": ["name", "data"], "properties": properties, "$defs": defs}


def _model(name: str, model: type[BaseModel], defs: dict[str, Any]) -> dict[str, Any]:
    found = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    defs.update({f"{name}.{inner}": value for inner, value in found.pop("$defs", {}).items()})
    defs[name] = found
    return {"$ref": f"#/$defs/{name}"}


def _use(kind: str, defs: dict[str, Any]) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    for name in parts.names(kind):
        says = (parts.doc(kind, name).strip().splitlines() or [""])[0]
        config = _model(f"{kind}.{name}", parts.load(kind, name).Config, defs)
        spellings = sorted({name, name.replace("_", "-")})
        options += [{"enum": spellings, "description": says}]
        options += [{"type": "object", "additionalProperties": False, "required": [spelling], "description": says,
                     "properties": {spelling: {"anyOf": [config, {"type": "null"}]}}} for spelling in spellings]
    return {"anyOf": options} if options else {"not": {}}
