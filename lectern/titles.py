"""Commands that write titles: for passages, workbooks, folders and whole talks, on the terminal and over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import REJECTED, enter_project
from pipeline.errors import UsageError
from pipeline.extras import require_extra
from pipeline.terminal import console

PANEL = "Titles and chapters"

Fast = Annotated[bool, typer.Option("--fast", help="Use the version exported by `lectern export`.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this panel to the command line."""
    app.command(
        rich_help_panel=PANEL,
        epilog="Example: `lectern chapters talk.vtt --out talk.xlsx`, and once corrected `--topics talk.xlsx`",
    )(chapters)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern title talk.txt --candidates 3`")(title)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern serve --port 8080 --fast`")(serve)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern export --examples 100`")(export)
    app.command(rich_help_panel=PANEL, epilog="Example: `lectern drift --since 7`")(drift)


def title(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-|WORKBOOK|FOLDER",
            help="A passage, a text file, - for standard input; a workbook; a folder of .txt files and workbooks.",
        ),
    ],
    candidates: Annotated[int, typer.Option(min=1, help="Number of titles, best first.")] = 1,
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
    fast: Fast = False,
) -> None:
    """Write a title for a passage, or for each untitled topic of a workbook or folder.

    Uses the champion, else the challenger. An interrupted run over a workbook or a folder resumes with the same
    command.
    """
    from pipeline.data.workbook_files import is_workbook

    path = _workbook_or_folder(source)
    if path is None:
        if out or overwrite or again or tell_once:
            raise UsageError(
                "--out, --overwrite, --again and --tell-once go with a workbook or a folder; a passage's title is "
                "printed."
            )
        _title_passage(source, candidates, beams, sample=sample, top_k=top_k, top_p=top_p, seed=seed, fast=fast)
        return
    if (candidates, beams, sample, top_k, top_p, seed) != (1, None, False, None, None, None):
        raise UsageError("--candidates, --beams and the sampling options go with a single passage.")
    out = out.resolve() if out else None
    if is_workbook(path):
        if again or tell_once:
            raise UsageError("--again and --tell-once go with a folder of transcripts; a workbook's titles are kept.")
        _title_workbook(path, out, overwrite=overwrite, fast=fast)
    else:
        if overwrite:
            raise UsageError("--overwrite goes with a workbook; a folder's titles are added to its titles.csv.")
        _title_folder(path, out, again=again, tell_once=tell_once, fast=fast)


def _workbook_or_folder(source: str) -> Path | None:
    from pipeline.data.workbook_files import is_workbook

    try:
        path = Path(source).resolve()
        return path if path.is_dir() or is_workbook(path) else None
    except (OSError, ValueError):  # a passage may be too long for a path, or hold characters that no path can
        return None


def _title_passage(
    source: str,
    candidates: int,
    beams: int | None,
    *,
    sample: bool,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    fast: bool,
) -> None:
    from pipeline.titles.passage import read_passage, title_passage

    text = read_passage(source)
    if not sample and (top_k, top_p, seed) != (None, None, None):
        raise UsageError("--top-k, --top-p and --seed go with --sample.")
    enter_project()
    settings: dict[str, object] = {"candidates": candidates}
    if beams:
        settings |= {"num_beams": beams, "do_sample": False}
    if sample:
        settings |= {"do_sample": True, "num_beams": beams or 1, "seed": 1 if seed is None else seed}
        settings |= {"top_k": 50 if top_k is None else top_k, "top_p": 0.95 if top_p is None else top_p}
    print("\n".join(title_passage(text, settings, fast=fast)))


def _title_workbook(workbook: Path, out: Path | None, *, overwrite: bool, fast: bool) -> None:
    from pipeline.data.workbook_files import may_be_written, must_be_workbook
    from pipeline.titles.titling import present_version
    from pipeline.titles.workbook import fill_titles, output_beside, read_lacking_titles

    enter_project()
    out = out or output_beside(workbook)
    must_be_workbook(out)
    may_be_written(out, overwrite=overwrite)
    read_lacking_titles(workbook)  # reject a broken workbook before asking the registry
    print(fill_titles(workbook, out, present_version(fast=fast)).summary())


def _title_folder(folder: Path, out: Path | None, *, again: bool, tell_once: bool, fast: bool) -> None:
    from pipeline.titles.folder import title_inbox
    from pipeline.titles.titling import present_version

    enter_project()
    done = title_inbox(
        folder, out or folder.with_name(f"{folder.name}.titles"), present_version(fast=fast), again=again
    )
    print(done.summary())
    if done.news if tell_once else done.failed:
        sys.exit(REJECTED)


