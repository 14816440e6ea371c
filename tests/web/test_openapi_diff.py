"""`make openapi-diff` finds the breaking changes and only those."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.tools.openapi_changes import Change, Comparison, Place
from tests.tools.openapi_diff import changed_section, is_named

Node = dict[str, Any]

CODE: Node = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 32},
        "uses": {"type": "integer"},
        "status": {"$ref": "#/components/schemas/Status"},
        "successor": {"anyOf": [{"$ref": "#/components/schemas/Code"}, {"type": "null"}]},
    },
    "required": ["text", "uses"],
}
NEW_CODE: Node = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 32},
        "status": {"$ref": "#/components/schemas/Status"},
        "max_uses": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
    },
    "required": ["text"],
    "additionalProperties": False,
}
DOCUMENT: Node = {
    "paths": {
        "/api/v1/codes": {
            "get": {
                "operationId": "list_codes",
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}},
                ],
                "responses": {
                    "200": {
                        "headers": {"RateLimit": {"schema": {"type": "string"}}},
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "array",
                                    "items": {"$ref": "#/components/schemas/Code"},
                                }
                            }
                        },
                    },
                    "404": {"description": "Not found"},
                },
            },
            "post": {
                "operationId": "create_code",
                "security": [{"bearer": []}],
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/NewCode"}}
                    }
                },
                "responses": {"201": {"description": "Created"}},
            },
        }
    },
    "components": {
        "schemas": {
            "Code": CODE,
            "NewCode": NEW_CODE,
            "Status": {"type": "string", "enum": ["active", "expired"]},
        }
    },
}

Edit = Callable[[Node, Node, Node], object]
"""A change of the paths' only item, and of the schemas Code and NewCode."""

OK: Node = {"schema": {"type": "string"}}
OPTIONAL: Node = {"name": "x", "in": "query", "schema": {"type": "string"}}
REQUIRED: Node = OPTIONAL | {"required": True}

BREAKING: dict[str, Edit] = {
    "GET /codes: operation removed": lambda item, _, __: item.pop("get"),
    "operationId: GET /codes was list_codes, is codes": (
        lambda item, _, __: item["get"].update(operationId="codes")
    ),
    "GET /codes: refuses anonymous requests": (
        lambda item, _, __: item["get"].update(security=[{"bearer": []}])
    ),
    "POST /codes: refuses bearer": lambda item, _, __: item["post"].update(security=[{"key": []}]),
    "GET /codes limit: query parameter removed": lambda item, _, __: item["get"].pop("parameters"),
    "GET /codes x: query parameter is required": (
        lambda item, _, __: item["get"]["parameters"].append(REQUIRED)
    ),
    "GET /codes limit: maximum changed": (
        lambda item, _, __: item["get"]["parameters"][0]["schema"].update(maximum=8)
    ),
    "POST /codes: request body is required": (
        lambda item, _, __: item["post"]["requestBody"].update(required=True)
    ),
    "POST /codes: application/json removed": (
        lambda item, _, __: item["post"]["requestBody"].update(content={"text/plain": OK})
    ),
    "POST /codes: response 201 removed": (
        lambda item, _, __: item["post"].update(responses={"200": {}})
    ),
    "GET /codes: response header RateLimit removed": (
        lambda item, _, __: item["get"]["responses"]["200"].pop("headers")
    ),
    "Code.uses: may be missing": lambda _, code, __: code["required"].remove("uses"),
    "Code.status: removed": lambda _, code, __: code["properties"].pop("status"),
    "Code.uses: null is not integer": (
        lambda _, code, __: code["properties"].update(uses={"type": ["integer", "null"]})
    ),
    "Code.text: format changed": (
        lambda _, code, __: code["properties"]["text"].update(format="uuid")
    ),
    "NewCode.status: is required": lambda _, __, new_code: new_code["required"].append("status"),
    "NewCode.max_uses: removed": lambda _, __, new_code: new_code["properties"].pop("max_uses"),
    "NewCode.max_uses: null is not integer": (
        lambda _, __, new_code: new_code["properties"].update(max_uses={"type": "integer"})
    ),
    "NewCode.text: pattern changed": (
        lambda _, __, new_code: new_code["properties"]["text"].update(pattern="^A")
    ),
}

