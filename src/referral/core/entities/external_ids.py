"""External ids: the ids of users in the product that created them here."""

from referral.core.errors import InvalidRequest

MAX_EXTERNAL_ID_CHARACTERS = 255

BLANK_RANGES = (
    ("\u034f", "\u034f"),  # combining grapheme joiner
    ("\u115f", "\u1160"),  # Hangul fillers
    ("\u17b4", "\u17b5"),  # Khmer inherent vowels
    ("\u180b", "\u180f"),  # Mongolian selectors
    ("\u2800", "\u2800"),  # Braille blank
    ("\u3164", "\u3164"),  # Hangul filler
    ("\ufe00", "\ufe0f"),  # variation selectors
    ("\uffa0", "\uffa0"),  # halfwidth Hangul filler
    ("\U000e0100", "\U000e01ef"),  # variation selectors
)
"""Characters that Python calls printable and that nobody sees."""


def is_external_id(text: str) -> bool:
    """Return whether a text is 1 to 255 visible characters."""
    is_printable = text.isprintable() and " " not in text
    return 1 <= len(text) <= MAX_EXTERNAL_ID_CHARACTERS and is_printable and not _has_blank(text)


def validate_external_id(text: str) -> str:
    """Return the external id, or raise `InvalidRequest`."""
    if not is_external_id(text):
        detail = (
            f"An external id has 1 to {MAX_EXTERNAL_ID_CHARACTERS} visible characters, "
            "and neither spaces nor control characters."
        )
        raise InvalidRequest(detail, field="external_id")
    return text


def _has_blank(text: str) -> bool:
    return any(first <= each <= last for each in text for first, last in BLANK_RANGES)
