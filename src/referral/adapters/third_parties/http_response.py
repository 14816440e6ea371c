"""Responses of third parties."""

from typing import NamedTuple


class HttpResponse(NamedTuple):
    """A status and the parsed JSON body; `content` is None when the body is not JSON."""

    status: int
    content: object


class StillRunning(Exception):
    """The third party accepted the request and has no result yet."""


class InvalidResponse(Exception):
    """There was no response or an invalid one; the message has no API key and no e-mail address."""
