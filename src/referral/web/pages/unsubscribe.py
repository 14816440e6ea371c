"""The page that `List-Unsubscribe` links open (RFC 8058)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post
from litestar.params import FromPath

from referral.core.use_cases.notifications import Unsubscribe
from referral.web.injection import inject

PAGE_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Referral</title>
<style>
body {{
  max-width: 30rem; margin: 4rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
}}
button {{ padding: .6rem 1rem; font: inherit }}
</style>
</head>
<body>{content}</body>
</html>
"""

QUESTION_HTML = """
<p>Get no more mails about new referrals?</p>
<p lang="ru">Больше не получать письма о новых рефералах?</p>
<form method="post"><button>Yes · Да</button></form>
"""

DONE_HTML = """
<p>You will get no more mails about new referrals.</p>
<p lang="ru">Письма о новых рефералах больше приходить не будут.</p>
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
)


class UnsubscribeController(Controller):
    """Routes for unsubscribing from notifications."""

    path = "/unsubscribe"
    include_in_schema = False

    @get("/{token:str}", media_type=MediaType.HTML)
    async def ask(self, token: FromPath[str]) -> Response[str]:  # noqa: ARG002 - the form posts here
        """Ask for confirmation: a program that opens every link of a mail must not unsubscribe."""
        return _page(QUESTION_HTML)

    @post("/{token:str}", media_type=MediaType.HTML, status_code=200)
    @inject
    async def unsubscribe(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        unsubscribe: FromDishka[Unsubscribe],
    ) -> Response[str]:
        """Unsubscribe, by the form or by a mail client's one-click request."""
        await request.body()
        await unsubscribe(token)
        return _page(DONE_HTML)


def _page(content: str) -> Response[str]:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(PAGE_HTML.format(content=content), media_type=MediaType.HTML, headers=headers)
