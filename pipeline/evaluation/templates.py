"""Load Jinja templates of reports and model cards."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment(package: str, *, autoescape: bool = True) -> Environment:
    """Return an environment with the templates in the folder of `package`; an undefined name is an error."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
