"""The queries of docs/migrating.md, run on such schemas, and the import of what they return."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from referral.settings import Settings
from tests.conftest import execute, replace_database
from tests.contracts.test_foreign_hashes import HASHES
from tests.integration.test_import_commands import Installation
from tests.support.api_client import API, PASSWORD, log_in

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"

DJANGO = """
CREATE TABLE auth_user (id serial PRIMARY KEY, username varchar(150), email varchar(254) NOT NULL,
    password varchar(128) NOT NULL, is_superuser boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true, date_joined timestamptz NOT NULL DEFAULT now());
CREATE TABLE referrals_code (id bigserial PRIMARY KEY, owner_id int REFERENCES auth_user,
    code varchar(32), expires_at timestamptz, max_uses int, uses int, is_active boolean,
    created_at timestamptz DEFAULT now());
CREATE TABLE referrals_referral (id bigserial PRIMARY KEY, user_id int REFERENCES auth_user,
    referrer_id int REFERENCES auth_user, code_id bigint REFERENCES referrals_code,
    created_at timestamptz DEFAULT now());
INSERT INTO auth_user (email, password) VALUES
    ('Ann-NAME@example.com', '<django pbkdf2>'),
    ('bob-NAME@example.com', '<django bcrypt>'),
    ('cem-NAME@example.com', 'argon2<argon2id>'),
    ('dan-NAME@example.com', 'bcrypt$<bcrypt 2b>'), ('', '!');
INSERT INTO referrals_code (owner_id, code, expires_at, max_uses, uses, is_active)
    VALUES (1, 'ANN-NAME', '2099-01-01', 9, 1, true);
INSERT INTO referrals_referral (user_id, referrer_id, code_id) VALUES (2, 1, 1), (3, 1, null);
"""

FASTAPI = """
CREATE TABLE users (id serial PRIMARY KEY, email varchar NOT NULL, hashed_password varchar,
    is_active boolean DEFAULT true, is_verified boolean DEFAULT true,
    created_at timestamp DEFAULT now(), referrer_id int REFERENCES users);
CREATE TABLE referral_codes (id serial PRIMARY KEY, user_id int REFERENCES users, code varchar,
    expires_at timestamp, created_at timestamp DEFAULT now());
INSERT INTO users (id, email, hashed_password, referrer_id) VALUES
    (11, 'Ann-NAME@example.com', '<bcrypt 2b>', null),
    (12, 'bob-NAME@example.com', '<passlib pbkdf2>', 11),
    (13, 'cem-NAME@example.com', '<argon2id>', 11),
    (14, 'dan-NAME@example.com', '<passlib scrypt>', null);
INSERT INTO referral_codes (user_id, code, expires_at) VALUES (11, 'ANN-NAME', '2099-01-01');
"""

SUPABASE = """
CREATE SCHEMA auth;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email varchar(255), encrypted_password varchar(255),
    email_confirmed_at timestamptz, banned_until timestamptz, deleted_at timestamptz,
    created_at timestamptz DEFAULT now());
CREATE TABLE public.referral_codes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid REFERENCES auth.users, code text, expires_at timestamptz, max_uses int,
    created_at timestamptz DEFAULT now());
CREATE TABLE public.referrals (referred_id uuid REFERENCES auth.users,
    referrer_id uuid REFERENCES auth.users, created_at timestamptz DEFAULT now());
INSERT INTO auth.users (id, email, encrypted_password, email_confirmed_at) VALUES
    (md5('annNAME')::uuid, 'ann-NAME@example.com', '<bcrypt 2a>', now()),
    (md5('bobNAME')::uuid, 'bob-NAME@example.com', '<bcrypt 2a>', now()),
    (md5('cemNAME')::uuid, 'cem-NAME@example.com', '<bcrypt 2a>', null),
    (md5('danNAME')::uuid, 'dan-NAME@example.com', '<bcrypt 2a>', now()),
    (gen_random_uuid(), null, '', null);
INSERT INTO public.referral_codes (user_id, code, expires_at)
    VALUES (md5('annNAME')::uuid, 'ANN-NAME', '2099-01-01');
INSERT INTO public.referrals (referred_id, referrer_id) VALUES
    (md5('bobNAME')::uuid, md5('annNAME')::uuid), (md5('cemNAME')::uuid, md5('annNAME')::uuid);
"""

SCHEMAS = {"Django": DJANGO, "FastAPI with passlib": FASTAPI, "Supabase": SUPABASE}


@pytest.fixture
async def old_database(postgres_url: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = f"old_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield replace_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def query_of(title: str) -> str:
    """Return the query below a title of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"### {title}\n")[2]
    match = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    assert match
    return match[1]


@pytest.mark.parametrize("title", SCHEMAS)
async def test_query_moves_the_users_of_a_schema(
    client: httpx.AsyncClient,
    settings: Settings,
    old_database: str,
    key_file: Path,
    tmp_path: Path,
    title: str,
) -> None:
    """Every line is taken; all users log in, and the codes and referrals are theirs."""
    name = uuid4().hex[:12]
    connection = await asyncpg.connect(old_database)
    schema = SCHEMAS[title].replace("NAME", name)
    for kind, text in HASHES.items():
        schema = schema.replace(f"<{kind}>", text)
    await connection.execute(schema)
    rows = await connection.fetch(query_of(title))
    await connection.close()
    path = tmp_path / "move.jsonl"
    path.write_text("".join(f"{row[0]}\n" for row in rows))
    installation = Installation(settings.database_url or "", key_file, tmp_path)
    summary = installation.import_file(path)
    added = {kind: summary[kind]["added"] for kind in ("users", "codes", "referrals")}
    assert added == {"users": 4, "codes": 1, "referrals": 2}, path.read_text()
    accounts: dict[str, dict[str, Any]] = {}
    for user in ("ann", "bob", "cem", "dan"):
        tokens = await log_in(client, f"{user}-{name}@example.com", PASSWORD)
        assert tokens.status_code == 200, json.dumps(tokens.json())
        headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
        accounts[user] = (await client.get(f"{API}/me", headers=headers)).json()
    assert accounts["ann"]["referral_count"] == 2
    assert accounts["ann"]["active_code"]["code"] == f"ANN-{name}"
    assert [accounts[user]["referrer"] is not None for user in ("bob", "cem", "dan")] == [
        True,
        True,
        False,
    ]
