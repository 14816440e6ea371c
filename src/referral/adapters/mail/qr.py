"""QR codes by segno."""

import io
from functools import lru_cache

import segno


class SegnoQrCodes:
    """QR codes with medium error correction, dark on light with the quiet zone of the standard."""

    def svg(self, link: str) -> bytes:
        """See the port."""
        return _draw(link, "svg")

    def png(self, link: str) -> bytes:
        """See the port."""
        return _draw(link, "png")


@lru_cache(256)
def _draw(link: str, image_format: str) -> bytes:
    image = io.BytesIO()
    segno.make(link, error="m", micro=False).save(image, kind=image_format, scale=8, light="white")
    return image.getvalue()
