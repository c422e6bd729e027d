"""The `lectern` command; `python -m pipeline` is the same thing. Commands import what they need when they need it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import machine_errors
from pipeline.errors import Misused, Refused, Unavailable
from pipeline.experiments import share_state
from pipeline.paths import PARAMS
from pipeline.redaction import hide_passwords
from pipeline.terminal import complain, console, say_no, write_anything

if TYPE_CHECKING:
    from pipeline.search.search import Found

OK, REFUSED, BUG, INTERRUPTED = 0, Refused.exit_code, 70, 130

_STAGES = {
    "sample": "Builds the embedded workbook.",
    "ingest": "Reads and checks the workbook that params.yaml names.",
    "validate": "Holds both tables against the suites in expectations/.",
    "merge": "Puts every line under its topic.",
    "split": "Divides the examples into train, validation and test.",
    "settings": "Writes the settings that decide each contestant's weights and titles.",
    "collect": "Writes the hashes of all contestants' results.",
    "baselines": "Measures what no training gives.",
    "compare": "Makes the leaderboard and the report.",
    "register": "Registers the best model as the challenger.",
}
_STAGES_OF_A_MODEL = {
    "train": "Fine-tunes one model.",
    "predict": "Writes one model's titles for the validation and test splits.",
    "score": "Scores one model's titles.",
}
_OUTPUTS = ("data/", "models/", "reports/", "settings/", "best_model/")
_PANEL = "Stages, which dvc.yaml runs"

app = typer.Typer(
    help="Turns lecture transcripts into chapter titles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Runs the command line; never shows a traceback for what is not a bug of ours."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_WithoutPasswords("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    _quieten_libraries()
    write_anything()
    try:
        app()
    except (Refused, Misused, Unavailable) as error:
        sys.exit(say_no(error))
    except Exception as error:
        _end_if_something_is_lacking(error)
        complain(f"{traceback.format_exc()}\nThis is a bug of Lectern's. Please report it with the lines above.")
        sys.exit(BUG)


_NOT_FOR_OUR_USER = {
    # Tied weights are saved once; the trainer takes their other names for lost when it loads its best epoch.
    "transformers.trainer": ("missing keys in the checkpoint",),
    "transformers.models.led.modeling_led": ("automatically padded",),
    # With a traceback; what it means is said at the end.
    "mlflow.store.db.utils": ("SQLAlchemy database error",),
    "py.warnings": (
        "Add type hints to the `predict` method",  # they would become the served model's schema
        "The specified dataset source can be interpreted in multiple ways",
        "a better way to train encoder-decoder models",  # of the library's own past
    ),
}


def _quieten_libraries() -> None:
    """Keeps back what libraries say that is not for our user."""
    # The library sets the level of "mlflow" itself as it is imported, so its monitor of the machine's load has its own.
    mlflow = ("mlflow", "mlflow.system_metrics")
    for chatty in (*mlflow, "httpx", "alembic", "great_expectations", "datasets", "absl", "matplotlib", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # As log records: MLflow sets filters for warnings of its own, which would come ahead of ours.
    logging.captureWarnings(True)
    for name, phrases in _NOT_FOR_OUR_USER.items():
        logging.getLogger(name).addFilter(
            lambda record, phrases=phrases: not any(phrase in record.getMessage() for phrase in phrases)
        )


def _end_if_something_is_lacking(error: Exception) -> None:
    # First what needs no import: there may be no memory for one.
    if ours := machine_errors.in_our_words(error):
        sys.exit(say_no(ours))
    from pipeline.registry import outages

    if ours := outages.in_our_words(error):
        sys.exit(say_no(ours))


class _WithoutPasswords(logging.Formatter):
    """Also of what libraries say, who have seen the addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record))