COMPATIBLE: dict[str, Edit] = {
    "an operation": lambda item, _, __: item.update(delete={"responses": {}}),
    "an optional parameter": lambda item, _, __: item["get"]["parameters"].append(OPTIONAL),
    "another way to sign in": (
        lambda item, _, __: item["post"].update(security=[{"key": []}, {"bearer": []}])
    ),
    "no sign-in": lambda item, _, __: item["post"].update(security=[{}]),
    "another error": lambda item, _, __: item["get"]["responses"].update({"409": {}}),
    "no such error": lambda item, _, __: item["get"]["responses"].pop("404"),
    "a field of a response": lambda _, code, __: code["properties"].update(x={"type": "string"}),
    "a certain field": lambda _, code, __: code["required"].append("status"),
    "a shorter field": lambda _, code, __: code["properties"]["text"].update(maxLength=8),
    "a field of a request": (
        lambda _, __, new_code: new_code["properties"].update(x={"type": "string"})
    ),
    "a longer field": lambda _, __, new_code: new_code["properties"]["text"].update(maxLength=64),
    "another notation": (
        lambda _, __, new_code: new_code["properties"].update(
            max_uses={"type": ["integer", "null"], "minimum": 1}
        )
    ),
    "a description": lambda _, code, __: code.update(description="A code."),
}


def find_changes(edit: Edit) -> set[str]:
    """Return the breaking changes of an edit."""
    new = deepcopy(DOCUMENT)
    schemas = new["components"]["schemas"]
    edit(new["paths"]["/api/v1/codes"], schemas["Code"], schemas["NewCode"])
    return {f"{each.place}: {each.text}" for each in Comparison(DOCUMENT, new).changes()}


@pytest.mark.parametrize("change", BREAKING)
def test_breaking_change_is_found(change: str) -> None:
    """Clients of the old document would fail."""
    assert find_changes(BREAKING[change]) == {change}


@pytest.mark.parametrize("change", COMPATIBLE)
def test_compatible_change_is_allowed(change: str) -> None:
    """Clients of the old document still work."""
    assert find_changes(COMPATIBLE[change]) == set()


def test_enum_values_break_requests_and_responses() -> None:
    """A value that is gone breaks requests, one that is new breaks responses."""
    new = deepcopy(DOCUMENT)
    new["components"]["schemas"]["Status"]["enum"] = ["active", "used"]
    assert set(Comparison(DOCUMENT, new).changes()) == {
        Change(Place("Status"), "fewer enum values"),
        Change(Place("Status"), "more enum values"),
    }


def test_removed_schema_is_found() -> None:
    """Generated clients have a type of each schema."""
    new = deepcopy(DOCUMENT)
    del new["components"]["schemas"]["Status"]
    for schema in (new["components"]["schemas"]["Code"], new["components"]["schemas"]["NewCode"]):
        schema["properties"]["status"] = DOCUMENT["components"]["schemas"]["Status"]
    assert set(Comparison(DOCUMENT, new).changes()) == {Change(Place("Status"), "schema removed")}


@pytest.mark.parametrize(
    ("changelog", "named"),
    [
        ("## Unreleased\n\n### Changed\n\n- `Code.uses` is text.\n", True),
        ("## Unreleased\n\n### Changed\n\n- `Code` has other fields.\n", True),
        ("## Unreleased\n\n### Changed\n\n- Code.uses is text.\n", False),
        ("## Unreleased\n\n### Added\n\n- `Code.uses` is text.\n", False),
        (
            "## Unreleased\n\n### Added\n\n## 1.0.0\n\n### Changed\n\n- `Code.uses` is text.\n",
            False,
        ),
    ],
)
def test_changelog_names_a_change(changelog: str, *, named: bool) -> None:
    """The place is in backquotes under 'Changed' of the unreleased changes."""
    change = Change(Place("Code", ".uses"), "string is not integer")
    assert is_named(change, changed_section(f"# Changelog\n\n{changelog}")) is named
