"""Types of JSON fields that several resources share."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Email = Annotated[
    str,
    Meta(max_length=254, examples=["ann@example.com"], extra_json_schema={"format": "email"}),
]

NewPassword = Annotated[
    str,
    Meta(
        description="8 characters to 1,024 bytes; common passwords are rejected.",
        examples=["staple battery horse"],
    ),
]

CurrentPassword = Annotated[str, Meta(examples=["correct horse battery"])]

LinkToken = Annotated[
    str,
    Meta(
        max_length=255,
        description="The `token` parameter of the link in the mail.",
        examples=["Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"],
    ),
]

Timestamp = Annotated[datetime, Meta(tz=True, examples=["2026-12-31T23:59:59Z"])]
