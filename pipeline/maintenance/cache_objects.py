"""Find the objects of DVC's cache that nothing needs, by their hashes and times."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CachedRun:
    """One entry of DVC's run cache: the outputs of a stage for certain inputs."""

    path: Path
    outs: frozenset[str]  # hashes of the outputs
    when: float  # seconds since 1970


@dataclass(frozen=True)
class Cache:
    """The content of DVC's cache. Times are seconds since 1970."""

    objects: Mapping[str, float]  # hash → time of creation; the hash of a folder ends in .dir
    folders: Mapping[str, frozenset[str]]  # hash of a folder → hashes of its files
    runs: tuple[CachedRun, ...] = ()


@dataclass(frozen=True)
class Unneeded:
    """The entries of DVC's cache that can be removed."""

    runs: tuple[CachedRun, ...]
    objects: frozenset[str]


def unneeded(cache: Cache, *, versions: Set[str], projects: Set[str], before: float) -> Unneeded:
    """Return the entries that no registered version and no recent state of the project needs.

    Outputs of a stage that also made something for a version stay: with them, the stage does not have to run again.

    Args:
        versions: hashes in the lineage of registered versions.
        projects: hashes in the work tree and in the commits to keep.
        before: entries that are newer than this time stay; seconds since 1970.
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
