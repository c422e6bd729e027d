"""Walks from a version back to its workbook, and says where each thing can still be had.

`python -m flows.maintenance.lineage 3`
"""

from __future__ import annotations

import sys
from pathlib import Path

from flows.graph.cache import shelves
from pipeline.errors import Misused, Refused, Unavailable
from pipeline.registry.lineage_walk import walk, walk_table
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings, named_version
from pipeline.terminal import complain, console, say_no


def main(number: str | None = None) -> int:
    """Exit code 0: all can be had; 1: not all, or there is no version; 2: used wrongly; 75: something is away."""
    try:
        client = connect()
        version = named_version(client, RegisterSettings.read().name, int(number) if number else None)
        with shelves(Path.cwd()) as kept:
            steps = list(walk(client, version, kept))
    except (Misused, Refused, Unavailable) as error:
        return say_no(error)
    console().print(walk_table(steps))
    gone = [step.what for step in steps if not step.places]
    if gone:
        complain(f"Version {version.version} cannot be made again: {', '.join(gone)} cannot be had.")
        return Refused.exit_code
    print(f"All that version {version.version} was made of can still be had.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