def _enter_project() -> None:
    """Makes the project's folder the working directory, from wherever in it the command was given.

    Raises:
        Misused: this is no project's folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PARAMS).is_file() and (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            return
    raise Misused(
        f"{here} is not in a Lectern project: there is no params.yaml beside a dvc.yaml. Go to one with `cd`."
    )


@app.command(epilog="Example: `lectern check lessons.xlsx`")
def check(
    workbook: Annotated[Path, typer.Argument(help="An .xlsx file, or a folder with CSV or Parquet tables.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, one object a problem.")] = False,
) -> None:
    """Lists all problems of a workbook, each with its place and its remedy. Runs nothing else."""
    from pipeline.data import problems
    from pipeline.data.workbook import read_workbook

    found = read_workbook(workbook)
    if as_json:
        print(json.dumps(problems.as_json(found.problems), indent=2, ensure_ascii=False))
    else:
        if found.problems:
            console().print(problems.as_table(found.problems))
        print(f"{workbook}: {len(found.topics)} topics, {len(found.lines)} lines, {problems.summary(found.problems)}")
    if problems.errors(found.problems):
        sys.exit(REFUSED)


@app.command(epilog="Example: `lectern use lessons.xlsx && dvc repro`")
def use(
    workbooks: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKBOOK...",
            help="An .xlsx file, its URL, or a folder with CSV or Parquet tables. Of several, "
            "which are joined, a later one counts for the lessons that it holds.",
        ),
    ],
) -> None:
    """Makes a workbook the pipeline's input: copied, put under DVC, named in params.yaml. Refused if it is broken."""
    from flows.graph.workbook import adopt, adopt_all

    sources = [source if "://" in source else str(Path(source).resolve()) for source in workbooks]
    _enter_project()
    if len(sources) == 1:
        adopted = adopt(sources[0])
    else:
        adopted, joined = adopt_all(sources)
        print(f"{joined.lessons:,} lessons; {joined.replaced:,} were replaced by those of a later workbook.")
    print(f"{adopted} is the pipeline's workbook now. Train on it with `lectern run` or `dvc repro`.")


@app.command(epilog="Example: `lectern run`")
def run() -> None:
    """Runs what is stale of the whole pipeline as a Prefect flow, and shows the leaderboard."""
    _enter_project()
    code = _module("flows.train")
    if code == OK:
        _show_results()
    sys.exit(code)


@app.command(epilog="Example: `lectern up`")
def up(
    prefect_port: Annotated[int, typer.Option(help="Where Prefect's server and pages answer.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Where MLflow's server and pages answer.")] = 5000,
    reports_port: Annotated[int, typer.Option(help="Where the reports and the data docs are read.")] = 8800,
    page_port: Annotated[int, typer.Option(help="Where the page gives talks their chapters, and titles.")] = 7860,
) -> None:
    """Starts MLflow's and Prefect's servers, the page, and serves the flows of prefect.yaml; Ctrl-C ends all."""
    _enter_project()
    ports = {"prefect": prefect_port, "mlflow": mlflow_port, "reports": reports_port, "page": page_port}
    sys.exit(
        _module("flows.services.up", *(word for name, port in ports.items() for word in (f"--{name}-port", str(port))))
    )


@app.command(epilog="Example: `lectern title talk.txt --candidates 3`")
def title(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-|WORKBOOK|FOLDER",
            help="A passage, a text file, - for standard input; a workbook; a folder of .txt files and workbooks.",
        ),
    ],
    candidates: Annotated[int, typer.Option(min=1, help="How many titles, the best first.")] = 1,
    beams: Annotated[int | None, typer.Option(min=1, help="Sequences that beam search keeps.")] = None,
    sample: Annotated[bool, typer.Option(help="Draw the words instead of taking the likeliest.")] = False,
    top_k: Annotated[int | None, typer.Option(min=0, help="Draw from so many words; 50 without it, 0 for all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Draw from so much likelihood; 0.95 without it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed draws other titles.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Of a workbook: an .xlsx, WORKBOOK.titled.xlsx without it. Of a folder: FOLDER.titles."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="A workbook: replace --out; formulas become their values.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="A folder: title what another version has titled too.")
    ] = False,
    tell_once: Annotated[
        bool, typer.Option("--tell-once", help="A folder: end with 1 only for files that were not refused before.")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="By the version's export, which `lectern export` makes.")
    ] = False,
) -> None:
    """Gives a passage its title, or each topic of a workbook that has none; from the champion, else the challenger.

    A killed run over a workbook or a folder goes on with the same command.
    """
    from pipeline.titles.passage import read_passage, title_passage

    if many := _many_to_title(source):
        if (candidates, beams, sample, top_k, top_p, seed) != (1, None, False, None, None, None):
            raise Misused("--candidates, --beams and how words are drawn go with a passage, not with many.")
        _title_many(
            many, out.resolve() if out else None, overwrite=overwrite, again=again, tell_once=tell_once, fast=fast
        )
        return
    if out or overwrite or again or tell_once:
        raise Misused(
            "--out, --overwrite, --again and --tell-once go with a workbook or a folder; a passage's title is printed."
        )
    text = read_passage(source)
    if not sample and (top_k, top_p, seed) != (None, None, None):
        raise Misused("--top-k, --top-p and --seed say how words are drawn; they go with --sample.")
    _enter_project()
    knobs: dict[str, object] = {"candidates": candidates}
    if beams:
        knobs |= {"num_beams": beams, "do_sample": False}
    if sample:
        knobs |= {"do_sample": True, "num_beams": beams or 1, "seed": 1 if seed is None else seed}
        knobs |= {"top_k": 50 if top_k is None else top_k, "top_p": 0.95 if top_p is None else top_p}
    print("\n".join(title_passage(text, knobs, fast=fast)))


