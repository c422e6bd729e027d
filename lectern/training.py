"""Commands that train: run the pipeline, search settings, add models, check families."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import INTERRUPTED, REJECTED, enter_project, explaining_missing_outputs
from pipeline.extras import require_extra
from pipeline.terminal import console

if TYPE_CHECKING:
    from pipeline.search.search import Found

PANEL = "Train"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern run`")(run)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern search t5-tiny --trials 20`")(search)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern matrix t5 led`")(matrix)


def run() -> None:
    """Run all stale stages as a Prefect flow and show the leaderboard."""
    enter_project()
    from flows.train import run_once

    run_once()
    _show_results()


def search(
    model: Annotated[str, typer.Argument(help="An entry of `models` in params.yaml.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Number of finished trials to reach, including earlier ones.")
    ] = 20,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best settings into params.yaml.")] = False,
) -> None:
    """Search training settings for a model, as the section `search` of params.yaml says, and suggest the best."""
    enter_project()
    require_extra("search", user="lectern search")
    from pipeline.search.search import search as run_search

    with explaining_missing_outputs():
        found = run_search(model, trials)
    _show_search(found, trials)
    if found.interrupted:
        sys.exit(INTERRUPTED)
    if apply:
        found.suggestion.apply()
        print("params.yaml now holds these settings. Train with `lectern run` or `dvc repro`.")


def matrix(
    families: Annotated[list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Default: all families.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per family.")] = False,
) -> None:
    """Check each family with the installed libraries, from a small checkpoint to served titles. Needs no project."""
    from pipeline.registry.family_check import matrix as check_families
    from pipeline.registry.family_check import matrix_table

    rows = check_families(families or [])
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        console().print(matrix_table(rows))
    if not all(row.passed for row in rows):
        sys.exit(REJECTED)


def _show_results() -> None:
    from pipeline.evaluation.leaderboard import as_rich_table, read_leaderboard
    from pipeline.paths import REGISTERED, REPORT

    if not REGISTERED.exists():  # a dvc.yaml without the stage `register`
        return
    registered = json.loads(REGISTERED.read_text(encoding="utf-8"))
    screen = console()
    screen.print(as_rich_table(read_leaderboard()))
    screen.print(
        f"\n{registered['model']} is version {registered['version']} of '{registered['name']}', the challenger.\n"
        "Where to look:\n"
        f"  {REPORT}   the report: scores, titles side by side, the worst and the best\n"
        "  reports/data_docs/index.html   what was expected of the data, and what was found\n"
        "  lectern up   MLflow on http://127.0.0.1:5000, Prefect on http://127.0.0.1:4200,\n"
        "               and a page for talks on http://127.0.0.1:7860/page\n"
        "What to do next:\n"
        "  lectern title TEXT|FILE|-   a title for a passage\n"
        "  lectern promote   makes this version the champion\n"
        "  lectern use WORKBOOK   your own lessons",
        highlight=False,
    )


def _show_search(found: Found, wanted: int) -> None:
    from pipeline.paths import SEARCHES

    best = found.suggestion
    screen = console()
    screen.print(found.table)
    before = f"; {best.today:.4f} with the settings in params.yaml" if best.today is not None else ""
    by = f" (by {best.bertscore})" if best.bertscore else ""
    resume = "" if found.finished >= wanted else " The same command resumes the search."
    screen.print(
        f"\n{found.finished} of {wanted} trials finished.{resume} The best: {best.metric}{by} {best.value:.4f}{before}."
        f"\nIt is saved in {SEARCHES / best.model}.yaml. Add --apply to write it into params.yaml, or copy it:\n\n"
        f"{best.as_yaml()}",
        highlight=False,
        markup=False,
    )
