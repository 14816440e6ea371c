"""Requests of maximum size, for every input that the OpenAPI document describes."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from tests.support.api_client import new_email

MAX_BODY_BYTES = 63 * 1024
MAX_HEAD_BYTES = 30 * 1024
"""Sizes in bytes, a little below the service's limits."""

CHUNKS = 20_000
JSON, FORM = "application/json", "application/x-www-form-urlencoded"

Node = dict[str, Any]
Filler = tuple[str, tuple[str, ...], str]
"""A long text: its prefix, the units that are repeated, and its suffix."""

TEXTS: dict[str, Filler] = {
    "combining marks out of order": ("", ("\u0315", "\u0327"), ""),
    "combining marks in an e-mail": ("", ("\u0315", "\u0327"), "@example.com"),
    "combining marks in a domain": ("a@", ("\u0315", "\u0327"), ".com"),
    "one letter": ("", ("a",), ""),
    "a long local part": ("", ("a",), "@example.com"),
    "labels": ("a@", ("a.",), "com"),
    "non-ASCII labels": ("a@", ("\u00fc.",), "com"),
    "one non-ASCII label": ("a@", ("\u00fc\u4e2d",), ".com"),
    "xn-- labels": ("a@", ("xn--a.",), "com"),
    "one xn-- label": ("a@xn--", ("a9",), ".com"),
    "at signs": ("", ("@",), ""),
    "dots": ("a@", (".",), ""),
    "hyphens": ("", ("-",), ""),
    "percent signs": ("", ("%",), ""),
    "quotes": ('"', ('\\"',), '"@example.com'),
    "commas and spaces": ("", (", ",), ""),
    "brackets": ("a@[", ("0:",), "]"),
    "NUL": ("", ("\0",), ""),
    "digits": ("", ("9",), ""),
    "other digits": ("", ("\u0665",), ""),
    "zero width": ("", ("\u200b", "\u200d", "\ufeff"), ""),
    "right to left": ("", ("\u202e", "\u2066"), ""),
    "letters that expand": ("", ("\ufdfa", "\u0130", "\ufb03"), "@example.com"),
    "decomposed syllables": ("", ("\u1100\u1161\u11a8",), ""),
    "lone surrogate": ("", ("\ud800",), ""),
    "a token's parts": ("", ("a.",), ""),
}
DEEP_HEAD = urlsafe_b64encode(b'{"alg":"RS256","kid":' + b"[" * 20_000).decode()
TOKENS: dict[str, Filler] = {
    "a deep head": (f"{DEEP_HEAD}.", ("a",), ".a"),
    "a bearer": ("Bearer ", ("a",), ""),
    "a bearer of parts": ("Bearer ", ("a.",), ""),
    "a bearer with a deep head": (f"Bearer {DEEP_HEAD}.", ("a",), ".a"),
    "spaces before a bearer": ("Bearer ", (" ",), "a"),
    "a client": ("Basic ", (b64encode(b"aaa").decode(),), ""),
    "a client of colons": ("Basic ", (b64encode(b":::").decode(),), ""),
    "a client of percent signs": ("Basic ", (b64encode(b"%41").decode(),), ""),
}
JSON_VALUES: dict[str, Filler] = {
    "a deep list": ("", ("[",), ""),
    "a deep list that ends": ("", ("[", "]"), ""),
    "a deep object": ("", ('{"a":',), "1"),
    "a deep object that ends": ("", ('{"a":',), "1" + "}" * 10_000),
    "a wide list": ("[", ("1,",), "1]"),
    "a wide list of lists": ("[", ("[],",), "[]]"),
    "one repeated name": ("{", ('"a":1,',), '"a":1}'),
    "a long number": ("1", ("9",), ""),
    "a long fraction": ("0.", ("0",), "1"),
    "a long exponent": ("1e", ("9",), ""),
    "a long negative": ("-", ("9",), ""),
    "escapes": ('"', ("\\u0315", "\\u0327"), '"'),
    "white space": ("", (" ", "\t", "\n"), "1"),
}
FORM_FIELDS: dict[str, Filler] = {
    "many fields": ("", ("a=1&",), ""),
    "many empty fields": ("", ("&",), ""),
    "many semicolons": ("", ("a=1;",), ""),
    "many equals signs": ("", ("=",), ""),
    "many percent signs": ("", ("%",), ""),
    "many escapes": ("a=", ("%CC%95", "%CC%A7"), ""),
    "many pluses": ("a=", ("+",), ""),
}
HEADERS = (
    ("GET", "/api/v1/me", "Authorization"),
    ("POST", "/api/v1/auth/introspect", "Authorization"),
    ("POST", "/api/v1/auth/token", "Authorization"),
    ("POST", "/api/v1/auth/register", "Content-Type"),
    ("POST", "/api/v1/auth/token", "Content-Type"),
    ("GET", "/confirm", "Accept-Language"),
    ("GET", "/api/v1/codes/lookup", "X-Forwarded-For"),
    *(("GET", "/api/v1/me", name) for name in ("X-Request-ID", "Accept", "Cookie", "Origin")),
    *(("GET", "/api/v1/me", name) for name in ("traceparent", "Forwarded", "If-None-Match")),
)
"""Headers that no operation describes."""

