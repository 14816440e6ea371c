"""Dependency injection: handlers get use cases from the app's dishka container."""

from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar, cast

from dishka.integrations.base import wrap_injection
from litestar import Request

Handler = TypeVar("Handler", bound=Callable[..., Any])

_REQUEST = Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request[Any, Any, Any])


def inject(handler: Handler) -> Handler:
    """Inject the parameters marked `FromDishka`; apply it below the route's decorator.

    Dishka's own integration opens a scope per request, which costs a quarter of the throughput;
    use cases are stateless and do not need one.
    """
    has_request = "request" in handler.__annotations__
    injected = wrap_injection(
        func=handler,
        is_async=True,
        additional_params=() if has_request else (_REQUEST,),
        container_getter=lambda _, arguments: arguments["request"].app.state.container,
    )
    return cast("Handler", injected)
