"""The user journey of two people, with e-mails from the catcher."""

import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.api_client import API, NEW_PASSWORD, PASSWORD, Member, log_in, register
from tests.support.waiting import wait_for_value


@dataclass(frozen=True)
class Journey:
    """Clients of the service and of the mail catcher, and the secrets in the requests."""

    web: httpx.AsyncClient
    catcher: httpx.AsyncClient
    secrets: set[str] = field(default_factory=set)

    async def __call__(self) -> None:
        """Run the journey."""
        ann = await self._join("Ann.Journey@example.com")
        code = await ann.issue_code(code="ANN-JOURNEY", max_uses=5)
        self.secrets.add("ANN-JOURNEY")
        requested = {"email": ann.email}
        for response in (
            await self.web.get(f"{API}/codes/lookup", params=requested),
            await self.web.post(f"{API}/codes/lookup", json=requested),
        ):
            assert response.json()["code"] == code["code"], response.text

        bob = await self._join("Bob.Journey@example.com", referral_code="ann-journey")
        assert (await register(self.web, bob.email)).status_code == 409
        assert bob.email in await self._mail_to(ann.email, "joined with your code")
        referrals = (await ann.request("GET", "/me/referrals")).json()["items"]
        assert [(referral["email"], referral["status"]) for referral in referrals] == [
            (bob.email, "confirmed")
        ]

        assert (await ann.request("POST", "/me/codes/active/email")).status_code == 202
        assert "ANN-JOURNEY" in await self._mail_to(ann.email, "code", "joined")
        await self._reset_password(ann.email)

    async def _join(self, email: str, **rest: Any) -> Member:
        """Register, confirm the e-mail by its link, and log in."""
        self.secrets.update((email, PASSWORD))
        user = await register(self.web, email, **rest)
        assert user.status_code == 201, user.text
        token = await self._token(email, "/confirm", "Confirm")
        confirmed = await self.web.post(
            f"{API}/auth/email/confirm", json={"token": token, "password": PASSWORD}
        )
        assert confirmed.status_code == 204, confirmed.text
        tokens = (await log_in(self.web, email)).json()
        self.secrets.update((tokens["access_token"], tokens["refresh_token"]))
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        return Member(self.web, user.json()["id"], email, headers)

    async def _reset_password(self, email: str) -> None:
        """Request a reset link, set a new password, and log in."""
        requested = await self.web.post(f"{API}/auth/password/forgot", json={"email": email})
        assert requested.status_code == 202, requested.text
        body = {"token": await self._token(email, "/reset", "password")}
        self.secrets.add(NEW_PASSWORD)
        reset = body | {"new_password": NEW_PASSWORD}
        assert (await self.web.post(f"{API}/auth/password/reset", json=reset)).status_code == 204
        assert (await log_in(self.web, email)).status_code == 400
        assert (await log_in(self.web, email, NEW_PASSWORD)).status_code == 200

    async def _token(self, email: str, page: str, subject: str) -> str:
        text = await self._mail_to(email, subject)
        found = re.search(
            rf"{re.escape(str(self.web.base_url).rstrip('/'))}{page}\?token=(\S+)", text
        )
        assert found, text
        self.secrets.add(found[1])
        return found[1]

    async def _mail_to(self, email: str, subject: str, but_not: str = "\n") -> str:
        """Return the text of the recipient's e-mail with this subject."""

        async def find() -> str:
            listed = (await self.catcher.get("/api/v1/messages")).json()["messages"]
            for mail in listed:
                matches = subject in mail["Subject"] and but_not not in mail["Subject"]
                if matches and mail["To"][0]["Address"] == email:
                    return str(
                        (await self.catcher.get(f"/api/v1/message/{mail['ID']}")).json()["Text"]
                    )
            return ""

        return await wait_for_value(find)