PAGE_FORMS = {
    "/confirm": ("token",),
    "/reset": ("token", "new_password"),
    "/unsubscribe/{token}": ("List-Unsubscribe",),
}
EXTRA_PATHS = ("/problems/{slug}", "/docs/files/{name}")
"""Paths outside of the document: pages with the fields of their form, and read-only ones."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request; each input has its own account, as some texts end it."""

    bearer: str
    basic: str
    known: Mapping[str, str]
    """Valid values by field; other fields use the examples of the document."""


@dataclass(frozen=True)
class Attack:
    """A long request, which is encoded when it is sent."""

    operation: "Operation"
    target: str
    text: str
    write: Callable[[Caller], bytes]

    def __str__(self) -> str:
        """Name the operation, the input and the text."""
        return f"{self.operation.method} {self.operation.path}, {self.target}: {self.text}"


@dataclass(frozen=True)
class Operation:
    """An operation of the OpenAPI document."""

    method: str
    path: str
    parameters: tuple[tuple[str, str], ...] = ()
    """The location and the name of each."""

    bodies: Mapping[str, tuple[tuple[str, ...], tuple[Node, ...]]] | None = None
    """By media type: the fields of the body, and examples."""

    credentials: str = ""

    def write(
        self,
        caller: Caller,
        *,
        path: Mapping[str, str] | None = None,
        query: str = "",
        headers: Mapping[str, bytes] | None = None,
        media_type: str = "",
        body: bytes = b"",
        chunked: bool = False,
    ) -> bytes:
        """Encode a request; whatever is not given is valid."""
        target = self.path
        for where, name in self.parameters:
            if where == "path":
                value = (path or {}).get(name) or quote(caller.known.get(name, "x"), safe="")
                target = target.replace("{" + name + "}", value)
        sent = {"Host": b"example.com", "Connection": b"close"}
        sent |= {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1".encode()}
        if self.credentials:
            sent["Authorization"] = getattr(caller, self.credentials).encode()
        if media_type:
            sent["Content-Type"] = media_type.encode()
        if chunked:
            sent["Transfer-Encoding"] = b"chunked"
            body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        elif self.method != "GET":
            sent["Content-Length"] = str(len(body)).encode()
        sent |= headers or {}
        lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in sent.items())
        target += f"?{query}" if query else ""
        return f"{self.method} {target} HTTP/1.1\r\n".encode() + lines + b"\r\n" + body


