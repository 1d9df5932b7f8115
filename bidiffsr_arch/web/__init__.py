"""A page in the browser that upscales images, the command `basicsr web`. Needs Gradio, the extra `web`.

`models` holds the networks on offer, `work` upscales a visitor's images within `Limits`, and `preview` draws what the
page shows. `visitors` gives each visitor a folder, and `guard` lets no request out of it. `page` is the page itself and
`server` serves it; only these two and `guard` import what the extra brings.
"""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        megapixels: largest result, in millions of pixels.
        upload_megabytes: largest image file, in millions of bytes.
        images: most images per request.
        queue: most requests that wait while another one runs.
        seconds: longest computation of a request.
    """

    megapixels: float = 16.0
    upload_megabytes: float = 64.0
    images: int = 20
    queue: int = 8
    seconds: float = 600.0
