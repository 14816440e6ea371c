"""Hooks that run before a handler (Litestar's `before_request`): OPTIONS and authentication.

A hook that returns a response ends the request with it.
"""

from typing import Any

from litestar import Request, Response
from litestar.datastructures import State

from referral.core.policies.authorization import CheckActingClient
from referral.core.use_cases.sessions import CheckSession
from referral.web.auth import authenticate, authenticate_user
from referral.web.problems import allow_header


async def respond_to_options(request: Request[Any, Any, State]) -> Response[None] | None:
    """Respond to OPTIONS with the allowed methods of the path.

    Litestar's own response lists the methods of one handler only.
    """
    return _allowed_methods(request) if request.method == "OPTIONS" else None


async def require_user(request: Request[Any, Any, State]) -> Response[None] | None:
    """Authenticate the user before the body is validated; raises `Unauthenticated`.

    Except for GET, the session of the access token must be active.
    """
    if request.method != "GET":
        return await require_active_session(request)
    await authenticate_user(request)
    return None


async def require_active_session(request: Request[Any, Any, State]) -> Response[None] | None:
    """Authenticate the user; raises `Unauthenticated`, also when the session has ended.

    A token without a session needs the client that acts for the user.
    """
    response = await respond_to_options(request)
    if response is None:
        user_id, caller = await authenticate_user(request), await authenticate(request)
        container = request.app.state.container
        if caller.session_id is not None:
            check_session: CheckSession = await container.get(CheckSession)
            await check_session(user_id, caller.session_id)
        if caller.acting_client is not None:
            check_client: CheckActingClient = await container.get(CheckActingClient)
            await check_client(caller.acting_client, user_id)
    return response


def _allowed_methods(request: Request[Any, Any, State]) -> Response[None]:
    path = request.scope["path_template"]
    methods = {
        name
        for route in request.app.routes
        if route.path_format == path
        for name in getattr(route, "methods", ())
    }
    return Response(None, status_code=204, headers={"Allow": allow_header(methods)})
