"""The tables. Their constraints enforce the rules that must hold under concurrency."""

from typing import Any

from advanced_alchemy.base import orm_registry
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = orm_registry.metadata


def _timestamp(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTimeUTC(timezone=True), nullable=nullable)


users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Null in an erased account, whose row stays because referrals refer to it.
    Column("email", Text),
    Column("email_key", Text),
    Column("password_hash", Text),
    Column("role", Text, nullable=False),
    Column("locale", Text, nullable=False),
    Column("email_verified", Boolean, nullable=False),
    Column("notify_on_referral", Boolean, nullable=False),
    _timestamp("created_at"),
    _timestamp("blocked_at", nullable=True),
    _timestamp("erased_at", nullable=True),
    Column("deliverability", Text, nullable=False, server_default="unknown"),
    # Time at which an unconfirmed account is erased; null where no confirmation is required.
    _timestamp("confirm_by", nullable=True),
    # Estimated milliseconds to verify an imported hash; null for hashes of this service.
    Column("password_cost", Integer),
    # The user's id in the product that created the account.
    Column("external_id", Text),
    UniqueConstraint("email_key", name="uq_users_email_key"),
    # The previous release does not clear the id when it erases an account.
    Index(
        "uq_users_external_id",
        "external_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL AND erased_at IS NULL"),
    ),
    # For the list of users, newest first, with and without a filter.
    Index("ix_users_listed", "id", postgresql_where=text("erased_at IS NULL")),
    Index("ix_users_admins", "id", postgresql_where=text("role = 'admin' AND erased_at IS NULL")),
    Index(
        "ix_users_blocked",
        "id",
        postgresql_where=text("blocked_at IS NOT NULL AND erased_at IS NULL"),
    ),
    Index(
        "ix_users_email_verified_id",
        "email_verified",
        "id",
        postgresql_where=text("erased_at IS NULL"),
    ),
    Index(
        "ix_users_admins_email_verified",
        text("((email_verified)::text)"),
        "id",
        postgresql_where=text("role = 'admin' AND erased_at IS NULL"),
    ),
    Index(
        "ix_users_admins_blocked",
        "id",
        postgresql_where=text("role = 'admin' AND blocked_at IS NOT NULL AND erased_at IS NULL"),
    ),
    Index(
        "ix_users_blocked_email_verified",
        text("((email_verified)::text)"),
        "id",
        postgresql_where=text("blocked_at IS NOT NULL AND erased_at IS NULL"),
    ),
    Index("ix_users_confirm_by", "confirm_by", postgresql_where=text("confirm_by IS NOT NULL")),
    Index(
        "ix_users_password_cost",
        "password_cost",
        postgresql_where=text("password_cost IS NOT NULL"),
    ),
    CheckConstraint(
        "num_nonnulls(email, email_key, password_hash) "
        "= CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END",
        name="erased",
    ),
)

codes = Table(
    "codes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", ForeignKey(users.c.id), nullable=False),
    Column("text", Text, nullable=False),
    # The text in upper case. Deleted codes keep it, so that no code gets it again.
    Column("text_key", Text, nullable=False),
    _timestamp("created_at"),
    _timestamp("expires_at"),
    Column("max_uses", Integer),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("enabled", Boolean, nullable=False),
    _timestamp("deleted_at", nullable=True),
    # An expiry until this time was reported by an event, or needs none.
    Column(
        "expiry_reported_until",
        DateTimeUTC(timezone=True),
        nullable=False,
        server_default=text("'-infinity'::timestamp with time zone"),
    ),
    UniqueConstraint("text_key", name="uq_codes_text_key"),
    CheckConstraint("uses >= 0 AND (max_uses IS NULL OR max_uses > 0)", name="uses"),
    CheckConstraint("NOT (enabled AND deleted_at IS NOT NULL)", name="deleted_disabled"),
    Index("ix_codes_user_id_id", "user_id", "id"),
    # For the list of all codes of one status: see repositories/codes_by_status.py.
    Index(
        "ix_codes_expiry_day",
        # In lines, as PostgreSQL prints it: Alembic compares these.
        text(
            "(\nCASE\n"
            "WHEN uses >= max_uses THEN 'exhausted'::text\n"
            "WHEN enabled THEN 'active'::text\n"
            "ELSE 'inactive'::text\n"
            "END)"
        ),
        text("((expires_at AT TIME ZONE 'UTC'::text)::date)"),
        "id",
        postgresql_where=text("deleted_at IS NULL"),
    ),
    # At most one code of a user is enabled. An index cannot read the clock, on which "active"
    # depends: enabling a code first retires a spent one.
    Index("uq_codes_enabled", "user_id", unique=True, postgresql_where=text("enabled")),
    Index(
        "ix_codes_unreported_expiry",
        "expires_at",
        postgresql_where=text("enabled AND expires_at > expiry_reported_until"),
    ),
)

