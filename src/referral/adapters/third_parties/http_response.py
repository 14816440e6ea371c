"""What other servers answer over HTTP."""

from typing import NamedTuple


class HttpResponse(NamedTuple):
    """What a server answered; the content is None where it is no JSON."""

    status: int
    content: object


class InvalidResponse(Exception):
    """There was no answer, or none that means anything; names no key and no address."""
