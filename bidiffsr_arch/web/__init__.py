"""A web page that upscales images, the command `basicsr web`. Needs Gradio, the extra `web`.

`models` loads the networks on offer, `work` upscales a visitor's images within `Limits`, and `preview` makes the images
that the page shows. `visitors` gives each visitor a folder, and `guard` restricts requests to it. `page` defines the
page and `server` serves it; only these two and `guard` import packages of the extra.
"""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        megapixels: largest result, in millions of pixels.
        upload_megabytes: largest image file, in millions of bytes.
        images: largest number of images per request.
        queue: largest number of requests that wait while another one runs.
        seconds: longest computation of a request.
    """

    megapixels: float = 16.0
    upload_megabytes: float = 64.0
    images: int = 20
    queue: int = 8
    seconds: float = 600.0
