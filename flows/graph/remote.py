"""The DVC remote that a project's configuration names."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import NamedTuple

from dvc.config import Config


class Remote(NamedTuple):
    """A DVC remote: its name, and its address or path if the configuration has one."""

    name: str
    url: str | None


def default_remote(root: Path) -> Remote | None:
    """Return the remote that `dvc push` uses in the project at `root`."""
    config = Config(dvc_dir=str((root / ".dvc").resolve()))
    name = config["core"].get("remote")
    return Remote(name, config["remote"].get(name, {}).get("url")) if name else None


def committed_remote(root: Path) -> Remote | None:
    """Return the default remote as `.dvc/config` writes it, which is what a clone of the project sees.

    DVC itself makes paths absolute and adds the settings of `.dvc/config.local`.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(root / ".dvc" / "config", encoding="utf-8")
    name = config.get("core", "remote", fallback=None)
    return Remote(name, config.get(f"'remote \"{name}\"'", "url", fallback=None)) if name else None
