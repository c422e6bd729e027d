"""Remove files and runs that no registered version and no recent run needs, if the user agrees."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from rich.prompt import Confirm

from flows.graph.cache import IdleProject
from flows.graph.exclusive_access import exclusive_access
from pipeline.maintenance.removable import Removable, removable_table
from pipeline.maintenance.runs import find_tracked
from pipeline.maintenance.state import removable_exports, removable_state
from pipeline.maintenance.version_needs import all_versions, named_by
from pipeline.paths import EXPORTS
from pipeline.registry.tracking import EXPERIMENT, connect
from pipeline.registry.unfinished_runs import end_killed_runs
from pipeline.registry.versions import find_registered_model
from pipeline.terminal import console

DAY = 24 * 60 * 60.0


def clean(*, keep_days: float, yes: bool) -> None:
    """Show what can be removed, and remove it if the user agrees.

    Args:
        keep_days: keep everything that was used within this many days.
        yes: remove without asking.

    Raises:
        UsageError: DVC cannot read the project.
        TemporaryFailure: a stage is running, or a server does not answer.
    """
    before = time.time() - keep_days * DAY
    with exclusive_access() as project:
        piles = find(project, before)
        show(piles)
        if piles and yes:
            remove(piles)
    if piles and not yes and agreed():
        # Look again: no lock was held while the user decided.
        with exclusive_access() as project:
            remove(find(project, before))


def find(project: IdleProject, before: float) -> list[Removable]:
    """Find what can be removed: nothing refers to it, and it was last used before the time `before`."""
    client = connect()
    end_killed_runs(client, EXPERIMENT)
    named = named_by(all_versions(client))
    runs = find_tracked(client, named, before)
    cached = project.removable(versions=named.hashes, commits=named.commits, recent=runs.hashes, before=before)
    exports = removable_exports(exports_in_use(client), before)
    piles = [*cached, *runs.removable, *removable_state(before), exports]
    return [pile for pile in piles if pile.count]


def exports_in_use(client: MlflowClient) -> set[Path]:
    """Return the folders of exports whose version is the champion or the challenger."""
    models = {folder: find_registered_model(client, folder.name) for folder in EXPORTS.glob("*")}
    return {folder / str(number) for folder, model in models.items() if model for number in model.aliases.values()}


def show(piles: Sequence[Removable]) -> None:
    """Print a table of what can be removed."""
    if piles:
        console().print(removable_table(piles))
    else:
        print("Nothing to remove.")


def agreed() -> bool:
    """Return whether the user agrees; without a terminal, nobody can."""
    if not sys.stdin.isatty():
        print("Run again with --yes to remove it.")
        return False
    return Confirm.ask("Remove it?", default=False)


def remove(piles: Sequence[Removable]) -> None:
    """Remove everything in the table."""
    for pile in piles:
        pile.remove()
    print("Removed.")
