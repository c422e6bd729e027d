"""Commands that run one stage, without looking at the others."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.stages import STAGES, STAGES_OF_A_MODEL, run_stage

PANEL = "Stages (dvc.yaml runs these)"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    for name, help_text in STAGES.items():
        _add_stage(app, name, help_text)
    for name, help_text in STAGES_OF_A_MODEL.items():
        _add_stage_of_a_model(app, name, help_text)


def _add_stage(app: typer.Typer, name: str, help_text: str) -> None:
    def stage() -> None:
        run_stage(name)

    app.command(name, help=help_text, rich_help_panel=PANEL, epilog=f"Example: `lectern {name}`")(stage)


def _add_stage_of_a_model(app: typer.Typer, name: str, help_text: str) -> None:
    def stage(model: Annotated[str, typer.Argument(help="An entry of `models` in params.yaml.")]) -> None:
        run_stage(name, model)

    app.command(name, help=help_text, rich_help_panel=PANEL, epilog=f"Example: `lectern {name} t5`")(stage)
