"""The words by which a failed attempt is explained to the operator of a receiver."""

import os
from http import HTTPStatus
from ssl import SSLCertVerificationError

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponseError,
    ClientSSLError,
    ServerDisconnectedError,
)


class SendingFailed(Exception):
    """There is no response; the message says why."""


DESCRIPTIONS: dict[type[Exception], str] = {
    TimeoutError: "no response in time",
    ClientConnectorCertificateError: "the certificate is invalid",
    ClientSSLError: "the TLS handshake failed",
    ServerDisconnectedError: "the connection was closed before a response",
    ClientOSError: "the connection was closed before a response",
    ClientResponseError: "the response is not valid HTTP",
    ClientError: "the request failed",
    OSError: "the request failed",
    Exception: "the URL is invalid",
}
"""The first type that matches counts."""


def describe_failure(error: Exception) -> str:
    """Return why there is no response, without addresses of the operator's network."""
    match error:
        case SendingFailed():
            return str(error)
        case ClientConnectorCertificateError(
            certificate_error=SSLCertVerificationError(verify_message=reason)
        ):
            return f"the certificate is invalid: {reason}"
        case ClientConnectorError(os_error=OSError(errno=int(number))) if not isinstance(
            error, ClientSSLError
        ):
            return f"the connection failed: {os.strerror(number)}"
    return next(text for kind, text in DESCRIPTIONS.items() if isinstance(error, kind))


def response_error(status: int) -> str | None:
    """Return why a response with this status is a failure, or None for a success."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"the response was {status}; redirects are not followed"
    return f"the response was {status}"
