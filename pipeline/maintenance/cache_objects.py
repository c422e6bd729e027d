"""Which objects of DVC's cache may go, told by hashes and times alone."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CachedRun:
    """One entry of DVC's run cache: what a stage has made of certain inputs."""

    path: Path
    outs: frozenset[str]  # their hashes
    when: float  # seconds since 1970


@dataclass(frozen=True)
class Cache:
    """What DVC keeps. Times are seconds since 1970."""

    objects: Mapping[str, float]  # hash → when it came; a folder's hash ends in .dir
    folders: Mapping[str, frozenset[str]]  # hash of a folder → hashes of its files
    runs: tuple[CachedRun, ...] = ()


@dataclass(frozen=True)
class Unneeded:
    runs: tuple[CachedRun, ...]
    objects: frozenset[str]


def unneeded(cache: Cache, *, versions: Set[str], projects: Set[str], before: float) -> Unneeded:
    """What neither a registered version, nor the project, nor anything since `before` needs.

    What a stage made together with something that a version names stays too: with it, the stage need not run again.

    Args:
        versions: hashes that registered versions name.
        projects: hashes that the work tree and the commits that count name.
    """
    needed = versions | projects
    kept = [run for run in cache.runs if run.when >= before or not run.outs.isdisjoint(versions) or run.outs <= needed]
    needed |= {digest for run in kept for digest in run.outs}
    needed |= {digest for digest, when in cache.objects.items() if when >= before}
    needed |= {file for folder in needed & cache.folders.keys() for file in cache.folders[folder]}
    return Unneeded(
        runs=tuple(run for run in cache.runs if run not in kept),
        objects=frozenset(cache.objects.keys() - needed),
    )
