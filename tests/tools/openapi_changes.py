"""The changes of an OpenAPI document that break its clients."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Node = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
API = "/api/v1"

LOWER_LIMITS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_LIMITS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
FIXED = ("pattern", "const", "uniqueItems", "contentMediaType")
"""Keywords whose values are not comparable: a new value may refuse what the old one allowed."""


class Place(NamedTuple):
    """An operation or a schema, and a part of it."""

    subject: str
    part: str = ""

    def __str__(self) -> str:
        """Return the name for the changelog."""
        return self.subject + self.part

    def inside(self, name: str) -> "Place":
        """Return a part of this part."""
        return self._replace(part=self.part + name)


class Change(NamedTuple):
    """A breaking change; the changelog must name its place."""

    place: Place
    text: str


@dataclass
class Comparison:
    """Two documents, and the changes of the pairs of schemas that were compared."""

    old: Node
    new: Node
    _compared: dict[tuple[str, str, bool], list[Change]] = field(default_factory=dict)

    def changes(self) -> Iterator[Change]:
        """Yield the breaking changes."""
        for name in _schemas(self.old) - _schemas(self.new):
            yield Change(Place(name), "schema removed")
        for path, item in self.old["paths"].items():
            for method in METHODS & item.keys():
                place = Place(f"{method.upper()} {path.removeprefix(API)}")
                operation = self.new["paths"].get(path, {}).get(method)
                if operation is None:
                    yield Change(place, "operation removed")
                else:
                    yield from self._operation(place, item[method], operation)

    def _operation(self, place: Place, old: Node, new: Node) -> Iterator[Change]:
        if old.get("operationId") != new.get("operationId"):
            text = f"{place} was {old.get('operationId')}, is {new.get('operationId')}"
            yield Change(Place("operationId"), text)
        accepted = _security(self.new, new)
        for scheme in _security(self.old, old):
            if not any(needed <= scheme for needed in accepted):
                text = f"refuses {' with '.join(sorted(scheme)) or 'anonymous requests'}"
                yield Change(place, text)
        yield from self._parameters(place, old, new)
        yield from self._request_body(place, old, new)
        for status, response in old.get("responses", {}).items():
            offered = new.get("responses", {}).get(status)
            if offered is not None:
                yield from self._response(place, self._old(response), self._new(offered))
            elif status < "4":
                yield Change(place, f"response {status} removed")

    def _parameters(self, place: Place, old: Node, new: Node) -> Iterator[Change]:
        before = {_key(each): each for each in map(self._old, old.get("parameters", []))}
        after = {_key(each): each for each in map(self._new, new.get("parameters", []))}
        for key in before.keys() - after.keys():
            yield Change(place.inside(f" {key[1]}"), f"{key[0]} parameter removed")
        for key, parameter in after.items():
            known = before.get(key)
            here = place.inside(f" {key[1]}")
            if parameter.get("required") and not (known or {}).get("required"):
                yield Change(here, f"{key[0]} parameter is required")
            if known:
                schemas = known.get("schema", {}), parameter.get("schema", {})
                yield from self._narrowed(here, *schemas, request=True)

    def _request_body(self, place: Place, old: Node, new: Node) -> Iterator[Change]:
        before = self._old(old.get("requestBody", {}))
        after = self._new(new.get("requestBody", {}))
        if after.get("required") and not before.get("required"):
            yield Change(place, "request body is required")
        yield from self._content(place, before, after, request=True)

    def _response(self, place: Place, old: Node, new: Node) -> Iterator[Change]:
        offered = {name.lower() for name in new.get("headers", {})}
        for name in old.get("headers", {}):
            if name.lower() not in offered:
                yield Change(place, f"response header {name} removed")
        yield from self._content(place, old, new, request=False)

    def _content(self, place: Place, old: Node, new: Node, *, request: bool) -> Iterator[Change]:
        offered = new.get("content", {})
        for media_type, medium in old.get("content", {}).items():
            if media_type not in offered:
                yield Change(place, f"{media_type} removed")
                continue
            schemas = medium.get("schema", {}), offered[media_type].get("schema", {})
            yield from self._narrowed(place, *schemas, request=request)

    def _narrowed(self, place: Place, old: Node, new: Node, *, request: bool) -> Iterator[Change]:
        """Yield which values a request no longer allows, or a response has in addition."""
        before, after = list(_alternatives(self.old, old)), list(_alternatives(self.new, new))
        given, taken = (before, after) if request else (after, before)
        for one in given:
            same_type = [each for each in taken if _is_same_type(one.schema, each.schema)]
            found = [self._excess(place, one, other, request=request) for other in same_type]
            types = " or ".join(str(each.schema.get("type")) for each in taken)
            other_type = [Change(place, f"{one.schema.get('type')} is not {types}")]
            yield from min(found, key=len, default=other_type)

    def _excess(
        self, place: Place, given: "Alternative", taken: "Alternative", *, request: bool
    ) -> list[Change]:
        """Return why a value that is given may not be taken."""
        if not (given.name and taken.name):
            return list(self._differences(place, given.schema, taken.schema, request=request))
        key = (given.name, taken.name, request)
        if key not in self._compared:
            self._compared[key] = []  # a schema that contains itself
            place = Place(taken.name if request else given.name)
            found = self._differences(place, given.schema, taken.schema, request=request)
            self._compared[key] = list(found)
        return self._compared[key]

    def _differences(
        self, place: Place, given: Node, taken: Node, *, request: bool
    ) -> Iterator[Change]:
        if "enum" in taken and not set(given.get("enum", [None])) <= set(taken["enum"]):
            yield Change(place, "fewer enum values" if request else "more enum values")
        for keyword in (*LOWER_LIMITS, *UPPER_LIMITS):
            if _exceeds(keyword, given, taken):
                yield Change(place, f"{keyword} changed")
        for keyword in FIXED:
            if keyword in taken and given.get(keyword) != taken[keyword]:
                yield Change(place, f"{keyword} changed")
        if given.get("type") == "string" and given.get("format") != taken.get("format"):
            yield Change(place, "format changed")
        yield from self._members(place, given, taken, request=request)

    def _members(
        self, place: Place, given: Node, taken: Node, *, request: bool
    ) -> Iterator[Change]:
        for name in sorted(set(taken.get("required", [])) - set(given.get("required", []))):
            yield Change(place.inside(f".{name}"), "is required" if request else "may be missing")
        old, new = (given, taken) if request else (taken, given)
        after = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            here = place.inside(f".{name}")
            if name in after:
                yield from self._narrowed(here, schema, after[name], request=request)
            else:
                yield Change(here, "removed")
        if request and _is_closed(taken) and not _is_closed(given):
            yield Change(place, "refuses unknown fields")
        if "items" in old:
            items = old["items"], new.get("items", {})
            yield from self._narrowed(place.inside("[]"), *items, request=request)

    def _old(self, node: Node) -> Node:
        return _resolve(self.old, node)

    def _new(self, node: Node) -> Node:
        return _resolve(self.new, node)


class Alternative(NamedTuple):
    """A schema of one type, and its name in the document."""

    name: str
    schema: Node


def _alternatives(document: Node, schema: Node, name: str = "") -> Iterator[Alternative]:
    """Yield the alternatives of which a schema consists."""
    name = schema.get("$ref", name).rpartition("/")[2]
    schema = _resolve(document, schema)
    types = schema.get("type")
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        for branch in branches:
            yield from _alternatives(document, branch)
    elif isinstance(types, list):
        for each in types:
            limits = {} if each == "null" else schema
            yield Alternative(name, limits | {"type": each})
    else:
        yield Alternative(name, schema)


def _schemas(document: Node) -> set[str]:
    return set(document.get("components", {}).get("schemas", {}))


def _security(document: Node, operation: Node) -> list[frozenset[str]]:
    """Return the sets of credentials of which one is needed."""
    alternatives = operation.get("security", document.get("security")) or [{}]
    return [
        frozenset(name for scheme, scopes in each.items() for name in (scheme, *scopes))
        for each in alternatives
    ]


def _key(parameter: Node) -> tuple[str, str]:
    return parameter["in"], parameter["name"]


def _resolve(document: Node, node: Node) -> Node:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _is_same_type(given: Node, taken: Node) -> bool:
    types = given.get("type"), taken.get("type")
    return types[1] is None or types[0] == types[1] or types == ("integer", "number")


def _is_closed(schema: Node) -> bool:
    return schema.get("additionalProperties") is False


def _exceeds(keyword: str, given: Node, taken: Node) -> bool:
    if keyword not in taken:
        return False
    if keyword not in given:
        return True
    lower = keyword in LOWER_LIMITS
    return bool(given[keyword] < taken[keyword] if lower else given[keyword] > taken[keyword])
