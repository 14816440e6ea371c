"""QR codes by segno."""

import io
from functools import lru_cache

import segno


class SegnoQrCodeRenderer:
    """QR codes with error correction level M and the standard quiet zone, dark on white."""

    def svg(self, link: str) -> bytes:
        """Return the QR code of a link as SVG."""
        return _draw(link, "svg")

    def png(self, link: str) -> bytes:
        """Return the QR code of a link as PNG."""
        return _draw(link, "png")


@lru_cache(256)
def _draw(link: str, image_format: str) -> bytes:
    image = io.BytesIO()
    segno.make(link, error="m", micro=False).save(image, kind=image_format, scale=8, light="white")
    return image.getvalue()