def operations(document: Node) -> list[Operation]:
    """Return the operations of the document, and the pages outside of it."""
    found = [
        Operation(
            method.upper(),
            path,
            tuple(
                (parameter["in"], parameter["name"])
                for parameter in _resolved(document, *parameters(operation))
            ),
            _bodies(document, operation),
            _credentials(document, operation),
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    for path, fields in (PAGE_FORMS | dict.fromkeys(EXTRA_PATHS, ())).items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        in_path = tuple(("path", name) for name in names)
        query = tuple(("query", name) for name in fields)
        found.append(Operation("GET", path, in_path + query))
        if fields:
            example = dict.fromkeys(fields, "x")
            found.append(Operation("POST", path, in_path, {FORM: (fields, (example,))}))
    return found


def parameters(operation: Node) -> list[Node]:
    """Return an operation's parameters."""
    found: list[Node] = operation.get("parameters", [])
    return found


def attacks(document: Node) -> Iterator[list[Attack]]:
    """Yield all attacks on one input, input by input."""
    all_operations = operations(document)
    for operation in all_operations:
        for where, name in operation.parameters:
            yield list(_into_parameter(operation, where, name))
        if operation.method == "GET":
            yield list(_into_query(operation))
        for media_type, (fields, examples) in (operation.bodies or {}).items():
            for field in fields:
                matching = [one for one in examples if field in one] or list(examples)
                for example in matching:
                    yield list(_into_field(operation, media_type, field, example))
            yield list(_into_body(operation, media_type, fields, examples[0]))
    for method, path, name in HEADERS:
        (operation,) = [one for one in all_operations if (one.method, one.path) == (method, path)]
        yield list(_into_header(operation, name))


def _into_parameter(operation: Operation, where: str, name: str) -> Iterator[Attack]:
    if where == "header":
        yield from _into_header(operation, name)
        return
    for title, units in texts_for(name).items():
        value = (fill(units, MAX_HEAD_BYTES, _escaped) or b"").decode()
        sent: Node = {"path": {name: value}} if where == "path" else {"query": f"{name}={value}"}
        yield Attack(operation, f"{where} {name}", title, partial(operation.write, **sent))


def texts_for(name: str) -> dict[str, Filler]:
    """Return the texts for a field or parameter."""
    return TEXTS | TOKENS if "token" in name else TEXTS


def _into_query(operation: Operation) -> Iterator[Attack]:
    names = [name for where, name in operation.parameters if where == "query"]
    repeated = {f"repeated {name}": ("", (f"{name}=1&",), "") for name in names}
    for title, units in (FORM_FIELDS | repeated).items():
        query = (fill(units, MAX_HEAD_BYTES, str.encode) or b"").decode()
        yield Attack(operation, "query", title, partial(operation.write, query=query))


def _into_header(operation: Operation, name: str) -> Iterator[Attack]:
    many = b"a\r\n" + b"".join(b"a%x: b\r\n" % number for number in range(3_000)) + b"z: z"
    values = {
        title: fill(units, MAX_HEAD_BYTES, _header_escaped)
        for title, units in (TEXTS | TOKENS).items()
    }
    for title, value in (values | {"many headers": many}).items():
        if value is not None:
            write = partial(_with_header, operation, name, value)
            yield Attack(operation, f"header {name}", title, write)


def _with_header(operation: Operation, name: str, value: bytes, caller: Caller) -> bytes:
    if name == "Content-Type" or not operation.bodies:
        return operation.write(caller, headers={name: value})
    ((media_type, (_, examples)),) = operation.bodies.items()
    body = write_body(media_type, examples[0], caller)
    return operation.write(caller, media_type=media_type, body=body, headers={name: value})


def _into_field(
    operation: Operation, media_type: str, field: str, example: Node
) -> Iterator[Attack]:
    texts = texts_for(field)
    encode = _json_escaped if media_type == JSON else _form_escaped
    values = {name: fill(units, MAX_BODY_BYTES, encode) or b"" for name, units in texts.items()}
    if media_type == JSON:
        values = {name: b'"%b"' % value for name, value in values.items()}
        values |= {
            name: fill(units, MAX_BODY_BYTES, str.encode) or b""
            for name, units in JSON_VALUES.items()
        }

    def write(value: bytes, caller: Caller) -> bytes:
        return operation.write(
            caller,
            media_type=media_type,
            body=write_body(media_type, example, caller, {field: value}),
        )

    for title, value in values.items():
        yield Attack(operation, f"field {field}", title, partial(write, value))


def _into_body(
    operation: Operation, media_type: str, fields: tuple[str, ...], example: Node
) -> Iterator[Attack]:
    if media_type == JSON:
        names = ",".join(f'"{number:x}":1' for number in range(6_000))
        fillers = JSON_VALUES | {"many names": ("{" + names, (" ",), "}")}
        repeated = {name: ("{", (f'"{name}":"",',), f'"{name}":""}}') for name in fields}
    else:
        fillers, repeated = FORM_FIELDS, {name: ("", (f"{name}=1&",), "") for name in fields}
    for title, units in (
        fillers | {f"repeated {name}": units for name, units in repeated.items()}
    ).items():
        body = fill(units, MAX_BODY_BYTES, str.encode) or b""
        yield Attack(
            operation, "body", title, partial(operation.write, media_type=media_type, body=body)
        )

    def in_chunks(caller: Caller) -> bytes:
        body = write_body(media_type, example, caller).ljust(
            CHUNKS, b" " if media_type == JSON else b"&"
        )
        return operation.write(caller, media_type=media_type, body=body, chunked=True)

    yield Attack(operation, "body", "chunks of one byte", in_chunks)


def fill(units: Filler, size: int, encode: Callable[[str], bytes | None]) -> bytes | None:
    """Repeat the units up to a size in bytes; None if they cannot be encoded."""
    before, repeated, after = units
    parts = [encode(text) for text in (before, after, *repeated)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    first, last, *middle = known
    times = (size - len(first) - len(last)) // sum(map(len, middle))
    return first + b"".join(unit * times for unit in middle) + last


def _escaped(text: str) -> bytes:
    return quote(text, safe="", errors="surrogatepass").encode()


def _form_escaped(text: str) -> bytes:
    """Escape reserved characters only, so that more text fits in."""
    return b"".join(
        letter.encode()
        if letter.isalnum() or "\u00ff" < letter < "\ud800" or letter > "\udfff"
        else _escaped(letter)
        for letter in text
    )


def _json_escaped(text: str) -> bytes:
    half = any("\ud800" <= letter <= "\udfff" for letter in text)
    return json.dumps(text, ensure_ascii=half)[1:-1].encode()


def _header_escaped(text: str) -> bytes | None:
    return None if "\0" in text else text.encode(errors="surrogatepass")


def write_body(
    media_type: str,
    example: Node,
    caller: Caller,
    hostile: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """Encode a valid body with some fields replaced by encoded hostile values."""
    valid = example | {name: caller.known[name] for name in example if name in caller.known}
    valid |= {name: new_email() for name in valid if name == "email"}
    valid |= {name: uuid4().hex[:12].upper() for name in valid if name == "code"}
    if media_type == JSON:
        fields = {name: json.dumps(value).encode() for name, value in valid.items()}
        pairs = (b'"%b":%b' % (n.encode(), v) for n, v in (fields | dict(hostile)).items())
        return b"{" + b",".join(pairs) + b"}"
    fields = {name: quote(str(value)).encode() for name, value in valid.items()}
    return b"&".join(b"%b=%b" % (n.encode(), v) for n, v in (fields | dict(hostile)).items())


def _bodies(document: Node, operation: Node) -> dict[str, tuple[tuple[str, ...], tuple[Node, ...]]]:
    (request,) = _resolved(document, operation.get("requestBody", {}))
    found = {}
    for media_type, medium in request.get("content", {}).items():
        assert media_type in {JSON, FORM}, media_type
        (schema,) = _resolved(document, medium["schema"])
        named = _resolved(document, *medium.get("examples", {}).values())
        examples = [one["value"] for one in named] + [
            medium[name] for name in ("example",) if name in medium
        ]
        found[media_type] = (tuple(schema["properties"]), tuple(examples))
    return found


def _credentials(document: Node, operation: Node) -> str:
    """Return the required credentials: "bearer", "basic" or ""."""
    requirements = operation.get("security") or [{}]
    if {} in requirements:
        return ""
    schemes = document["components"]["securitySchemes"]
    names = [name for requirement in requirements for name in requirement]
    return "basic" if all(schemes[name].get("scheme") == "basic" for name in names) else "bearer"


def _resolved(document: Node, *nodes: Node) -> list[Node]:
    """Follow references."""
    found = []
    for node in nodes:
        while "$ref" in node:
            target: Node = document
            for key in node["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            node = target  # noqa: PLW2901 - a reference may lead to another
        found.append(node)
    return found
