"""OAuth clients."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, delete, get, post
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
from referral.core.ports.security import SecretCipher
from referral.core.use_cases.clients import (
    ClientWithSecret,
    CreateClient,
    ListClients,
    RemoveClient,
    RotateClientSecret,
)
from referral.web.auth import authenticate
from referral.web.field_types import Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    idempotent_request,
    make_encrypted_response,
    replay_stored_caller_response,
)
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
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
        before_request=replay_stored_caller_response,
        responses=problem_responses(
            *READ_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, errors.ClientNameTaken
        )
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
        request: Request[Any, Any, Any],
        caller: NamedDependency[Caller],
        data: JSONBody[CreateClientRequest],
        create_client: FromDishka[CreateClient],
        cipher: FromDishka[SecretCipher],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ClientSecretResponse]:
        """Create a client that gets tokens by client credentials, with any of its scopes."""

        def make_response(created: ClientWithSecret) -> StoredJsonResponse:
            location = f"{self.path}/{created[0].id}"
            return make_encrypted_response(cipher, 201, _with_secret(created), location)

        scopes = [Scope(scope) for scope in data.scopes]
        idempotent = idempotent_request(request, idempotency_key, make_response)
        created = await create_client(
            data.name, scopes, caller.actor, idempotent_request=idempotent
        )
        location = f"{self.path}/{created[0].id}"
        return Response(_with_secret(created), headers={"Location": location})

    @post(
        "/{client_id:uuid}/rotate-secret",
        summary="Rotate a client's secret",
        status_code=200,
        before_request=replay_stored_caller_response,
        responses=problem_responses(*READ_ONE_ERRORS, *IDEMPOTENCY_ERRORS),
        **permitted("rotateClientSecret"),
    )
    @inject
    async def rotate_secret(
        self,
        request: Request[Any, Any, Any],
        client_id: ClientId,
        caller: NamedDependency[Caller],
        rotate_secret: FromDishka[RotateClientSecret],
        cipher: FromDishka[SecretCipher],
        idempotency_key: IdempotencyKey = None,
    ) -> ClientSecretResponse:
        """Replace the secret of a client; the old one is invalid at once. Access tokens that were
        issued before stay valid until they expire.
        """

        def make_response(rotated: ClientWithSecret) -> StoredJsonResponse:
            return make_encrypted_response(cipher, 200, _with_secret(rotated))

        idempotent = idempotent_request(request, idempotency_key, make_response)
        return _with_secret(await rotate_secret(str(client_id), caller.actor, idempotent))

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


def _with_secret(client_with_secret: ClientWithSecret) -> ClientSecretResponse:
    client, secret = client_with_secret
    return ClientSecretResponse(*_values(client), client_secret=secret)