def _many_to_title(source: str) -> Path | None:
    """The workbook or folder that `source` names, if it names one."""
    from pipeline.titles.workbook import is_workbook

    try:
        path = Path(source).resolve()
        return path if path.is_dir() or is_workbook(path) else None
    except (OSError, ValueError):  # a passage may be too long to be a path, or hold what none can
        return None


def _title_many(path: Path, out: Path | None, *, overwrite: bool, again: bool, tell_once: bool, fast: bool) -> None:
    _enter_project()
    from pipeline.titles.folder import title_inbox
    from pipeline.titles.titling import present_version
    from pipeline.titles.workbook import (
        fill_titles,
        is_workbook,
        may_be_written,
        must_be_workbook,
        output_beside,
        read_lacking_titles,
    )

    if is_workbook(path):
        if again or tell_once:
            raise Misused("--again and --tell-once go with a folder of transcripts; a workbook's titles are kept.")
        out = out or output_beside(path)
        must_be_workbook(out)
        may_be_written(out, overwrite=overwrite)
        read_lacking_titles(path)  # a broken workbook is refused before a registry is asked
        print(fill_titles(path, out, present_version(fast=fast)).summary())
        return
    if overwrite:
        raise Misused("--overwrite goes with a workbook; a folder's titles are added to its titles.csv.")
    version = present_version(fast=fast)
    done = title_inbox(path, out or path.with_name(f"{path.name}.titles"), version, again=again)
    print(done.summary())
    if done.news if tell_once else done.failed:
        sys.exit(REFUSED)


@app.command(epilog="Example: `lectern drift --since 7`")
def drift(
    since: Annotated[
        float | None, typer.Option(min=0.01, help="Days to look back; without it, drift.days of params.yaml.")
    ] = None,
) -> None:
    """Compares what was titled of late with the training split, by the section `drift` of params.yaml."""
    _enter_project()
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
    print(f"{DRIFT} shows it.", flush=True)
    if found.drifted:
        _announce("lectern.drifted", found.version.rpartition("/")[0], found.as_json())
        sys.exit(REFUSED)


