"""Commands for the workbook: make one of transcripts, check it, and make it the input of the pipeline."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lectern.course_remarks import report_remarks
from pipeline.command import REJECTED, enter_project
from pipeline.errors import UsageError
from pipeline.terminal import console

PANEL = "Workbook"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern check lessons.xlsx`")(check)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern use lessons.xlsx && dvc repro`")(use)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern transcripts talks --out course.xlsx`")(transcripts)


def check(
    workbook: Annotated[Path, typer.Argument(help="An .xlsx file, or a folder with CSV or Parquet tables.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per problem.")] = False,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Accept rows with errors, and list what `use --set-aside` leaves out."),
    ] = False,
) -> None:
    """List all problems of a workbook with their places and remedies. Change nothing."""
    from pipeline.data import problems
    from pipeline.data.workbook import SET_ASIDE_HINT, read_workbook
    from pipeline.transcripts.recognise import check_not_a_transcript

    check_not_a_transcript(workbook)
    found = read_workbook(workbook, set_aside=set_aside)
    if as_json:
        print(json.dumps(problems.as_json(found.problems), indent=2, ensure_ascii=False))
    else:
        if found.problems:
            console().print(problems.as_table(found.problems))
        aside = f", {len(found.set_aside):,} rows set aside" if set_aside else ""
        print(
            f"{workbook}: {len(found.topics):,} topics, {len(found.lines):,} lines{aside}, "
            f"{problems.summary(found.problems)}"
        )
        if found.only_rows_broken and problems.errors(found.problems):
            print(SET_ASIDE_HINT)
    if problems.errors(found.problems):
        sys.exit(REJECTED)


def use(
    workbooks: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKBOOK...",
            help="An .xlsx file, its URL, or a folder with CSV or Parquet tables. Several are combined into one; "
            "a lesson in several workbooks comes from the last.",
        ),
    ],
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Set rows with errors aside and train on the others (ingest.broken_rows)."),
    ] = False,
) -> None:
    """Make a workbook the pipeline's input: copy it, track it with DVC and name it in params.yaml."""
    from flows.graph.workbook import adopt, adopt_all
    from pipeline.transcripts.recognise import check_not_a_transcript

    sources = [source if "://" in source else str(Path(source).resolve()) for source in workbooks]
    for source in sources:
        check_not_a_transcript(Path(source))
    enter_project()
    if set_aside and len(sources) > 1:
        raise UsageError(
            "--set-aside works with one workbook only. Correct the rows before several workbooks are combined."
        )
    if len(sources) == 1:
        adopted = adopt(sources[0], set_aside=set_aside)
    else:
        adopted, combined = adopt_all(sources)
        print(f"{combined.lessons:,} lessons; {combined.replaced:,} lessons of earlier workbooks were replaced.")
    print(f"{adopted} is now the pipeline's workbook. Train on it with `lectern run` or `dvc repro`.")


def transcripts(
    talks: Annotated[
        list[Path],
        typer.Argument(metavar="TALK...", help="A folder of transcripts, or transcripts.", resolve_path=True),
    ],
    out: Annotated[Path, typer.Option(help="The .xlsx file to write.", resolve_path=True)],
    course: Annotated[str, typer.Option(help="Course title. Default: the folder's name.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Put the transcripts of a folder into one workbook, without writing titles.

    Each transcript is a lesson. A chapter list of the same name holds its topics.
    """
    from pipeline.transcripts import chapter_files
    from pipeline.transcripts.course_folder import read_course

    chapter_files.check_out(out, "xlsx", overwrite=overwrite)
    read = read_course(talks, course)
    chapter_files.write_transcripts(read.transcripts, out)
    without = sum(not each.topics for each in read.transcripts)
    print(f"{out}: {len(read.transcripts):,} lessons, {without:,} of them without topics")
    if without:
        print(f"Write them into lesson_topics, or let `lectern chapters {out.name} --out FILE.xlsx` find them.")
    report_remarks([note for each in read.transcripts for note in each.notes], read)
