"""A response that ends after some interim responses."""

from aiohttp import ClientConnectionError, ClientOSError, ClientResponse, ServerDisconnectedError
from aiohttp.connector import Connection

from referral.adapters.webhooks.failures import SendingFailed

MAX_INTERIM_RESPONSES = 10


class StaleConnection(ClientOSError):
    """The receiver closed an idle connection at the moment of its reuse."""


class BoundedResponse(ClientResponse):
    """Rejects an endless sequence of 1xx responses, which would occupy the event loop.

    It also tells whether a connection that was closed had been used before. A trace of aiohttp
    would tell, too, but costs as much as the rest of a request.
    """

    async def start(self, connection: Connection) -> ClientResponse:
        """Read responses up to the final one."""
        protocol = connection.protocol
        if protocol is None:
            raise ClientConnectionError("the connection is closed")
        attributes, read, count = vars(protocol), protocol.read, 0

        async def count_reads() -> object:
            nonlocal count
            count += 1
            if count > 1 + MAX_INTERIM_RESPONSES:
                raise SendingFailed("too many interim responses")
            return await read()

        is_reused, attributes["is_used"] = attributes.get("is_used", False), True
        attributes["read"] = count_reads
        try:
            return await super().start(connection)
        except (ServerDisconnectedError, ClientOSError) as error:
            if is_reused:
                raise StaleConnection(*error.args) from error
            raise
        finally:
            del attributes["read"]
