"""Figures by day, kept by triggers, and when referrals were confirmed and rejected."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# The service takes it too, to add changes to the figures.
LOCK_KEY = 7_215_904_534

CREATE_TABLES = (
    """
CREATE TABLE IF NOT EXISTS daily_statistics (
    day date NOT NULL,
    registered integer NOT NULL,
    referred integer NOT NULL,
    confirmed integer NOT NULL,
    rejected integer NOT NULL,
    codes integer NOT NULL,
    CONSTRAINT pk_daily_statistics PRIMARY KEY (day)
)
""",
    """
CREATE TABLE IF NOT EXISTS referrer_statistics (
    referrer_id uuid NOT NULL,
    period text NOT NULL,
    start date NOT NULL,
    confirmed integer NOT NULL,
    pending integer NOT NULL,
    rejected integer NOT NULL,
    confirmations integer NOT NULL,
    CONSTRAINT pk_referrer_statistics PRIMARY KEY (referrer_id, period, start)
)
""",
    """
CREATE INDEX IF NOT EXISTS ix_referrer_statistics_top
    ON referrer_statistics (period, start, confirmed, referrer_id)
""",
    """
CREATE TABLE IF NOT EXISTS statistics_changes (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    day date NOT NULL,
    referrer_id uuid,
    registered integer NOT NULL DEFAULT 0,
    codes integer NOT NULL DEFAULT 0,
    confirmed integer NOT NULL DEFAULT 0,
    pending integer NOT NULL DEFAULT 0,
    rejected integer NOT NULL DEFAULT 0,
    confirmations integer NOT NULL DEFAULT 0,
    rejections integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_statistics_changes PRIMARY KEY (seq)
)
""",
)

ADD_COLUMNS = """
ALTER TABLE referrals ADD COLUMN IF NOT EXISTS confirmed_at timestamptz,
    ADD COLUMN IF NOT EXISTS rejected_at timestamptz
"""

# The times of a referral: of joining, with its status now, and of each decision. A referral that
# was decided before the columns existed has no time, and counts when an admin decided or, without
# an admin, when the user joined.
FIGURES = """
CROSS JOIN LATERAL (VALUES
    (joined_at, (status = 'confirmed')::int, (status = 'pending')::int,
        (status = 'rejected')::int, 0, 0),
    (CASE WHEN status = 'confirmed' THEN coalesce(confirmed_at, decided_at, joined_at)
        ELSE confirmed_at END, 0, 0, 0, 1, 0),
    (CASE WHEN status = 'rejected' THEN coalesce(rejected_at, decided_at, joined_at)
        ELSE rejected_at END, 0, 0, 0, 0, 1)
) AS figure (at, confirmed, pending, rejected, confirmations, rejections)
"""

FUNCTIONS = (
    """
CREATE OR REPLACE FUNCTION count_changed_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO statistics_changes (day, registered)
    SELECT (created_at AT TIME ZONE 'UTC')::date, count(*) * TG_ARGV[0]::int
    FROM changed GROUP BY 1;
    RETURN NULL;
END
$$
""",
    """
CREATE OR REPLACE FUNCTION count_changed_codes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO statistics_changes (day, codes)
    SELECT (created_at AT TIME ZONE 'UTC')::date, count(*) * TG_ARGV[0]::int
    FROM changed GROUP BY 1;
    RETURN NULL;
END
$$
""",
    """
CREATE OR REPLACE FUNCTION count_changed_referrals() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := TG_ARGV[0];
BEGIN
    INSERT INTO statistics_changes
        (day, referrer_id, confirmed, pending, rejected, confirmations, rejections)
    SELECT (at AT TIME ZONE 'UTC')::date, referrer_id, sign * sum(figure.confirmed),
        sign * sum(figure.pending), sign * sum(figure.rejected),
        sign * sum(figure.confirmations), sign * sum(figure.rejections)
    FROM changed -- figures
    WHERE at IS NOT NULL GROUP BY 1, 2;
    RETURN NULL;
END
$$
""",
    """
CREATE OR REPLACE FUNCTION count_changed_referral() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO statistics_changes
        (day, referrer_id, confirmed, pending, rejected, confirmations, rejections)
    SELECT (at AT TIME ZONE 'UTC')::date, referrer_id, sum(sign * figure.confirmed),
        sum(sign * figure.pending), sum(sign * figure.rejected),
        sum(sign * figure.confirmations), sum(sign * figure.rejections)
    FROM (VALUES
        (-1, OLD.referrer_id, OLD.status, OLD.joined_at, OLD.decided_at, OLD.confirmed_at,
            OLD.rejected_at),
        (1, NEW.referrer_id, NEW.status, NEW.joined_at, NEW.decided_at, NEW.confirmed_at,
            NEW.rejected_at)
    ) AS changed
        (sign, referrer_id, status, joined_at, decided_at, confirmed_at, rejected_at)
    -- figures
    WHERE at IS NOT NULL GROUP BY 1, 2;
    RETURN NULL;
END
$$
""",
    # The previous release does not set the times; neither does an import.
    """
