"""Types of JSON fields that several resources share."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from referral.core.entities.audit import MAX_REASON_CHARACTERS

Email = Annotated[
    str,
    Meta(max_length=254, examples=["ann@example.com"], extra_json_schema={"format": "email"}),
]

NewPassword = Annotated[
    str,
    Meta(
        description="8 characters to 1,024 bytes; common passwords are rejected.",
        examples=["staple battery horse"],
        extra_json_schema={"format": "password", "minLength": 8, "maxLength": 1024},
    ),
]

CurrentPassword = Annotated[
    str,
    Meta(
        examples=["correct horse battery"],
        extra_json_schema={"format": "password", "minLength": 1, "maxLength": 1024},
    ),
]

UnixTime = Annotated[
    int, Meta(description="Seconds since 1970.", extra_json_schema={"format": "int64"})
]

LinkToken = Annotated[
    str,
    Meta(
        max_length=255,
        description="The `token` parameter of the link in the mail.",
        examples=["Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"],
    ),
]

Timestamp = Annotated[datetime, Meta(tz=True, examples=["2026-12-31T23:59:59Z"])]


Reason = Annotated[
    str,
    Meta(
        description="For the audit log: 1 to 500 characters in one line, without control and "
        "format characters. It must not contain an e-mail address "
        "or `@`, because it stays after the user's account was erased.",
        examples=["Reported by three users."],
        extra_json_schema={"minLength": 1, "maxLength": MAX_REASON_CHARACTERS},
    ),
]
