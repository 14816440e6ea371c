"""The main use case from end to end, over HTTP and a real database."""

import httpx

from tests.support.api_client import API, join


async def test_referral_from_code_to_list(
    client: httpx.AsyncClient,
) -> None:
    """Ann makes a code, Bob finds it and registers with it, and Ann sees the referral."""
    ann = await join(client)
    code = await ann.issue_code(code="Ann-2026")
    found = await client.get(f"{API}/codes/lookup", params={"email": ann.email.upper()})
    assert found.json()["code"] == code["code"] == "Ann-2026"

    bob = await join(client, referral_code="ann-2026")
    me = (await ann.request("GET", "/me")).json()
    assert me["referral_count"] == 1
    assert [referral["email"] for referral in me["recent_referrals"]] == [bob.email]
    assert me["active_code"]["uses"] == 1
    assert (await bob.request("GET", "/me")).json()["referrer"] == {
        "id": ann.id,
        "email": None,
    }

    listed = (await ann.request("GET", f"/users/{ann.id}/referrals")).json()
    assert [(referral["id"], referral["code"]) for referral in listed["items"]] == [
        (bob.id, "Ann-2026")
    ]
    seen_by_bob = (await bob.request("GET", f"/users/{ann.id}/referrals")).json()
    assert "email" not in seen_by_bob["items"][0]