CREATE OR REPLACE FUNCTION set_decision_times() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status = 'confirmed' THEN
            NEW.confirmed_at := coalesce(NEW.confirmed_at, NEW.joined_at);
        ELSIF NEW.status = 'rejected' THEN
            NEW.rejected_at := coalesce(NEW.rejected_at, NEW.joined_at);
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.status = 'confirmed' THEN
        NEW.confirmed_at := coalesce(OLD.confirmed_at, OLD.decided_at, OLD.joined_at);
    ELSIF OLD.status = 'rejected' THEN
        NEW.rejected_at := coalesce(OLD.rejected_at, OLD.decided_at, OLD.joined_at);
    END IF;
    IF NEW.status = 'confirmed' THEN
        NEW.confirmed_at := coalesce(NEW.confirmed_at, NEW.decided_at, now());
    ELSIF NEW.status = 'rejected' THEN
        NEW.rejected_at := coalesce(NEW.rejected_at, NEW.decided_at, now());
    END IF;
    RETURN NEW;
END
$$
""",
    # Counts all rows. Meanwhile others may write: their changes are not in the snapshot of this
    # transaction, and stay. Changes that are in it are counted with the rows.
    """
CREATE OR REPLACE FUNCTION rebuild_statistics() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE EXCEPTION 'Begin with BEGIN ISOLATION LEVEL REPEATABLE READ.';
    END IF;
    DELETE FROM statistics_changes;
    DELETE FROM daily_statistics;
    DELETE FROM referrer_statistics;
    INSERT INTO referrer_statistics
        (referrer_id, period, start, confirmed, pending, rejected, confirmations)
    SELECT referrer_id, 'day', (at AT TIME ZONE 'UTC')::date, sum(figure.confirmed),
        sum(figure.pending), sum(figure.rejected), sum(figure.confirmations)
    FROM referrals -- figures
    WHERE at IS NOT NULL AND figure.rejections = 0 GROUP BY 1, 3 ORDER BY 3;
    INSERT INTO referrer_statistics
        (referrer_id, period, start, confirmed, pending, rejected, confirmations)
    SELECT referrer_id, wanted, CASE wanted WHEN 'all' THEN '-infinity'
            ELSE date_trunc(wanted, start)::date END,
        sum(confirmed), sum(pending), sum(rejected), sum(confirmations)
    FROM referrer_statistics, unnest('{month,year,all}'::text[]) AS wanted
    GROUP BY 1, 2, 3 ORDER BY 2, 3;
    INSERT INTO daily_statistics (day, registered, referred, confirmed, rejected, codes)
    SELECT day, sum(registered), sum(referred), sum(confirmed), sum(rejected), sum(codes)
    FROM (
        SELECT (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS registered,
            0 AS referred, 0 AS confirmed, 0 AS rejected, 0 AS codes
        FROM users GROUP BY 1
        UNION ALL
        SELECT (created_at AT TIME ZONE 'UTC')::date, 0, 0, 0, 0, count(*) FROM codes GROUP BY 1
        UNION ALL
        SELECT (at AT TIME ZONE 'UTC')::date, 0,
            sum(figure.confirmed + figure.pending + figure.rejected),
            sum(figure.confirmations), sum(figure.rejections), 0
        FROM referrals -- figures
        WHERE at IS NOT NULL GROUP BY 1
    ) AS figures GROUP BY day;
END
$$
""",
)

# A statement that adds many rows, such as one of an import, appends one change for each day.
EVENTS = {"insert": ("NEW", 1), "delete": ("OLD", -1)}
TRIGGERS = (
    """
CREATE OR REPLACE TRIGGER set_decision_times BEFORE INSERT OR UPDATE OF status, decided_at
    ON referrals FOR EACH ROW EXECUTE FUNCTION set_decision_times()
""",
    *(
        f"""
CREATE OR REPLACE TRIGGER count_{event}s AFTER {event.upper()} ON {table}
    REFERENCING {rows} TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed_{table}('{sign}')
"""
        for table in ("users", "codes", "referrals")
        for event, (rows, sign) in EVENTS.items()
    ),
    """
CREATE OR REPLACE TRIGGER count_updates AFTER UPDATE ON referrals FOR EACH ROW
    WHEN ((OLD.referrer_id, OLD.status, OLD.joined_at, OLD.confirmed_at, OLD.rejected_at)
        IS DISTINCT FROM
        (NEW.referrer_id, NEW.status, NEW.joined_at, NEW.confirmed_at, NEW.rejected_at))
    EXECUTE FUNCTION count_changed_referral()
""",
)


def upgrade() -> None:
    """Change the schema, and count the rows. Others may write meanwhile."""

    with op.get_context().autocommit_block():
        # A transaction for each: two locks at a time could deadlock with those of a request.
        op.execute("SET lock_timeout = '5s'")
        for statement in (*CREATE_TABLES, ADD_COLUMNS, *FUNCTIONS, *TRIGGERS):
            op.execute(statement.replace("-- figures", FIGURES))
        op.execute("SET lock_timeout = 0")
        op.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        op.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        op.execute("SELECT rebuild_statistics()")
        op.execute("COMMIT")
        op.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")
        for table in ("daily_statistics", "referrer_statistics"):
            op.execute(f"ANALYZE {table}")
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    """Change it back."""

    for table in ("referrals", "codes", "users"):
        for event in EVENTS:
            op.execute(f"DROP TRIGGER count_{event}s ON {table}")
    op.execute("DROP TRIGGER count_updates ON referrals")
    op.execute("DROP TRIGGER set_decision_times ON referrals")
    op.execute(
        "DROP FUNCTION rebuild_statistics(), set_decision_times(), count_changed_referral(), "
        "count_changed_referrals(), count_changed_codes(), count_changed_users()"
    )
    op.drop_column("referrals", "rejected_at")
    op.drop_column("referrals", "confirmed_at")
    op.drop_table("statistics_changes")
    op.drop_table("referrer_statistics")
    op.drop_table("daily_statistics")
