"""OAuth clients."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.clients import (
    GRANTABLE_SCOPES,
    MAX_CLIENT_NAME_LENGTH,
    Caller,
    Client,
    Scope,
)
from referral.core.use_cases.clients import (
    CreateClient,
    ListClients,
    RemoveClient,
    RotateClientSecret,
)
from referral.web.auth import authenticate
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    problem_responses,
)

ClientId = Annotated[UUID, PathParameter(description="The id of the client.")]

ClientScope = StrEnum("ClientScope", {each.name: each.value for each in sorted(GRANTABLE_SCOPES)})  # type: ignore[misc]  # the names are those of Scope


class CreateClientRequest(Struct, forbid_unknown_fields=True):
    """The name and the scopes of a new client."""

    name: Annotated[
        str,
        Meta(
            description="Unique; printable characters.",
            min_length=1,
            max_length=MAX_CLIENT_NAME_LENGTH,
            examples=["shop"],
        ),
    ]
    scopes: Annotated[list[ClientScope], Meta(min_length=1, examples=[["referrals:read"]])]


class ClientResponse(Struct):
    """A client: another service that calls this one."""

    id: UUID
    name: str
    scopes: list[Scope]
    created_at: Timestamp


class ClientSecretResponse(ClientResponse):
    """A client with its new secret."""

    client_secret: Annotated[str, Meta(description="Shown only once.")]


class ClientPageResponse(Struct):
    """A page of clients, newest first."""

    items: list[ClientResponse]
    next_cursor: str | None


class ClientsController(Controller):
    """Routes for OAuth clients."""

    path = "/api/v1/clients"
    tags = ("Administration",)
    dependencies = {"caller": Provide(authenticate)}

    @get(
        summary="List clients",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listClients"),
    )
    @inject
    async def list_all(
        self, page: NamedDependency[PageRequest], list_clients: FromDishka[ListClients]
    ) -> ClientPageResponse:
        """List the clients, newest first."""
        clients = await list_clients.page(after=page.after("clients"), limit=page.limit)
        items = [ClientResponse(*_values(client)) for client in clients.items]
        return ClientPageResponse(items, make_cursor(clients.next_after, "clients"))

    @post(
        summary="Create a client",
        responses=problem_responses(*READ_ERRORS, *BODY_ERRORS, errors.ClientNameTaken)
        | {
            201: ResponseSpec(
                ClientSecretResponse,
                generate_examples=False,
                description="The client; its URL is in `Location`.",
            )
        },
        **permitted("createClient"),
    )
    @inject
    async def create(
        self,
        caller: NamedDependency[Caller],
        data: JSONBody[CreateClientRequest],
        create_client: FromDishka[CreateClient],
    ) -> Response[ClientSecretResponse]:
        """Create a client that gets tokens by client credentials, with any of its scopes."""
        scopes = [Scope(scope) for scope in data.scopes]
        client, secret = await create_client(data.name, scopes, caller.actor)
        body = ClientSecretResponse(*_values(client), client_secret=secret)
        return Response(body, headers={"Location": f"{self.path}/{client.id}"})

    @post(
        "/{client_id:uuid}/rotate-secret",
        summary="Rotate a client's secret",
        status_code=200,
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("rotateClientSecret"),
    )
    @inject
    async def rotate_secret(
        self,
        client_id: ClientId,
        caller: NamedDependency[Caller],
        rotate_secret: FromDishka[RotateClientSecret],
    ) -> ClientSecretResponse:
        """Replace the secret of a client; the old one is invalid at once. Access tokens that were
        issued before stay valid until they expire.
        """
        client, secret = await rotate_secret(str(client_id), caller.actor)
        return ClientSecretResponse(*_values(client), client_secret=secret)

    @delete(
        "/{client_id:uuid}",
        summary="Delete a client",
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("deleteClient"),
    )
    @inject
    async def delete(
        self,
        client_id: ClientId,
        caller: NamedDependency[Caller],
        remove_client: FromDishka[RemoveClient],
    ) -> None:
        """Delete a client. It gets no new token, and its old ones open no route for clients;
        introspection rejects them, and other services accept them until they expire.
        """
        await remove_client(str(client_id), caller.actor)


def _values(client: Client) -> tuple[UUID, str, list[Scope], Timestamp]:
    return client.id, client.name, sorted(client.scopes), client.created_at