referrals = Table(
    "referrals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("referrer_id", ForeignKey(users.c.id), nullable=False),
    Column("referred_id", ForeignKey(users.c.id), nullable=False),
    # Null in an imported referral whose code is unknown.
    Column("code_id", ForeignKey(codes.c.id)),
    Column("code", Text),
    Column("status", Text, nullable=False),
    _timestamp("joined_at"),
    # Id of the mail that notifies the referrer; null before it is assigned.
    Column("told_by", Uuid),
    # Whether the referral stays pending until an admin decides.
    Column("held", Boolean, nullable=False, server_default=text("false")),
    # Of an admin: why, and when, the referral was decided or entered.
    Column("reason", Text),
    _timestamp("decided_at", nullable=True),
    Column("risk_signals", ARRAY(Text), nullable=False, server_default="{}"),
    # First times of the two decisions. Null in referrals that are older than the columns; for the
    # others a trigger sets what a statement leaves null (revision 0022).
    _timestamp("confirmed_at", nullable=True),
    _timestamp("rejected_at", nullable=True),
    # Whether the referral is rejected if it stays pending for too long.
    Column("expires", Boolean, nullable=False, server_default=text("true")),
    UniqueConstraint("referred_id", name="uq_referrals_referred_id"),
    CheckConstraint("referrer_id <> referred_id", name="not_oneself"),
    Index("ix_referrals_referrer_id_id", "referrer_id", "id"),
    Index("ix_referrals_referrer_id_status_id", "referrer_id", "status", "id"),
    # For the list of all referrals.
    Index("ix_referrals_joined_at_id", "joined_at", "id"),
    Index("ix_referrals_status_joined_at_id", "status", "joined_at", "id"),
    Index("ix_referrals_referrer_id_joined_at_id", "referrer_id", "joined_at", "id"),
    Index("ix_referrals_code_id_joined_at_id", "code_id", "joined_at", "id"),
    # For pairs of its filters. PostgreSQL counts the values of an expression, also within a partial
    # index, so it knows how rare a pair is; of the values of two columns it assumes the product.
    Index(
        "ix_referrals_referrer_status",
        text("((referrer_id::text || ' '::text) || status)"),
        "joined_at",
        "id",
    ),
    Index("ix_referrals_code_id_status_joined_at_id", "code_id", "status", "joined_at", "id"),
    Index(
        "ix_referrals_held_status",
        text("(status || ' '::text)"),
        "joined_at",
        "id",
        postgresql_where=text("held"),
    ),
    Index(
        "ix_referrals_held_referrer",
        text("((referrer_id)::text)"),
        "joined_at",
        "id",
        postgresql_where=text("held"),
    ),
    Index("ix_referrals_held_code_id", "code_id", "joined_at", "id", postgresql_where=text("held")),
    Index(
        "ix_referrals_pending_not_held",
        text("(status || ' '::text)"),
        "joined_at",
        "id",
        postgresql_where=text("status = 'pending' AND NOT held"),
    ),
    Index("ix_referrals_without_code", "referrer_id", postgresql_where=text("code_id IS NULL")),
    Index("ix_referrals_held", "joined_at", "id", postgresql_where=text("held")),
    Index("ix_referrals_referrer_id_told_by", "referrer_id", "told_by"),
    # Of the previous release; the next one drops it.
    Index("ix_referrals_pending", "joined_at", postgresql_where=text("status = 'pending'")),
    Index(
        "ix_referrals_expiring",
        "joined_at",
        postgresql_where=text("status = 'pending' AND expires"),
    ),
)

user_networks = Table(
    "user_networks",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    # A keyed digest of the client IP: an IPv4 address, or an IPv6 network of 64 bits.
    Column("digest", LargeBinary(32), primary_key=True),
    # The last registration or login from there, to the hour.
    _timestamp("seen_at"),
    # Null if the user registered elsewhere.
    _timestamp("registered_at", nullable=True),
    Index("ix_user_networks_seen_at", "seen_at"),
    Index(
        "ix_user_networks_digest_registered_at",
        "digest",
        "registered_at",
        postgresql_where=text("registered_at IS NOT NULL"),
    ),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), nullable=False),
    Column("client_id", Text, nullable=False),
    Column("scope", Text, nullable=False),
    _timestamp("created_at"),
    _timestamp("expires_at"),
    Index("ix_sessions_user_id", "user_id"),
    Index("ix_sessions_expires_at", "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("session_id", ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False),
    _timestamp("used_at", nullable=True),
    # Digests of the token that this one replaced, and of the first used token that replaced it.
    Column("parent", LargeBinary(32)),
    Column("heir", LargeBinary(32)),
    Index("ix_refresh_tokens_session_id", "session_id"),
)

