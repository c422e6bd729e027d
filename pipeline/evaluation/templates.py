"""Templates of pages and cards: a name that is not given is an error, and lines of logic leave nothing behind."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates(package: str, *, autoescape: bool = True) -> Environment:
    """Those that lie beside the modules of `package`."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
