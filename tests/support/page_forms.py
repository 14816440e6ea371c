"""The forms of the pages, sent without a browser."""

from html.parser import HTMLParser
from typing import Any

import httpx

from tests.support.api_client import PASSWORD

NAVIGATION = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}


class FormParser(HTMLParser):
    """Collects the forms of a page: their actions and the values of their fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a form, or add a field to the last one."""
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append((attributes["action"], {}))
        elif tag in {"input", "select", "button"} and "name" in attributes and self.forms:
            self.forms[-1][1][attributes["name"]] = attributes.get("value", "")
        elif tag == "option" and self.forms and "selected" in attributes:
            fields = self.forms[-1][1]
            fields[list(fields)[-1]] = attributes["value"]


def forms_of(page: httpx.Response) -> dict[str, dict[str, str]]:
    """Return the fields of each form of a page, by the path of its action."""
    parser = FormParser()
    parser.feed(page.text)
    return {action.partition("?")[0]: fields for action, fields in parser.forms}


async def send_form(
    client: httpx.AsyncClient, path: str, action: str | None = None, /, **fields: str
) -> httpx.Response:
    """Open a page, and send its form with some fields filled in; the client keeps the cookies."""
    page = await client.get(path)
    known = forms_of(page)[action or path.partition("?")[0]]
    unknown = fields.keys() - known.keys()
    assert not unknown
    target = path if action is None else action
    return await client.post(target, data=known | fields, headers=NAVIGATION)


async def log_in_on_page(
    client: httpx.AsyncClient, email: str, password: str = PASSWORD, query: str = ""
) -> httpx.Response:
    """Log in on `/login`."""
    path = f"/login?{query}" if query else "/login"
    fields: dict[str, Any] = {"email": email, "password": password}
    return await send_form(client, path, **fields)
