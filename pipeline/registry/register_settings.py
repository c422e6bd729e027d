"""Settings of the registered model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.settings import Section


class RegisterSettings(Section):
    """The section `register` of params.yaml."""

    section: ClassVar[str] = "register"

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_. -]*$")  # of the registered model and of its folder of exports
    pretrained: str | None = None  # the entry of `models` that writes titles until a version is registered