@app.command(epilog="Example: `lectern chapters talk.vtt --out talk.xlsx`, and once corrected `--topics talk.xlsx`")
def chapters(
    talk: Annotated[
        Path,
        typer.Argument(
            metavar="TALK",
            help="A .vtt, .srt, .sbv, YouTube's .json, plain text with times, or a workbook.",
            resolve_path=True,
        ),
    ],
    count: Annotated[int | None, typer.Option(min=1, help="How many chapters a talk gets.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Their mean length, instead of chapters.minutes in params.yaml.")
    ] = None,
    topics: Annotated[
        Path | None,
        typer.Option(
            help="Known topics: a workbook, CSV, or lines such as 0:00 Title. Their times and titles are kept.",
            resolve_path=True,
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="youtube, vtt, md, csv, json or xlsx; --out's suffix says it too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; without it, they are printed.", resolve_path=True)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Gives a whole talk its chapters: finds where its topics change, and titles each as `title` would.

    A lesson of a workbook that has topics keeps them; those without a title get one.
    """
    if (count or minutes) and (topics or (count and minutes)):
        raise Misused("--count and --minutes say how topics are found: give one of them, and not with --topics.")
    if overwrite and not out:
        raise Misused("--overwrite goes with --out; without it, the chapters are printed.")
    _enter_project()
    from pipeline.chapters.chaptering import give_chapters
    from pipeline.chapters.segmentation import ChaptersSettings
    from pipeline.transcripts import chapter_files
    from pipeline.transcripts.known_topics import with_topics
    from pipeline.transcripts.reading import read_talks

    name = chapter_files.format_of(form, out)
    if out == talk:
        raise Misused(
            f"--out {out} is the talk itself, which a file of its chapters cannot replace. Name another file."
        )
    if out:
        chapter_files.check_out(out, name, overwrite=overwrite)
    talks = read_talks(talk)
    if topics:
        talks = with_topics(talks, topics)
    if (count or minutes) and all(each.topics for each in talks):
        raise Misused("--count and --minutes say how topics are found, and these are known: empty lesson_topics first.")
    chapter_files.check_talks(talks, name)
    settings = ChaptersSettings.read()
    found, titled = give_chapters(
        talks, settings.model_copy(update={"minutes": minutes}) if minutes else settings, count
    )
    if out:
        chapter_files.write_chapters(found, out, name)
        print(
            f"{out}: {sum(len(each.chapters) for each in found):,} chapters, {sum(each.kept for each in found):,} kept"
        )
    else:
        print(chapter_files.TEXTS[name](found), end="", flush=True)
    if titled:
        titled.forget()
    for each in found:
        print("".join(f"{remark}\n" for remark in chapter_files.remarks(each, name)), end="", file=sys.stderr)


@app.command(epilog="Example: `lectern export --examples 100`")
def export(
    version: Annotated[int | None, typer.Argument(min=1, help="Without it, the champion, else the challenger.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; exports/NAME/VERSION without it.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Of the test split, to measure on; all of it without this.")
    ] = None,
) -> None:
    """Convert a version for quick inference by CTranslate2, with 8-bit weights if they lose at most one ROUGE point."""
    folder = out.resolve() if out else None
    _enter_project()
    from pipeline.exports.export import export as convert
    from pipeline.paths import EXPORTS
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import RegisterSettings, named_version

    name = RegisterSettings.read().name
    found = named_version(connect(), name, version)
    folder = folder or EXPORTS / name / str(found.version)
    card = convert(found, folder, examples)
    print(card.summary(folder))


@app.command(epilog="Example: `lectern serve --port 8080 --fast`")
def serve(
    port: Annotated[int, typer.Option(help="Where it answers.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines. LECTERN_HOSTS adds host names.")
    ] = "127.0.0.1",
    fast: Annotated[
        bool, typer.Option("--fast", help="By the version's export, which `lectern export` makes.")
    ] = False,
) -> None:
    """Gives titles over HTTP, and chapters on a page, by the champion, else the challenger, within the limits of the
    sections `serve` and `page`."""
    _enter_project()
    from pipeline.server.process import serve as run_server

    run_server(port, host=host, fast=fast)


@app.command(epilog="Example: `lectern search t5-tiny --trials 20`")
def search(
    model: Annotated[str, typer.Argument(help="An entry of `models` in params.yaml.")],
    trials: Annotated[int, typer.Option(min=1, help="How many are to be finished, earlier ones counted.")] = 20,
    apply: Annotated[bool, typer.Option("--apply", help="Write the best knobs into params.yaml.")] = False,
) -> None:
    """Tries other knobs for a model's training, as the section `search` of params.yaml says, and suggests the best."""
    _enter_project()
    from pipeline.search.search import search as go_on

    with _naming_the_stages_before():
        found = go_on(model, trials)
    _show_search(found, trials)
    if found.interrupted:
        sys.exit(INTERRUPTED)
    if apply:
        found.suggestion.apply()
        print("params.yaml has these knobs now. Train with them by `lectern run` or `dvc repro`.")


@app.command(epilog="Example: `lectern matrix t5 led`")
def matrix(
    families: Annotated[list[str] | None, typer.Argument(metavar="[FAMILY]...", help="All, if none is named.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, one object a family.")] = False,
) -> None:
    """Takes each family from a small model to served titles, and says which of them work here. Needs no project."""
    from pipeline.registry.family_check import matrix as try_all
    from pipeline.registry.family_check import matrix_table

    rows = try_all(families or [])
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        console().print(matrix_table(rows))
    if not all(row.passed for row in rows):
        sys.exit(REFUSED)


models_app = typer.Typer(no_args_is_help=False)
app.add_typer(models_app, name="models", epilog="Example: `lectern models`")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """Lists the registered versions with their aliases and scores, the newest first."""
    _enter_project()
    if context.invoked_subcommand:
        return
    from pipeline.registry.tables import versions_table
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import RegisterSettings, nothing_registered, versions

    name = RegisterSettings.read().name
    found = versions(connect(), name)
    if not found:
        raise Refused(nothing_registered(name))
    console().print(versions_table(name, found))


@models_app.command("add", epilog="Example: `lectern models add t5-small bart-base`")
def add_models(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of catalogue.yaml.")],
) -> None:
    """Copies models from catalogue.yaml into params.yaml and makes them contestants of the next run."""
    from pipeline.catalogue import add

    add(names)
    print(f"params.yaml has {', '.join(names)} as contestants now. Train with `lectern run` or `dvc repro`.")


@app.command(epilog="Example: `lectern card 3 --html card.html`")
def card(
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version; without it, the champion, else the challenger.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page into this file instead.")] = None,
) -> None:
    """Prints the model card of a version, as Markdown: its data, training, scores, examples, limits and lineage."""
    html = html.resolve() if html else None
    _enter_project()
    from pipeline.files import write_text
    from pipeline.registry.model_card import as_page, read_card
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import RegisterSettings, named_version

    client = connect()
    text = read_card(client, named_version(client, RegisterSettings.read().name, version))
    if html:
        write_text(html, as_page(text))
    else:
        print(text)


@app.command(epilog="Example: `lectern lineage 3`")
def lineage(
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version; without it, the champion, else the challenger.")
    ] = None,
) -> None:
    """Walks from a version back to its workbook, and says where each thing that made it can still be had."""
    _enter_project()
    sys.exit(_module("flows.maintenance.lineage", *([str(version)] if version else [])))


@app.command(epilog="Example: `lectern promote 3 --because 'titles read better'`")
def promote(
    version: Annotated[int | None, typer.Argument(min=1, help="The version; without it, the challenger.")] = None,
    because: Annotated[str, typer.Option(help="Why; kept with the registered model.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the verdict, and move nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Whatever the verdict; wants --because.")] = False,
) -> None:
    """Makes a version the champion, if it passes the rules of the section `promote` in params.yaml."""
    if force and not because.strip():
        raise Misused("--force keeps the reason with the model: say it with --because.")
    _enter_project()
    from pipeline.registry import versions as registry
    from pipeline.registry.gate import PromoteSettings, judge
    from pipeline.registry.tracking import connect

    client, name, settings = connect(), registry.RegisterSettings.read().name, PromoteSettings.read()
    number = str(version) if version else None
    if dry_run:
        verdict = judge(name, *registry.version_and_champion(client, name, number), settings)
        console().print(verdict.as_table())
        sys.exit(OK if verdict.passed else REFUSED)
    try:
        move, verdict = registry.promote(
            client,
            name,
            number,
            because=because,
            judge=lambda challenger, champion: judge(name, challenger, champion, settings),
            force=force,
        )
    except registry.NotPassed as error:
        console().print(error.verdict.as_table())
        raise
    console().print(verdict.as_table())
    print(f"Version {move.version} of '{name}' is the champion now; before it {_said(move.before)}.", flush=True)
    _announce("lectern.promoted", name, asdict(move))


@app.command(epilog="Example: `lectern history`")
def history() -> None:
    """Prints every move of the champion: who, when, from which version to which, on what evidence and why."""
    _enter_project()
    from pipeline.registry.tables import history_table
    from pipeline.registry.tracking import connect
    from pipeline.registry.versions import RegisterSettings, trail

    name = RegisterSettings.read().name
    moves = trail(connect(), name)
    if not moves:
        raise Refused(f"No version of '{name}' was ever promoted. `lectern promote` promotes the challenger.")
    console().print(history_table(name, moves))


@app.command(epilog="Example: `lectern rollback --because 'titles got longer'`")
def rollback(
    because: Annotated[str, typer.Option(help="Why; kept with the registered model.")] = "",
) -> None:
    """Makes the champion before this one the champion again; as often as there was one before."""
    _enter_project()
    from pipeline.registry import versions as registry
    from pipeline.registry.tracking import connect

    name = registry.RegisterSettings.read().name
    move = registry.rollback(connect(), name, because=because)
    print(f"Version {move.version} of '{name}' is the champion again; before it {_said(move.before)}.", flush=True)
    _announce("lectern.promoted", name, asdict(move))


@app.command(epilog="Example: `lectern doctor`")
def doctor() -> None:
    """Checks Python, torch, GPU, hub, MLflow, Prefect, DVC remote and disk: a line each, and what to do.

    Ends with 1 if something that is needed does not work.
    """
    with suppress(Misused):  # outside of a project there is a machine to look at too
        _enter_project()
    sys.exit(_module("flows.services.doctor"))


@app.command(epilog="Example: `lectern clean --keep-days 14`")
def clean(
    keep_days: Annotated[int, typer.Option(min=1, help="What was used within so many days stays.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it, and do not ask.")] = False,
) -> None:
    """Shows what no registered version and no recent run needs, and removes it once you agree."""
    _enter_project()
    sys.exit(_module("flows.maintenance.clean", "--keep-days", str(keep_days), *(["--yes"] if yes else [])))


@app.command(epilog="Example: `lectern backup /mnt/backups/lectern.tar`")
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, outside of the project.", resolve_path=True)],
) -> None:
    """Writes the whole project, its history and its versions into one file; the servers may run meanwhile."""
    _enter_project()
    sys.exit(_module("flows.maintenance.backup", str(file)))