login_sessions = Table(
    "login_sessions",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), nullable=False),
    _timestamp("created_at"),
    _timestamp("expires_at"),
    Index("ix_login_sessions_user_id", "user_id"),
    Index("ix_login_sessions_expires_at", "expires_at"),
)

authorization_codes = Table(
    "authorization_codes",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), nullable=False),
    Column("client_id", Uuid, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("code_challenge", Text, nullable=False),
    Column("scope", Text, nullable=False),
    _timestamp("expires_at"),
    # The session that the code began; null in an unused code. A used one stays as long as its
    # session, so that a second use ends it. The code is used before its session is stored.
    Column(
        "session_id",
        ForeignKey(sessions.c.id, ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
    ),
    Index("ix_authorization_codes_user_id", "user_id"),
    Index("ix_authorization_codes_session_id", "session_id"),
    Index(
        "ix_authorization_codes_expires_at",
        "expires_at",
        postgresql_where=text("session_id IS NULL"),
    ),
)

clients = Table(
    "clients",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    # Empty for a public client, which has no secret.
    Column("secret_digest", LargeBinary(32), nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _timestamp("created_at"),
    Column("redirect_uris", ARRAY(Text), nullable=False, server_default="{}"),
    UniqueConstraint("name", name="uq_clients_name"),
)

# The SQL names of this table and of `verdicts` stay: the previous release uses them.
idempotency_records = Table(
    "attempts",
    metadata,
    # Keyed digests: of the idempotency key with its owner, and of the request body.
    Column("key", LargeBinary(32), primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE")),
    _timestamp("created_at"),
    Column("status", SmallInteger, nullable=False),
    Column("location", Text),
    Column("body", LargeBinary, nullable=False),
    Index("ix_attempts_user_id", "user_id"),
    Index("ix_attempts_created_at", "created_at"),
)

mails = Table(
    "mails",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Keyed digest of the quota and the canonical address, since addresses must not stay here.
    Column("address_digest", LargeBinary(32), nullable=False),
    _timestamp("counted_at"),
    Index("ix_mails_address_digest_counted_at", "address_digest", "counted_at"),
    Index("ix_mails_counted_at", "counted_at"),
)

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), nullable=False),
    Column("purpose", Text, nullable=False),
    _timestamp("expires_at"),
    # Until this time another request uses the link; null if none does.
    _timestamp("claimed_until", nullable=True),
    Index("ix_one_time_tokens_user_id", "user_id"),
    Index("ix_one_time_tokens_expires_at", "expires_at"),
)

profiles = Table(
    "profiles",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("name", Text),
    Column("title", Text),
    Column("company", Text),
    Column("domain", Text),
    Column("country", Text),
    Column("avatar_url", Text),
    _timestamp("found_at"),
)

verification_results = Table(
    "verdicts",
    metadata,
    # Keyed digest of the canonical address: a dump contains no addresses, and cannot be searched
    # for one.
    Column("fingerprint", LargeBinary(32), primary_key=True),
    Column("verdict", Text, nullable=False),
    _timestamp("given_at"),
    Index("ix_verdicts_given_at", "given_at"),
)

referred_emails = Table(
    "referred_emails",
    metadata,
    # Keyed digest of the canonical address. It outlives the account by a year at most, so that
    # one address is not referred again and again.
    Column("fingerprint", LargeBinary(32), primary_key=True),
    _timestamp("referred_at"),
    Index("ix_referred_emails_referred_at", "referred_at"),
)

imports = Table(
    "imports",
    metadata,
    # Of the file. The row is deleted when the import is complete.
    Column("digest", LargeBinary(32), primary_key=True),
    _timestamp("started_at"),
    Column("progress", JSONB, nullable=False),
)

# Partitioned by month: the ids contain the time. Revision 0010 creates the partitions and the
# triggers that reject changes. There are no foreign keys: records outlive what they are about.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True),
    _timestamp("at"),
    Column("actor_type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text),
    Column("request_id", Text),
    # One for each filter, and for each pair of them: PostgreSQL counts the values of an expression,
    # so it knows how rare a pair is, which the values of two columns do not tell.
    Index("ix_audit_log_actor_id", "actor", "id"),
    Index("ix_audit_log_subject_id", "subject", "id"),
    Index("ix_audit_log_action_id", "action", "id"),
    Index("ix_audit_log_actor_action", text("((actor || ' '::text) || action)"), "id"),
    Index("ix_audit_log_subject_actor", text("((subject || ' '::text) || actor)"), "id"),
    Index("ix_audit_log_subject_action", text("((subject || ' '::text) || action)"), "id"),
    postgresql_partition_by="RANGE (id)",
)


