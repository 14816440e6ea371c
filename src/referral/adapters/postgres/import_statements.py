"""The statements of imports: lines are copied to a temporary table, and added from there.

Constraints decide between an imported row and one of the running service: `ON CONFLICT DO NOTHING`.
Then a second statement tells the rows that are there already from those that cannot be added.
"""

from dataclasses import dataclass, fields

from referral.core.entities.imports import (
    ImportedCode,
    ImportedReferral,
    ImportedUser,
    ImportKind,
)

SAME_LINE = "substring(uuid_send({0}.id) FROM 7) = substring(uuid_send(s.id) FROM 7)"
"""Whether an id was made from the same line; its first 6 bytes are a time."""

SPENT = "({0}.expires_at <= $1 OR {0}.uses >= {0}.max_uses)"


@dataclass(frozen=True, slots=True)
class ImportStatements:
    """The statements for lines of a kind; `$1`, if there is one, is the time of the import.

    `columns` are the types of the columns of the temporary table that the row has. `prepare` runs
    before `add`, which returns the number of rows. `conflicts` returns line and reason.
    """

    columns: dict[str, str]
    prepare: tuple[str, ...]
    add: str
    conflicts: str
    extra_columns: str = ""

    @property
    def create(self) -> str:
        """Create the temporary table."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        return f"CREATE TEMP TABLE import_lines ({columns}{self.extra_columns}) ON COMMIT DROP"


USER_TYPES = {
    "line": "bigint",
    "id": "uuid",
    "has_id": "boolean",
    "email": "text",
    "email_key": "text",
    "external_id": "text",
    "password_hash": "text",
    "password_cost": "integer",
    "role": "text",
    "locale": "text",
    "email_verified": "boolean",
    "notify_on_referral": "boolean",
    "created_at": "timestamptz",
    "blocked_at": "timestamptz",
    "erased_at": "timestamptz",
}
USER_COLUMNS = ", ".join(name for name in USER_TYPES if name not in {"line", "has_id"})

ADD_USERS = f"""
WITH added AS (
    INSERT INTO users ({USER_COLUMNS}) SELECT {USER_COLUMNS} FROM import_lines
    ORDER BY line
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT count(*) FROM added
"""

USER_CONFLICTS = f"""
SELECT s.line, CASE
    WHEN owner.id IS NOT NULL THEN 'email-taken'
    WHEN known.id IS NOT NULL THEN 'id-taken'
    ELSE 'external-id-taken'
END AS reason
FROM import_lines s
LEFT JOIN users owner ON owner.email_key = s.email_key
LEFT JOIN users known ON known.id = s.id
WHERE NOT COALESCE(
    CASE WHEN s.has_id THEN known.email_key IS NOT DISTINCT FROM s.email_key
        AND known.id IS NOT NULL
        AND (s.external_id IS NULL OR s.external_id = known.external_id)
    ELSE {SAME_LINE.format("owner")} OR s.external_id = owner.external_id END, false)
"""

CODE_TYPES = {
    "line": "bigint",
    "id": "uuid",
    "has_id": "boolean",
    "user_id": "uuid",
    "user_key": "text",
    "text": "text",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
    "max_uses": "integer",
    "uses": "integer",
    "enabled": "boolean",
    "deleted_at": "timestamptz",
}
OWNER_OF = "COALESCE(s.{0}_id, (SELECT id FROM users WHERE email_key = s.{0}_key))"

# FOR KEY SHARE waits for an erasure of the owner, and lets every other change pass.
LOCK_OWNERS = f"""
SELECT count(*) FROM (
    SELECT FROM import_lines s JOIN users ON users.id = {OWNER_OF.format("user")}
    ORDER BY users.id FOR KEY SHARE OF users
) AS locked
"""

FIND_OWNERS = f"""
UPDATE import_lines s SET owner_id = users.id, text_key = upper(s.text) FROM users
WHERE users.id = {OWNER_OF.format("user")}
    AND (users.erased_at IS NULL OR s.deleted_at IS NOT NULL)
"""

OWNED_LINES = f"""
SELECT s.*, COALESCE({SPENT.format("s")}, false) AS is_spent,
    row_number() OVER (PARTITION BY text_key ORDER BY line) > 1
        OR EXISTS (SELECT FROM codes WHERE codes.text_key = s.text_key) AS is_taken
FROM import_lines s WHERE owner_id IS NOT NULL
"""

# A spent code does not keep its owner from having an active one.
RETIRE_SPENT = f"""
UPDATE codes SET enabled = false FROM ({OWNED_LINES}) AS s
WHERE s.enabled AND NOT s.is_spent AND NOT s.is_taken
    AND codes.user_id = s.owner_id AND codes.enabled AND {SPENT.format("codes")}
"""

CODE_COLUMNS = "id, text, text_key, created_at, expires_at, max_uses, uses, deleted_at"

# Of a user's active codes the first that is not spent stays active, and a spent one is disabled.
# What expired before the import is no event.
ADD_CODES = f"""
WITH ranked AS (
    SELECT s.*, row_number() OVER (
        PARTITION BY owner_id, is_taken ORDER BY enabled DESC, is_spent, line
    ) AS rank
    FROM ({OWNED_LINES}) AS s
), added AS (
    INSERT INTO codes (user_id, enabled, expiry_reported_until, {CODE_COLUMNS})
    SELECT owner_id, enabled AND NOT (is_spent AND (rank > 1 OR EXISTS (
        SELECT FROM codes WHERE codes.user_id = owner_id AND codes.enabled
    ))), CASE WHEN expires_at <= $1 THEN expires_at ELSE '-infinity' END, {CODE_COLUMNS}
    FROM ranked
    ORDER BY line
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT count(*) FROM added
"""

CODE_CONFLICTS = f"""
SELECT s.line, CASE
    WHEN s.owner_id IS NULL THEN 'unknown-user'
    WHEN known.id IS NOT NULL THEN 'code-taken'
    WHEN EXISTS (SELECT FROM codes WHERE codes.id = s.id) THEN 'id-taken'
    ELSE 'active-code-exists'
END AS reason
FROM import_lines s
LEFT JOIN codes known ON known.text_key = s.text_key
WHERE NOT COALESCE(known.user_id = s.owner_id
    AND CASE WHEN s.has_id THEN known.id = s.id ELSE {SAME_LINE.format("known")} END, false)
"""

REFERRAL_TYPES = {
    "line": "bigint",
    "id": "uuid",
    "user_id": "uuid",
    "user_key": "text",
    "referrer_id": "uuid",
    "referrer_key": "text",
    "code": "text",
    "status": "text",
    "held": "boolean",
    "reason": "text",
    "joined_at": "timestamptz",
}

# The referral's id begins with its time, which is that of the user where the line has none.
FIND_USERS = f"""
UPDATE import_lines s SET
    referred_id = users.id,
    referrer_id = (SELECT id FROM users WHERE id = {OWNER_OF.format("referrer")}),
    code_id = (SELECT id FROM codes WHERE text_key = upper(s.code)),
    joined_at = COALESCE(s.joined_at, users.created_at),
    id = CASE WHEN s.joined_at IS NOT NULL THEN s.id ELSE (lpad(to_hex(greatest(
        0, (extract(epoch FROM users.created_at) * 1000)::bigint)), 12, '0')
        || substr(replace(s.id::text, '-', ''), 13))::uuid END
FROM users WHERE users.id = {OWNER_OF.format("user")}
"""

CODE_IS_KNOWN = """(s.code IS NULL OR EXISTS (
    SELECT FROM codes WHERE codes.id = s.code_id AND codes.user_id = s.referrer_id))"""

# `told_by` is set, so that no mail tells the referrer. A pending referral is told once confirmed.
ADD_REFERRALS = f"""
WITH added AS (
    INSERT INTO referrals
        (id, referrer_id, referred_id, code_id, code, status, held, reason, joined_at,
        told_by, expires)
    SELECT id, referrer_id, referred_id, code_id, code, status, held, reason, joined_at,
        CASE WHEN status <> 'pending' THEN id END, false
    FROM import_lines s
    WHERE referred_id <> referrer_id AND {CODE_IS_KNOWN}
    ORDER BY line
    ON CONFLICT DO NOTHING RETURNING id
)
SELECT count(*) FROM added
"""

REFERRAL_CONFLICTS = f"""
SELECT s.line, CASE
    WHEN s.referred_id IS NULL THEN 'unknown-user'
    WHEN s.referrer_id IS NULL THEN 'unknown-referrer'
    WHEN s.referrer_id = s.referred_id THEN 'self-referral'
    WHEN NOT {CODE_IS_KNOWN} THEN 'unknown-code'
    WHEN known.id IS NULL THEN 'id-taken'
    ELSE 'already-referred'
END AS reason
FROM import_lines s
LEFT JOIN referrals known ON known.referred_id = s.referred_id
WHERE NOT COALESCE(known.referrer_id = s.referrer_id
    AND known.code_id IS NOT DISTINCT FROM s.code_id AND {CODE_IS_KNOWN}, false)
"""

STATEMENTS = {
    ImportKind.USER: ImportStatements(USER_TYPES, (), ADD_USERS, USER_CONFLICTS),
    ImportKind.CODE: ImportStatements(
        CODE_TYPES,
        (LOCK_OWNERS, FIND_OWNERS, RETIRE_SPENT),
        ADD_CODES,
        CODE_CONFLICTS,
        ", owner_id uuid, text_key text",
    ),
    ImportKind.REFERRAL: ImportStatements(
        REFERRAL_TYPES,
        (FIND_USERS,),
        ADD_REFERRALS,
        REFERRAL_CONFLICTS,
        ", referred_id uuid, code_id uuid",
    ),
}

for _kind, _row in (
    (ImportKind.USER, ImportedUser),
    (ImportKind.CODE, ImportedCode),
    (ImportKind.REFERRAL, ImportedReferral),
):
    # The rows are copied by position.
    assert [field.name for field in fields(_row)] == list(STATEMENTS[_kind].columns)  # noqa: S101

RAISE_USES = """
UPDATE codes SET uses = counted.uses FROM (
    SELECT code_id, count(*) AS uses FROM referrals
    WHERE code_id IS NOT NULL AND status <> 'rejected' GROUP BY code_id
) AS counted
WHERE codes.id = counted.code_id AND codes.uses < counted.uses
"""
"""A rejected referral returns its use, so that every other one must have been counted."""
