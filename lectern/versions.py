"""Commands for the versions of the registered model: list, explain, promote and roll back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import OK, REJECTED, enter_project
from pipeline.errors import Rejected, UsageError
from pipeline.extras import has_extra
from pipeline.terminal import console

if TYPE_CHECKING:
    from pipeline.registry.promotion import Move

PANEL = "Versions"

Version = Annotated[int | None, typer.Argument(min=1, help="Default: the champion, else the challenger.")]
Reason = Annotated[str, typer.Option("--because", help="The reason; kept with the registered model.")]

models_app = typer.Typer(no_args_is_help=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.add_typer(models_app, name="models", rich_help_panel=PANEL, epilog="Example: `lectern models`")
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern card 3 --html card.html`")(card)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern lineage 3`")(lineage)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern promote 3 --because 'titles read better'`")(promote)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern history`")(history)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern rollback --because 'titles got longer'`")(rollback)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the registered versions, newest first, with their aliases and scores."""
    enter_project()
    if context.invoked_subcommand:
        return
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.registry_database import read_versions
    from pipeline.registry.versions_table import versions_table

    name = RegisterSettings.read().name
    if known := read_versions(name):
        console().print(versions_table(name, [(version, version.aliases) for version in known]))
        return
    # Only now: MLflow takes seconds to import.
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import list_versions, nothing_registered

    found = list_versions(connect(), name)
    if not found:
        raise Rejected(nothing_registered(name))
    console().print(versions_table(name, found))


@models_app.command("add", epilog="Example: `lectern models add t5-small bart-base`")
def add_models(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of catalogue.yaml.")],
) -> None:
    """Copy models from catalogue.yaml into params.yaml and add them to the contestants."""
    from pipeline.catalogue import add

    add(names)
    print(f"Added {', '.join(names)} to the contestants in params.yaml. Train with `lectern run` or `dvc repro`.")


def card(
    version: Version = None,
    html: Annotated[Path | None, typer.Option(help="Write a web page to this file instead.")] = None,
) -> None:
    """Print the model card of a version as Markdown: data, training, scores, examples, limits and lineage."""
    html = html.resolve() if html else None
    enter_project()
    from pipeline.files import write_text
    from pipeline.registry.model_card import as_page, read_card
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import get_version

    client = connect()
    text = read_card(client, get_version(client, RegisterSettings.read().name, version))
    if html:
        write_text(html, as_page(text))
    else:
        print(text)


def lineage(version: Version = None) -> None:
    """Trace a version back to its workbook and check that everything it was made from can still be fetched."""
    enter_project()
    from flows.maintenance.lineage import trace
    from pipeline.registry.lineage_walk import walk_table

    number, steps = trace(version)
    console().print(walk_table(steps))
    if lost := [step.what for step in steps if not step.places]:
        raise Rejected(f"Version {number} cannot be reproduced: {', '.join(lost)} cannot be fetched.")
    print(f"Everything that version {number} was made from can still be fetched.")


def promote(
    version: Annotated[int | None, typer.Argument(min=1, help="Default: the challenger.")] = None,
    because: Reason = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the verdict and promote nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote despite the verdict; needs --because.")] = False,
) -> None:
    """Make a version the champion if it passes the rules of the section `promote` of params.yaml."""
    if force and not because.strip():
        raise UsageError("--force needs --because: the reason is kept with the registered model.")
    enter_project()
    from pipeline.registry import promotion
    from pipeline.registry.gate import PromoteSettings, judge
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import get_candidate

    client, name, settings = connect(), RegisterSettings.read().name, PromoteSettings.read()
    if dry_run:
        verdict = judge(client, *get_candidate(client, name, version), settings)
        console().print(verdict.as_table())
        sys.exit(OK if verdict.passed else REJECTED)
    try:
        move, verdict = promotion.promote(
            client,
            name,
            version,
            because=because,
            judge=lambda challenger, champion: judge(client, challenger, champion, settings),
            force=force,
        )
    except promotion.PromotionRejected as error:
        console().print(error.verdict.as_table())
        raise
    console().print(verdict.as_table())
    print(f"Version {move.version} of '{name}' is now the champion; {_previous(move.before)}.", flush=True)
    if has_extra("fast"):
        print("`lectern export` may let it write titles faster on this machine.", flush=True)
    _tell_prefect(name, move)


def history() -> None:
    """Print every change of champion: who, when, from which version to which, why and on what evidence."""
    enter_project()
    from pipeline.registry.promotion import history_table, trail
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.tracking import connect

    name = RegisterSettings.read().name
    moves = trail(connect(), name)
    if not moves:
        raise Rejected(f"No version of '{name}' was ever promoted. `lectern promote` promotes the challenger.")
    console().print(history_table(name, moves))


def rollback(because: Reason = "") -> None:
    """Make the previous champion the champion again. Repeat to go back further."""
    enter_project()
    from pipeline.registry import promotion
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.tracking import connect

    name = RegisterSettings.read().name
    move = promotion.rollback(connect(), name, because=because)
    print(f"Version {move.version} of '{name}' is the champion again; {_previous(move.before)}.", flush=True)
    _tell_prefect(name, move)


def _previous(version: str | None) -> str:
    return f"it was version {version} before" if version else "there was none before"


def _tell_prefect(name: str, move: Move) -> None:
    from flows.reporting.events import report_promotion

    report_promotion(name, move)