@app.command(epilog="Example: `lectern restore /mnt/backups/lectern.tar lectern`")
def restore(
    file: Annotated[Path, typer.Argument(help="What `lectern backup` wrote.")],
    folder: Annotated[Path, typer.Argument(help="The project's folder to be: new, or empty.")],
) -> None:
    """Makes a project folder of a backup, at the old place or elsewhere. Needs no project."""
    from pipeline.maintenance.backup import restore as unpack

    folder = folder.resolve()  # which a shell that stands in it must enter anew
    label = unpack(file, folder)
    print(f"{folder} is the project as {label.folder} was at {label.made}. Go there, and run `make install`.")


def _announce(event: str, name: str, payload: dict[str, Any]) -> None:
    """Tells Prefect, where one is at work, of what has happened already, whether or not that answers."""
    _module("flows.reporting.events", event, name, json.dumps(payload))


def _said(version: str | None) -> str:
    return f"version {version} was" if version else "there was none"


def _module(name: str, *words: str) -> int:
    """Runs a module of this project in a process of its own: `pipeline` imports nothing of `flows`."""
    import signal
    import subprocess

    with subprocess.Popen([sys.executable, "-m", name, *words]) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal sent it Ctrl-C as well; it ends by itself, and tidies up first.
                continue


def _show_results() -> None:
    from pipeline.evaluation.leaderboard import as_rich_table, read_leaderboard
    from pipeline.paths import REGISTERED, REPORT

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
    before = f"; {best.today:.4f} with the settings that params.yaml had" if best.today is not None else ""
    by = f" (by {best.bertscore})" if best.bertscore else ""
    on = "" if found.finished >= wanted else " The same command goes on."
    screen.print(
        f"\n{found.finished} of {wanted} trials finished.{on} The best: {best.metric}{by} {best.value:.4f}{before}.\n"
        f"{SEARCHES / best.model}.yaml keeps it. With --apply it is written into params.yaml, or put there by hand:\n\n"
        f"{best.as_yaml()}",
        highlight=False,
        markup=False,
    )