def chapters(
    talk: Annotated[
        Path,
        typer.Argument(
            metavar="TALK",
            help="A .vtt, .srt, .sbv, YouTube's .json, plain text with times, or a workbook.",
            resolve_path=True,
        ),
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Number of chapters per talk.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Average chapter length. Default: chapters.minutes of params.yaml.")
    ] = None,
    topics: Annotated[
        Path | None,
        typer.Option(
            help="Known topics: a workbook, CSV, or lines such as 0:00 Title. Their times and titles are kept.",
            resolve_path=True,
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="youtube, vtt, md, csv, json or xlsx. Default: from --out's suffix.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: print the chapters.", resolve_path=True)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Divide a whole talk into chapters and title each of them.

    A lesson of a workbook that has topics keeps them; those without a title get one.
    """
    if (count or minutes) and (topics or (count and minutes)):
        raise UsageError("Give --count or --minutes, not both, and neither with --topics.")
    if overwrite and not out:
        raise UsageError("--overwrite goes with --out; without --out, the chapters are printed.")
    enter_project()
    from pipeline.chapters.chaptering import give_chapters
    from pipeline.chapters.segmentation import ChaptersSettings
    from pipeline.transcripts import chapter_files
    from pipeline.transcripts.known_topics import with_topics
    from pipeline.transcripts.reading import read_talks

    name = chapter_files.format_of(form, out)
    if out == talk:
        raise UsageError(f"--out {out} is the talk itself. Name another file.")
    if out:
        chapter_files.check_out(out, name, overwrite=overwrite)
    talks = read_talks(talk)
    if topics:
        talks = with_topics(talks, topics)
    if (count or minutes) and all(each.topics for each in talks):
        raise UsageError(
            "--count and --minutes decide where chapters start, but these talks have known topics. "
            "Empty lesson_topics first."
        )
    chapter_files.check_talks(talks, name)
    settings = ChaptersSettings.read()
    found, titled = give_chapters(
        talks, settings.model_copy(update={"minutes": minutes}) if minutes else settings, count
    )
    if out:
        chapter_files.write_chapters(found, out, name)
        total, kept = sum(len(each.chapters) for each in found), sum(each.kept for each in found)
        print(f"{out}: {total:,} chapters, {kept:,} kept")
    else:
        print(chapter_files.TEXTS[name](found), end="", flush=True)
    if titled:
        titled.forget()
    for each in found:
        print("".join(f"{remark}\n" for remark in chapter_files.remarks(each, name)), end="", file=sys.stderr)


def serve(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines. LECTERN_HOSTS adds host names.")
    ] = "127.0.0.1",
    fast: Fast = False,
) -> None:
    """Serve titles over HTTP and chapters on a web page.

    Uses the champion, else the challenger. The sections `serve` and `page` of params.yaml set the limits.
    """
    enter_project()
    from pipeline.server.process import serve as run_server

    run_server(port, host=host, fast=fast)


def export(
    version: Annotated[int | None, typer.Argument(min=1, help="Default: the champion, else the challenger.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write. Default: exports/NAME/VERSION.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Number of test examples to measure on. Default: all.")
    ] = None,
) -> None:
    """Convert a version for fast inference with CTranslate2.

    Weights become 8-bit if that costs at most one ROUGE point.
    """
    folder = out.resolve() if out else None
    enter_project()
    require_extra("fast", user="lectern export")
    from pipeline.exports.export import export as convert
    from pipeline.paths import EXPORTS
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import RegisterSettings, named_version

    name = RegisterSettings.read().name
    found = named_version(connect(), name, version)
    folder = folder or EXPORTS / name / str(found.version)
    card = convert(found, folder, examples)
    print(card.summary(folder))


def drift(
    since: Annotated[
        float | None, typer.Option(min=0.01, help="Days to look back. Default: drift.days of params.yaml.")
    ] = None,
) -> None:
    """Compare recently titled texts with the training split, as the section `drift` of params.yaml says."""
    enter_project()
    from pipeline.monitoring.drift import DriftSettings
    from pipeline.monitoring.drift_report import report_drift
    from pipeline.paths import DRIFT

    settings = DriftSettings.read()
    if since:
        settings = settings.model_copy(update={"days": since})
    found = report_drift(settings)
    if found is None:
        print(f"Nothing was titled within {settings.days:g} days.")
        return
    console().print(found.as_table())
    print(f"See {DRIFT}.", flush=True)
    if found.drifted:
        from flows.reporting.events import tell_of_drift

        tell_of_drift(found.version.rpartition("/")[0], found)
        sys.exit(REJECTED)
