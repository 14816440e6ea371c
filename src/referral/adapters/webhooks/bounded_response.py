"""A response that ends after some interim responses."""

from aiohttp import ClientConnectionError, ClientResponse
from aiohttp.connector import Connection

from referral.adapters.webhooks.failures import SendingFailed

MAX_INTERIM_RESPONSES = 10


class BoundedResponse(ClientResponse):
    """Rejects an endless sequence of 1xx responses, which would occupy the event loop."""

    async def start(self, connection: Connection) -> ClientResponse:
        """Read responses up to the final one."""
        protocol = connection.protocol
        if protocol is None:
            raise ClientConnectionError("the connection is closed")
        read, count = protocol.read, 0

        async def count_reads() -> object:
            nonlocal count
            count += 1
            if count > 1 + MAX_INTERIM_RESPONSES:
                raise SendingFailed("too many interim responses")
            return await read()

        vars(protocol)["read"] = count_reads
        try:
            return await super().start(connection)
        finally:
            del vars(protocol)["read"]
