"""Only the owner of the audit log deletes its records, and none of the last day."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# A setting can be made by any role, so the trigger also checks the role: prune_audit_log runs as
# the owner.
OWNER_ONLY = """
    AND current_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID)"""

# An hour less than a day, the least REFERRAL_AUDIT_DAYS, because clocks differ.
RECENT_RECORDS_STAY = """
    IF before > now() - interval '23 hours' THEN
        RAISE EXCEPTION 'The audit log keeps the records of the last day.'
            USING ERRCODE = 'insufficient_privilege';
    END IF;"""


REJECT_CHANGE = """
CREATE OR REPLACE FUNCTION reject_audit_log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('referral.audit_pruning', true) = 'on' -- and who
    THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'The audit log cannot be changed: % is rejected.', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""

PRUNE = """
CREATE OR REPLACE FUNCTION prune_audit_log(before timestamptz, batch integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET referral.audit_pruning = 'on'
AS $$
DECLARE
    deleted integer;
BEGIN -- unless recent
    DELETE FROM audit_log WHERE id = ANY (ARRAY(
        SELECT id FROM audit_log WHERE id < audit_log_id(before) ORDER BY id LIMIT batch));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$
"""


def upgrade() -> None:
    """Change the schema."""

    # The functions keep their owner and their rights.
    op.execute(REJECT_CHANGE.replace("-- and who", OWNER_ONLY))
    op.execute(PRUNE.replace("-- unless recent", RECENT_RECORDS_STAY))


def downgrade() -> None:
    """Change it back."""

    op.execute(REJECT_CHANGE)
    op.execute(PRUNE)
