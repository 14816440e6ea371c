"""The webhooks of the OpenAPI document describe the events that receivers get."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from referral.core.entities.events import (
    FEED_EVENT_TYPES,
    EventContent,
    EventType,
    code_event,
    referral_event,
    registration_events,
    user_erased,
    user_event,
)
from referral.core.policies.webhook_requests import encode_event
from tests.contracts.rows import ID_GENERATOR, NOW, make_code, make_referral, make_user
from tests.tools.openapi_document import current_document

Node = dict[str, Any]


@pytest.fixture(scope="module")
async def document() -> Node:
    """The document of a service with default settings."""
    return dict(json.loads(await current_document()))


def contents() -> Iterator[EventContent]:
    """Yield events of each type, with and without what may be null."""
    ann, bob = make_user(), replace(make_user(), external_id="shop|1", email_verified=True)
    code = make_code(ann)
    referral = make_referral(code, bob)
    yield from registration_events(ann)
    yield from registration_events(bob, referral)
    yield user_erased(ann.id, NOW)
    for event_type in FEED_EVENT_TYPES:
        match event_type.partition(".")[0]:
            case "user" if event_type not in {EventType.USER_REGISTERED, EventType.USER_ERASED}:
                yield user_event(event_type, bob, NOW)
            case "code":
                yield code_event(event_type, code, NOW)
                yield code_event(event_type, replace(code, max_uses=5), NOW)
            case "referral":
                yield referral_event(event_type, referral, NOW, "Spam.")
                by_hand = replace(referral, code_id=None, code=None)
                yield referral_event(event_type, by_hand, NOW)
    yield EventContent(EventType.WEBHOOK_TEST, NOW, {"webhook_id": str(ID_GENERATOR.new())})


async def test_each_type_of_event_is_described(document: Node) -> None:
    """Each body is valid, and the schema describes all of its data."""
    described = set()
    for content in contents():
        body = json.loads(
            encode_event(ID_GENERATOR.new(), content.type, content.occurred_at, content.data)
        )
        operation = document["webhooks"][content.type]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        reference, _ = schema["allOf"]
        schemas = document["components"]["schemas"]
        validator = jsonschema_rs.Draft202012Validator(
            schema | {"components": document["components"]}, validate_formats=True
        )
        assert [str(error) for error in validator.iter_errors(body)] == [], content.type
        fields = schemas[reference["$ref"].rpartition("/")[2]]["properties"]
        data = schemas[fields["data"]["$ref"].rpartition("/")[2]]["properties"]
        assert (body.keys(), body["data"].keys()) == (fields.keys(), data.keys())
        described.add(content.type)
    assert described == set(EventType) == document["webhooks"].keys()


async def test_each_webhook_has_a_name_for_generators(document: Node) -> None:
    """Apart from those of the routes."""
    operations = [item["post"] for item in document["webhooks"].values()]
    names = {operation["operationId"] for operation in operations}
    assert len(names) == len(operations)
    routes = [each for item in document["paths"].values() for each in item.values()]
    assert not names & {route["operationId"] for route in routes}
    tags = {tag["name"] for tag in document["tags"]}
    for operation in operations:
        assert set(operation["tags"]) <= tags
        assert operation["description"].endswith(".")
