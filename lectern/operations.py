"""Commands for operators: servers, health, clean-up, backups."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import enter_project
from pipeline.errors import UsageError

PANEL = "Operate"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern up`")(up)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern doctor`")(doctor)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern clean --keep-days 14`")(clean)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern backup /mnt/backups/lectern.tar`")(backup)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern restore /mnt/backups/lectern.tar lectern`")(restore)


def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.")] = 5000,
    reports_port: Annotated[int, typer.Option(help="Port of the reports and the data docs.")] = 8800,
    page_port: Annotated[int, typer.Option(help="Port of the page for transcripts.")] = 7860,
) -> None:
    """Start the Prefect and MLflow servers, the page, and a worker for prefect.yaml. Ctrl-C stops everything."""
    enter_project()
    from flows.services.up import Ports
    from flows.services.up import up as start_services

    sys.exit(start_services(Ports(prefect_port, mlflow_port, reports_port, page_port)))


def doctor() -> None:
    """Check Python, torch, GPU, hub, MLflow, Prefect, DVC remote and disk, and say what to do about each problem.

    Exits with 1 if something that is needed does not work.
    """
    with suppress(UsageError):  # the machine can be checked outside a project too
        enter_project()
    from flows.services.doctor import main

    sys.exit(main())


def clean(
    keep_days: Annotated[int, typer.Option(min=1, help="Keep everything used within this many days.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Show what no registered version and no recent run needs, and remove it after you agree."""
    enter_project()
    from flows.maintenance.clean import clean as clean_up

    clean_up(keep_days=keep_days, yes=yes)


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, outside the project.", resolve_path=True)],
) -> None:
    """Write the project with its history and its versions into one file. Servers may keep running."""
    enter_project()
    from flows.maintenance.backup import backup as write_backup

    write_backup(file)


def restore(
    file: Annotated[Path, typer.Argument(help="A file written by `lectern backup`.")],
    folder: Annotated[Path, typer.Argument(help="The project folder to create; new or empty.")],
) -> None:
    """Restore a project folder from a backup, at the same path or another one."""
    from pipeline.maintenance.backup import restore as unpack

    folder = folder.resolve()  # unpacking replaces the folder, after which a relative path may not work
    label = unpack(file, folder)
    print(f"{folder} now holds the project {label.folder} of {label.made}. Run `make install` there.")