def _run_stage(name: str, *model: str) -> None:
    _enter_project()
    share_state()
    with _naming_the_stages_before():
        importlib.import_module(f"pipeline.stages.{name}").run(*model)


@contextmanager
def _naming_the_stages_before() -> Iterator[None]:
    """Where a file is missing that a stage makes, says so."""
    try:
        yield
    except FileNotFoundError as error:
        missing = str(error.filename or error)  # pyarrow says it in the message alone
        if not missing.startswith(_OUTPUTS):
            raise
        raise Misused(f"{missing} is not here; an earlier stage makes it. Run `dvc repro`.") from None


def _add_stage(name: str, help_text: str) -> None:
    def stage() -> None:
        _run_stage(name)

    app.command(name, help=help_text, rich_help_panel=_PANEL, epilog=f"Example: `python -m pipeline {name}`")(stage)


def _add_stage_of_a_model(name: str, help_text: str) -> None:
    def stage(model: Annotated[str, typer.Argument(help="An entry of `models` in params.yaml.")]) -> None:
        _run_stage(name, model)

    app.command(name, help=help_text, rich_help_panel=_PANEL, epilog=f"Example: `python -m pipeline {name} t5-tiny`")(
        stage
    )


for _name, _help in _STAGES.items():
    _add_stage(_name, _help)
for _name, _help in _STAGES_OF_A_MODEL.items():
    _add_stage_of_a_model(_name, _help)
