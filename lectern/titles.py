"""The commands that write titles and chapters, serve them over HTTP, and watch for drift."""

from __future__ import annotations

import sys
from enum import Enum, auto
from pathlib import Path
from typing import Annotated

import typer

from lectern.course_remarks import report_remarks
from pipeline.command import REJECTED, enter_project
from pipeline.errors import UsageError
from pipeline.extras import require_extra
from pipeline.terminal import console

PANEL = "Titles and chapters"

_FORMAT_HELP = (
    "youtube, vtt, md, csv, json, xlsx, podcast, ffmetadata, podlove, audacity or cue. "
    "Default: from the suffix of --out."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(
        rich_help_panel=PANEL,
        epilog="Example: `lectern chapters talks --out course.xlsx`; after corrections in "
        "the workbook: `lectern chapters talk.vtt --topics course.xlsx`",
    )(chapters)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern title talk.txt --candidates 3`")(title)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern serve --port 8080`")(serve)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern export --examples 100`")(export)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern drift --since 7`")(drift)


def title(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-|WORKBOOK|FOLDER",
            help="A passage, a text file, - for standard input; a workbook; a folder of texts, transcripts, workbooks.",
        ),
    ],
    candidates: Annotated[int, typer.Option(min=1, help="Number of titles to print, best first.")] = 1,
    beams: Annotated[int | None, typer.Option(min=1, help="Width of the beam search.")] = None,
    sample: Annotated[bool, typer.Option(help="Sample words instead of taking the most likely.")] = False,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Sample from this many words; 0 means all. Default: 50.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Sample from this share of the probability. Default: 0.95.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write. Default: WORKBOOK.titled.xlsx or the folder FOLDER.titles."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Workbook: replace --out; formulas become their values.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Folder: also title files that another version has titled.")
    ] = False,
    tell_once: Annotated[
        bool, typer.Option("--tell-once", help="Folder: exit with 1 only for files that were not rejected before.")
    ] = False,
) -> None:
    """Write a title for a passage, or for each untitled topic of a workbook or folder.

    Uses the champion, else the challenger, and its export if there is one. An interrupted run over a workbook or a
    folder resumes with the same command.
    """
    kind = _kind_of(source)
    if kind is _Source.PASSAGE:
        if out or overwrite or again or tell_once:
            raise UsageError(
                "--out, --overwrite, --again and --tell-once go with a workbook or a folder. A passage's title is "
                "printed."
            )
        _title_passage(source, candidates, beams, sample=sample, top_k=top_k, top_p=top_p, seed=seed)
        return
    if (candidates, beams, sample, top_k, top_p, seed) != (1, None, False, None, None, None):
        raise UsageError("--candidates, --beams and the sampling options go with a passage.")
    path, out = Path(source).resolve(), out.resolve() if out else None
    if kind is _Source.WORKBOOK:
        if again or tell_once:
            raise UsageError("--again and --tell-once go with a folder of transcripts. A workbook's titles are kept.")
        _title_workbook(path, out, overwrite=overwrite)
    else:
        if overwrite:
            raise UsageError("--overwrite is only for a workbook. A folder's titles are added to its titles.csv.")
        _title_folder(path, out, again=again, tell_once=tell_once)


class _Source(Enum):
    PASSAGE = auto()
    WORKBOOK = auto()
    FOLDER = auto()


def _kind_of(source: str) -> _Source:
    try:
        path = Path(source).resolve()
        if not path.exists():
            return _Source.PASSAGE
        from pipeline.data.tables import is_workbook  # with the readers of spreadsheets, which a passage does not need

        if is_workbook(path):
            return _Source.WORKBOOK
        return _Source.FOLDER if path.is_dir() else _Source.PASSAGE
    except (OSError, ValueError):  # a passage may be too long for a path, or have characters that a path cannot have
        return _Source.PASSAGE


def _title_passage(
    source: str,
    candidates: int,
    beams: int | None,
    *,
    sample: bool,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> None:
    from pipeline.titles.read_passage import read_passage

    text = read_passage(source)
    if not sample and (top_k, top_p, seed) != (None, None, None):
        raise UsageError("--top-k, --top-p and --seed go with --sample.")
    enter_project()
    # Only now: a passage that is refused need not wait for MLflow.
    from pipeline.titles.passage import title_passage
    from pipeline.titles.served_version import find_served_version

    parameters: dict[str, object] = {"candidates": candidates}
    if beams:
        parameters |= {"num_beams": beams, "do_sample": False}
    if sample:
        parameters |= {"do_sample": True, "num_beams": beams or 1, "seed": 1 if seed is None else seed}
        parameters |= {"top_k": 50 if top_k is None else top_k, "top_p": 0.95 if top_p is None else top_p}
    print("\n".join(title_passage(text, find_served_version(), parameters)))


def _title_workbook(path: Path, out: Path | None, *, overwrite: bool) -> None:
    from pipeline.data.workbook import read_untitled
    from pipeline.data.workbook_files import default_output, require_writable, require_xlsx

    enter_project()
    out = out or default_output(path)
    require_xlsx(out)
    require_writable(out, overwrite=overwrite)
    workbook = read_untitled(path)
    # Only now: a workbook that is refused need not wait for MLflow.
    from pipeline.titles.served_version import find_served_version
    from pipeline.titles.workbook import fill_titles

    print(fill_titles(path, workbook, out, find_served_version()).summary())


def _title_folder(inbox: Path, out: Path | None, *, again: bool, tell_once: bool) -> None:
    from pipeline.inbox.title_inbox import title_inbox
    from pipeline.titles.served_version import find_served_version

    enter_project()
    outbox = out or inbox.with_name(f"{inbox.name}.titles")
    result = title_inbox(inbox, outbox, find_served_version(), again=again)
    print(result.summary())
    if result.has_new_failures if tell_once else result.failed:
        sys.exit(REJECTED)


def chapters(
    talks: Annotated[
        list[Path],
        typer.Argument(
            metavar="TALK...",
            help="Captions, a transcript as text, Word document, JSON, XML or table; a workbook; a folder of these.",
            resolve_path=True,
        ),
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Number of chapters per talk.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Average chapter length. Default: chapters.minutes, else as learnt.")
    ] = None,
    topics: Annotated[
        Path | None,
        typer.Option(
            help="Known topics: a workbook, a chapter list, or lines such as 0:00 Title. Times and titles are kept.",
            resolve_path=True,
        ),
    ] = None,
    course: Annotated[str, typer.Option(help="Course title. Default for several talks: their folder's name.")] = "",
    form: Annotated[
        str | None,
        typer.Option("--format", help=_FORMAT_HELP),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: print the chapters.", resolve_path=True)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    note: Annotated[bool, typer.Option("--note", help="Add the note 'Chapters written automatically'.")] = False,
) -> None:
    """Divide transcripts into chapters and title them.

    A lesson that has topics keeps them; those without a title get one. In a folder, each transcript is a lesson, and a
    chapter list of the same name holds its topics. An interrupted run resumes with the same command.
    """
    if (count or minutes) and (topics or (count and minutes)):
        raise UsageError("Give --count or --minutes, not both, and neither with --topics.")
    if overwrite and not out:
        raise UsageError("--overwrite needs --out FILE. Without --out, the chapters are printed.")
    enter_project()
    from pipeline.transcripts import chapter_files
    from pipeline.transcripts.automatic_note import require_room
    from pipeline.transcripts.course_folder import read_course
    from pipeline.transcripts.known_topics import replace_topics

    name = chapter_files.format_of(form, out)
    if out in talks:
        raise UsageError(f"--out {out} is the transcript itself. Name another file.")
    if note:
        require_room(name)
    if out:
        chapter_files.check_out(out, name, overwrite=overwrite)
    read = read_course(talks, course, into_cells=name == "xlsx")
    transcripts = replace_topics(read.transcripts, topics) if topics else read.transcripts
    if (count or minutes) and all(each.topics for each in transcripts):
        raise UsageError(
            "--count and --minutes decide where chapters start, but all lessons have topics already. "
            "Empty the sheet lesson_topics, or leave the option out."
        )
    chapter_files.check_count(transcripts, name)
    # Only now: a file that is refused need not wait for torch.
    from pipeline.chapters.segmentation import ChaptersSettings
    from pipeline.titles.lesson_by_lesson import title_lessons

    settings = ChaptersSettings.read()
    settings = settings.model_copy(update={"minutes": minutes}) if minutes else settings
    titled = title_lessons(transcripts, settings, count)
    if out:
        chapter_files.write_chapters(titled.lessons, out, name, note=note)
        total, kept = sum(len(each.chapters) for each in titled.lessons), sum(each.kept for each in titled.lessons)
        print(f"{out}: {total:,} chapters, {kept:,} with a known title")
    else:
        print(chapter_files.as_text(titled.lessons, name, note=note), end="", flush=True)
    read.failed |= titled.failed
    report_remarks([remark for lesson in titled.lessons for remark in chapter_files.remarks(lesson, name)], read)
    titled.discard_resume_files()  # if no file failed: the next run with the corrected file resumes


def serve(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines. LECTERN_HOSTS adds host names.")
    ] = "127.0.0.1",
) -> None:
    """Serve titles over HTTP and chapters on a web page.

    Uses the champion, else the challenger, and its export if there is one. The sections `serve` and `page` of
    params.yaml set the limits.
    """
    enter_project()
    from pipeline.server.run_server import run_server

    run_server(port, host=host)


def export(
    version: Annotated[int | None, typer.Argument(min=1, help="Default: the champion, else the challenger.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Number of test examples to measure on. Default: all.")
    ] = None,
) -> None:
    """Convert a version for CTranslate2, which then writes its titles on this machine.

    The export is kept in exports/NAME/VERSION if it is faster than the model itself and its titles lose at most one
    ROUGE point. If you delete the folder, the model itself writes the titles again.
    """
    enter_project()
    require_extra("fast", user="lectern export")
    from pipeline.exports.export import export as convert
    from pipeline.paths import EXPORTS
    from pipeline.registry.register_settings import RegisterSettings
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import get_version

    name = RegisterSettings.read().name
    registered = get_version(connect(), name, version)
    folder = EXPORTS / name / str(registered.version)
    card = convert(registered, folder, examples)
    print(card.summary(folder))


def drift(
    since: Annotated[
        float | None, typer.Option(min=0.01, help="Days to look back. Default: drift.days of params.yaml.")
    ] = None,
) -> None:
    """Compare recently titled texts with the training split. The section `drift` of params.yaml sets the limits."""
    enter_project()
    from pipeline.monitoring.drift import DriftSettings
    from pipeline.monitoring.drift_report import report_drift
    from pipeline.paths import DRIFT

    settings = DriftSettings.read()
    if since:
        settings = settings.model_copy(update={"days": since})
    report = report_drift(settings)
    if report is None:
        print(f"No text was titled in the last {settings.days:g} days.")
        return
    console().print(report.as_table())
    print(f"See {DRIFT}.", flush=True)
    if report.drifted:
        from flows.reporting import events

        events.report_drift(report.version.rpartition("/")[0], report)
        sys.exit(REJECTED)
