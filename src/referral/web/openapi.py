"""Completion of the OpenAPI 3.1 document that Litestar generates.

Examples of bodies are composed of examples of fields. Responses and headers that several operations
have are components.
"""

from typing import Any

from referral.web.openapi_examples import PARAMETER_EXAMPLES, make_example
from referral.web.openapi_responses import HEADERS, complete_responses
from referral.web.openapi_schemas import complete_schemas, without_null
from referral.web.openapi_webhooks import EVENT_SCHEMAS, describe_webhooks

Node = dict[str, Any]

OPERATION_ORDER = (
    *("registerUser", "issueToken"),
    *("createCode", "listMyCodes", "getActiveCode", "mailActiveCode"),
    *("getCodeQrPng", "getCodeQrSvg", "deactivateCode", "activateCode"),
    *("getCode", "renewCode", "deleteCode"),
    *("lookUpCode", "lookUpCodePrivately", "getCodeValidity", "followShareLink"),
    *("listMyReferrals", "listUserReferrals", "getMyStatistics", "getMyStatisticsSvg"),
    *("requestEmailVerification", "confirmEmail", "disownEmail"),
    *("requestPasswordReset", "resetPassword"),
    *("setMyReferrer", "exportMe", "changeMyPassword", "getMe", "updateMe", "deleteMe"),
    *("listUsers", "getExternalUser", "putExternalUser", "getUser", "deleteUser"),
    *("blockUser", "unblockUser", "setUserReferrer"),
    *("listReferrals", "exportReferrals", "confirmReferral", "rejectReferral"),
    *("listReferrers", "getStatistics", "getStatisticsSvg"),
    *("listAllCodes", "deactivateAnyCode"),
    *("createClient", "listClients", "rotateClientSecret", "deleteClient"),
    "listAuditRecords",
    *("createWebhook", "listWebhooks", "sendTestEvent", "listDeliveries", "retryDelivery"),
    *("replayEvents", "rotateWebhookSecret", "getWebhook", "updateWebhook", "deleteWebhook"),
    "listEvents",
    *("introspectToken", "revokeToken", "getAuthorizationServerMetadata", "getJwks"),
    *("getLiveness", "getReadiness", "getMetrics"),
)
"""The order of the operations in the document, and so on the pages: as a new user needs them."""

CODE_ID_PARAMETER = {"code_id": "$response.body#/id"}
CODE_OPERATIONS = (
    *("getCode", "renewCode", "deleteCode", "activateCode", "deactivateCode"),
    *("getCodeQrPng", "getCodeQrSvg"),
)
OPERATION_LINKS: dict[str, dict[str, Node]] = {
    "createCode": dict.fromkeys(CODE_OPERATIONS, CODE_ID_PARAMETER),
    "getActiveCode": dict.fromkeys(CODE_OPERATIONS, CODE_ID_PARAMETER),
    "putExternalUser": {
        name: {"user_id": "$response.body#/id"}
        for name in ("getUser", "deleteUser", "listUserReferrals")
    },
    "createWebhook": {
        name: {"webhook_id": "$response.body#/id"}
        for name in (
            *("getWebhook", "updateWebhook", "deleteWebhook", "rotateWebhookSecret"),
            *("sendTestEvent", "listDeliveries", "replayEvents"),
        )
    },
    "registerUser": {"listUserReferrals": {"user_id": "$response.body#/id"}},
    **{
        name: {name: {"cursor": "$response.body#/next_cursor"}}
        for name in (
            "listMyCodes",
            "listMyReferrals",
            "listUserReferrals",
            "listUsers",
            "listWebhooks",
            "listEvents",
        )
    },
}
"""OpenAPI links: for an operation id, each target operation and its parameters."""

SECRET_FORM_FIELDS = {"password", "client_secret"}
"""Fields of forms with a format that Litestar does not know."""

UNSENT_RESPONSES = {"Validation Exception"}
"""Descriptions of responses that Litestar documents and the service never sends."""

OMITTED_FALSE = {"allowEmptyValue", "allowReserved", "deprecated", "required"}
"""Members that Litestar writes although false is their default."""


def complete_document(document: Node) -> Node:
    """Complete the document that Litestar generated."""
    components = document["components"]
    components |= {"examples": {}, "headers": HEADERS, "responses": {}}
    components["schemas"] = complete_schemas(components["schemas"], *EVENT_SCHEMAS)
    document["webhooks"] = describe_webhooks()
    paths = {path: _sort(item) for path, item in document["paths"].items()}
    document["paths"] = dict(sorted(paths.items(), key=lambda entry: _position(entry[1])))
    for path, item in document["paths"].items():
        for operation in item.values():
            _complete_operation(path, operation, components)
    for name in ("examples", "responses"):
        components[name] = dict(sorted(components[name].items()))
    return document


def _sort(item: Node) -> Node:
    return dict(
        sorted(item.items(), key=lambda entry: OPERATION_ORDER.index(entry[1]["operationId"]))
    )


def _position(item: Node) -> int:
    return OPERATION_ORDER.index(next(iter(item.values()))["operationId"])


def _complete_operation(path: str, operation: Node, components: Node) -> None:
    schemas = components["schemas"]
    _omit_false(operation)
    operation.setdefault("security", [])
    for parameter in operation.get("parameters", ()):
        _complete_parameter(parameter)
    for medium in operation.get("requestBody", {}).get("content", {}).values():
        _complete_medium(medium, schemas)
    responses = operation["responses"]
    for status, response in list(responses.items()):
        media = response.get("content", {}).values()
        if any(medium["schema"].get("description") in UNSENT_RESPONSES for medium in media):
            del responses[status]
            continue
        for header in response.get("headers", {}).values():
            _omit_false(header)
        for media_type, medium in response.get("content", {}).items():
            if media_type.startswith("image/"):
                medium["schema"] = {"type": "string", "format": "binary"}
            _complete_medium(medium, schemas)
    operation["responses"] = complete_responses(path, operation, components)
    _add_links(operation)


def _complete_parameter(parameter: Node) -> None:
    _omit_false(parameter)
    schema = without_null(parameter["schema"])
    # Litestar writes a required enum as the only one of `allOf`.
    [schema] = schema.get("allOf", [schema])
    # Beside a reference, a description makes some generators lose the type.
    parameter["schema"] = {name: value for name, value in schema.items() if name != "description"}
    if parameter["name"] in PARAMETER_EXAMPLES:
        parameter["example"] = PARAMETER_EXAMPLES[parameter["name"]]


def _add_links(operation: Node) -> None:
    for name, parameters in OPERATION_LINKS.get(operation["operationId"], {}).items():
        response = next(iter(operation["responses"].values()))
        link = {"operationId": name, "parameters": parameters}
        response.setdefault("links", {})[name] = link


def _complete_medium(medium: Node, schemas: Node) -> None:
    for example in medium.get("examples", {}).values():
        example.pop("id", None)
    for name, field in medium["schema"].get("properties", {}).items():
        if name in SECRET_FORM_FIELDS:
            field["format"] = "password"
    is_text = medium["schema"].get("type") == "string"
    if not is_text and not {"example", "examples"} & medium.keys():
        medium["example"] = make_example(medium["schema"], schemas)


def _omit_false(node: Node) -> None:
    for name in OMITTED_FALSE:
        if node.get(name) is False:
            del node[name]
