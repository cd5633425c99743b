"""Self-contained HTML pages: one style sheet inside, images inside, no script, nothing fetched."""

import base64
import hashlib
import io
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ctscribe import RESEARCH_USE, __version__
from ctscribe.export.printable import printable, signed_mm


def render(template: str, **context: object) -> str:
    """Renders a template of this package; every text is escaped and made printable.

    The style sheet is the only one the page's content security policy admits, by its hash.
    """
    style = files(__package__).joinpath("templates", "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup(style),
            style_hash=Markup(f"sha256-{digest}"),
            research_use=RESEARCH_USE,
            version=__version__,
        )
    )


def png_uri(content: bytes) -> str:
    """A PNG file's bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def grey_uri(image: UInt8[np.ndarray, "height width"]) -> str:
    """A grey image as a lossless PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return png_uri(buffer.getvalue())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ctscribe.export"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["mm"] = signed_mm
    return environment


def _finalize(value: object) -> object:
    return printable(value) if type(value) is str else value
