"""Pictures as responses."""

from litestar.openapi.datastructures import ResponseSpec

SVG_MEDIA_TYPE = "image/svg+xml"
PNG_MEDIA_TYPE = "image/png"


def image_response(media_type: str) -> dict[int, ResponseSpec]:
    """Document the response of a route for a picture."""
    image = ResponseSpec(
        bytes, description="The image.", media_type=media_type, generate_examples=False
    )
    return {200: image}
