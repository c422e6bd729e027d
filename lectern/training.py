"""Commands that train: run the pipeline, search settings, add models, check families."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import INTERRUPTED, REJECTED, enter_project, explaining_missing_outputs
from pipeline.extras import require_extra
from pipeline.terminal import console

if TYPE_CHECKING:
    from pipeline.search.search import SearchResult

PANEL = "Train"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern run`")(run)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern search t5 --trials 20`")(search)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern matrix t5 led`")(matrix)


def run() -> None:
    """Run all stale stages as a Prefect flow and show the leaderboard. If none is stale, no flow runs."""
    enter_project()
    from flows.graph.plan import is_up_to_date

    if is_up_to_date(Path.cwd()):
        print("Nothing is stale.")
    else:
        from flows.train import run_once  # imports Prefect, which takes seconds

        run_once()
    _show_results()


def search(
    model: Annotated[str, typer.Argument(help="An entry of `models` in params.yaml.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Number of finished trials to reach, including earlier ones.")
    ] = 20,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best settings into params.yaml.")] = False,
) -> None:
    """Search training settings for a model within the ranges of params.yaml, and suggest the best."""
    enter_project()
    require_extra("search", user="lectern search")
    from pipeline.search.search import search as run_search

    with explaining_missing_outputs():
        result = run_search(model, trials)
    _show_search(result, trials)
    if result.interrupted:
        sys.exit(INTERRUPTED)
    if apply:
        result.suggestion.apply()
        print("params.yaml now has these settings. Train with `lectern run` or `dvc repro`.")


def matrix(
    families: Annotated[list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Default: all families.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per family.")] = False,
) -> None:
    """Check each family with the installed libraries, from a small checkpoint to served titles. Works in any folder."""
    from pipeline.registry.family_check import check_families, families_table

    rows = check_families(families or [])
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        console().print(families_table(rows))
    if not all(row.passed for row in rows):
        sys.exit(REJECTED)


def _show_results() -> None:
    """Print the leaderboard, the new version and the next commands."""
    from pipeline.evaluation.costs import read_costs
    from pipeline.evaluation.joint_board import read_joint_board
    from pipeline.evaluation.leaderboard import read_leaderboard
    from pipeline.evaluation.leaderboard_text import as_rich_table
    from pipeline.paths import REGISTERED, REPORT

    if not REGISTERED.exists():  # a dvc.yaml without the stage `register`
        return
    registered = json.loads(REGISTERED.read_text(encoding="utf-8"))
    screen = console()
    leaderboard = read_leaderboard()
    screen.print(as_rich_table(leaderboard, read_costs(leaderboard), read_joint_board()))
    screen.print(
        f"\n{registered['model']} is version {registered['version']} of '{registered['name']}', the challenger.\n"
        "Results:\n"
        f"  {REPORT}   scores, and titles of all models side by side\n"
        "  reports/data_docs/index.html   checks of the data and their results\n"
        "  lectern up   starts MLflow on http://127.0.0.1:5000, Prefect on http://127.0.0.1:4200,\n"
        "               and the web page on http://127.0.0.1:7860/page\n"
        "Next steps:\n"
        "  lectern chapters talk.vtt   divide a transcript into chapters with titles\n"
        "  lectern promote   make this version the champion\n"
        "  lectern use WORKBOOK   use your own lessons",
        highlight=False,
    )


def _show_search(result: SearchResult, wanted: int) -> None:
    """Print the trials and the suggested settings."""
    from pipeline.paths import SEARCHES

    best = result.suggestion
    screen = console()
    screen.print(result.table)
    before = f"; {best.today:.4f} with the settings in params.yaml" if best.today is not None else ""
    measure = f" (by {best.bertscore})" if best.bertscore else ""
    resume = "" if result.finished >= wanted else " Run the command again to resume the search."
    screen.print(
        f"\n{result.finished} of {wanted} trials finished.{resume} Best {best.metric}{measure}: {best.value:.4f}"
        f"{before}."
        f"\nIt is saved in {SEARCHES / best.model}.yaml. Add --apply to write it into params.yaml, or copy it:\n\n"
        f"{best.as_yaml()}",
        highlight=False,
        markup=False,
    )