# Ids of the keys in the files of the processes, which report them once a minute.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    _timestamp("reported_at"),
)


def _event_columns() -> list[Column[Any]]:
    return [
        Column("type", Text, nullable=False),
        _timestamp("occurred_at"),
        # Not jsonb: the text stays as it is, and is cheaper to store.
        Column("data", JSON, nullable=False),
        # The user whose external id is in the data; null if there is none.
        Column("external_user_id", Uuid),
    ]


# Events of committed changes, until they are published.
event_outbox = Table(
    "event_outbox",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False),
    *_event_columns(),
    Index(
        "ix_event_outbox_external_user_id",
        "external_user_id",
        postgresql_where=text("external_user_id IS NOT NULL"),
    ),
)

event_positions = Sequence("event_positions", metadata=metadata)

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Position in the feed, in the order of publication; null for events that are not in the feed.
    Column("position", BigInteger),
    *_event_columns(),
    UniqueConstraint("position", name="uq_events_position"),
    Index("ix_events_type_position", "type", "position"),
    Index("ix_events_type_occurred_at_id", "type", "occurred_at", "id"),
    Index(
        "ix_events_external_user_id",
        "external_user_id",
        postgresql_where=text("external_user_id IS NOT NULL"),
    ),
)
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("url", Text, nullable=False),
    # Patterns of event types.
    Column("events", ARRAY(Text), nullable=False),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    _timestamp("created_at"),
    # Encrypted under a key derived from the signing keys.
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    _timestamp("previous_secret_until", nullable=True),
    # Time of the first failed attempt since the last success.
    _timestamp("failing_since", nullable=True),
    Column("succeeded_attempts", BigInteger, nullable=False, server_default="0"),
    Column("failed_attempts", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("NOT (enabled AND disabled_reason IS NOT NULL)", name="disabled_reason"),
)

# No foreign keys: deleting a webhook or an event would delete its deliveries in one statement,
# however many there are. Both are deleted in batches instead.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    # Time of the event, by which deliveries are deleted together with their events.
    _timestamp("occurred_at"),
    _timestamp("created_at"),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("scheduled_failures", SmallInteger, nullable=False),
    _timestamp("scheduled_for", nullable=True),
    _timestamp("retry_requested_at", nullable=True),
    Column("response_status", SmallInteger),
    Column("response_body", Text),
    Column("error", Text),
    Column(
        "next_attempt_at",
        DateTimeUTC(timezone=True),
        Computed("LEAST(scheduled_for, retry_requested_at)", persisted=True),
    ),
    CheckConstraint("(status = 'pending') = (scheduled_for IS NOT NULL)", name="scheduled_for"),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    Index("ix_webhook_deliveries_webhook_id_status_id", "webhook_id", "status", "id"),
    Index("ix_webhook_deliveries_occurred_at", "occurred_at"),
    # Begins with the webhook: one with a million due deliveries costs the others nothing.
    Index(
        "ix_webhook_deliveries_due",
        "webhook_id",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
    ),
)

# Requests to deliver past events again, until all their deliveries are created.
webhook_replays = Table(
    "webhook_replays",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    _timestamp("since"),
    _timestamp("until"),
    # The last event of the previous batch.
    _timestamp("after_occurred_at", nullable=True),
    Column("after_event_id", Uuid),
)

REFERRER_FIGURES = ("confirmed", "pending", "rejected", "confirmations")

# What triggers on users, codes and referrals found changed, until it is added to the figures of
# the two other tables (revision 0022). `confirmed`, `pending` and `rejected` count referrals by the
# day of joining and the status now, `confirmations` and `rejections` by the day of the decision.
statistics_changes = Table(
    "statistics_changes",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("day", Date, nullable=False),
    Column("referrer_id", Uuid),
    *(
        Column(name, Integer, nullable=False, server_default="0")
        for name in ("registered", "codes", *REFERRER_FIGURES, "rejections")
    ),
)

daily_statistics = Table(
    "daily_statistics",
    metadata,
    Column("day", Date, primary_key=True),
    *(
        Column(name, Integer, nullable=False)
        for name in ("registered", "referred", "confirmed", "rejected", "codes")
    ),
)

referrer_statistics = Table(
    "referrer_statistics",
    metadata,
    Column("referrer_id", Uuid, primary_key=True),
    # `day`, `month`, `year`, or `all` with the start -infinity.
    Column("period", Text, primary_key=True),
    Column("start", Date, primary_key=True),
    *(Column(name, Integer, nullable=False) for name in REFERRER_FIGURES),
    # For the referrers with the most confirmed referrals.
    Index("ix_referrer_statistics_top", "period", "start", "confirmed", "referrer_id"),
)
