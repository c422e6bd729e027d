"""Shows what no registered version and no recent run needs, and removes it if it may.

`python -m flows.maintenance.clean --keep-days 30 --yes`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from dvc.repo import Repo
from rich.prompt import Confirm

from flows.graph.cache import cache_piles
from flows.graph.exclusive_access import nothing_under_way
from pipeline.errors import Misused, Unavailable
from pipeline.maintenance.removable import Pile, piles_table
from pipeline.maintenance.runs import tracked
from pipeline.maintenance.state import state_piles
from pipeline.maintenance.versions import all_versions, named_by
from pipeline.registry.tracking import EXPERIMENT, connect
from pipeline.registry.unfinished_runs import end_killed_runs
from pipeline.terminal import console, say_no

DAY = 24 * 60 * 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: shown, or removed; 2: used wrongly; 75: something is under way or away."""
    given = parse(arguments)
    before = time.time() - given.keep_days * DAY
    try:
        with nothing_under_way() as repo:
            piles = find(repo, before)
            show(piles)
            if piles and given.yes:
                remove(piles)
        if piles and not given.yes and agreed():
            # Anew: nothing was held while somebody thought about it.
            with nothing_under_way() as repo:
                remove(find(repo, before))
    except (Misused, Unavailable) as error:
        return say_no(error)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.maintenance.clean", description=__doc__)
    parser.add_argument("--keep-days", type=int, default=30, help="how long something is recent (default: %(default)s)")
    parser.add_argument("--yes", action="store_true", help="remove it, and do not ask")
    return parser.parse_args(arguments)


def find(repo: Repo, before: float) -> list[Pile]:
    """What may go, the piles that are empty left out."""
    client = connect()
    end_killed_runs(client, EXPERIMENT)
    named = named_by(all_versions(client))
    ours = tracked(client, named, before)
    cached = cache_piles(repo, versions=named.hashes, commits=named.commits, recent=ours.hashes, before=before)
    return [pile for pile in [*cached, *ours.piles, *state_piles(before)] if pile.count]


def show(piles: Sequence[Pile]) -> None:
    if piles:
        console().print(piles_table(piles))
    else:
        print("Nothing is to go.")


def agreed() -> bool:
    """What the person at the terminal says; where there is none, nobody has agreed."""
    if not sys.stdin.isatty():
        print("With --yes it goes.")
        return False
    return Confirm.ask("Remove it?", default=False)


def remove(piles: Sequence[Pile]) -> None:
    for pile in piles:
        pile.remove()
    print("Removed.")


if __name__ == "__main__":
    raise SystemExit(main())
