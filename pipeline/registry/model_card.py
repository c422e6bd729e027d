"""Model cards of versions: purpose, data, training, scores, examples and limits.

The form follows Mitchell et al., 2019, "Model Cards for Model Reporting". A card is kept with its version: as Markdown
and HTML among the artifacts of its run, as README.md and README.html in the registered model's folder, and as a summary
in the version's description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.data.lesson_openings import is_opening
from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.evaluation.comparison import format_interval
from pipeline.evaluation.leaderboard import Leaderboard
from pipeline.evaluation.leaderboard_text import conditions, headline
from pipeline.evaluation.score_names import ROUGE_SCORES, SCORES
from pipeline.evaluation.slices import Slice, score_slices
from pipeline.evaluation.templates import template_environment
from pipeline.files import write_text
from pipeline.registry.tracking import find_run
from pipeline.registry.versions import logged_model_ids
from pipeline.training.record import TrainingRun

if TYPE_CHECKING:
    from pipeline.chapters.boundary_board import BoundaryBoard
    from pipeline.evaluation.joint_board import JointBoard
    from pipeline.models.checkpoints import Card
    from pipeline.models.generation import GenerateSettings


_EXAMPLE = [*LESSON, "start_seconds"]
_FOLDER = "cards"  # among the artifacts of the version's run
README = ("README.md", "README.html")
"""The files of the card in a registered model's folder. They are added after the folder's hash is taken."""

_SHOWN = 3  # number of good and of bad examples
_EXCERPT_CHARACTERS = 300
_FEWEST = 10  # examples that a slice needs to be named the weakest
_HUB = re.compile(r"hub:([^@]+)")


@dataclass(frozen=True)
class Facts:
    """The input of a card."""

    name: str  # of the registered model
    number: str  # of the version
    tags: Mapping[str, str]  # of the version
    settings: Mapping[str, str]  # of the training; empty if the tracking server does not know its run
    folder: Card
    generate: GenerateSettings
    training: TrainingRun
    leaderboard: Leaderboard
    splits: Mapping[str, pd.DataFrame]
    scored: pd.DataFrame  # the model's titles for the test split, with `SCORES`
    boundaries: BoundaryBoard | None = None
    joint: JointBoard | None = None
    seen: int = 0  # number of test examples that the model or one of its checkpoints has seen


@dataclass(frozen=True)
class ModelCard:
    """A card and its summary."""

    head: str  # YAML that Hugging Face reads at the top of a README.md
    body: str  # Markdown
    summary: str  # Markdown, a few lines

    @property
    def markdown(self) -> str:
        return f"---\n{self.head}\n---\n\n{self.body}"


def write_card(facts: Facts) -> ModelCard:
    """Write the card; the same facts always give the same card.

    Raises:
        Rejected: the titles belong to another test split.
    """
    board = facts.leaderboard
    titled = _titled(facts.scored, facts.splits["test"])
    ranked = titled.sort_values(board.metric, kind="stable")
    shown = min(_SHOWN, len(ranked) // 2)  # no example is both good and bad
    found = list(score_slices(titled, board.metric, board.unit, confidence=board.confidence))
    body = _environment(autoescape=False).get_template("card.md.j2")
    return ModelCard(
        head=_head(facts),
        body=body.render(
            facts=facts,
            board=board,
            usage=usage(facts.folder),
            headline=headline(board),
            conditions=conditions(board),
            scores=SCORES,
            own=board.row(board.best).titles,
            data={name: _counts(split) for name, split in facts.splits.items()},
            leaked=_leaked(facts.splits),
            slices=found,
            weakest=_weakest(found),
            wordless=int((titled["prediction"] == "").sum()),
            # Without openings, whose usual title shows nothing about the model.
            good=ranked[~ranked["opens"]][::-1][:shown].to_dict("records"),
            bad=ranked[:shown].to_dict("records"),
            libraries={key: value for key, value in facts.tags.items() if key.startswith("library.")},
        ),
        summary=_summary(facts),
    )


def usage(card: Card) -> str:
    """Return Python code that writes a title with transformers only, from the registered model's folder."""
    from pipeline.models.families import get_family  # imports transformers, which takes seconds

    family = get_family(card.family, card.language, card.prompt)
    template = _environment(autoescape=False).get_template("usage.py.j2")
    return template.render(card=card, family=family, model_class=family.model_class.__name__)


def _titled(scored: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    known = test[[*_EXAMPLE, "text"]].assign(opens=is_opening(test))
    titled = scored[scored["split"] == "test"].merge(known, on=_EXAMPLE)
    if len(titled) != len(test):
        raise Rejected("reports/titles belongs to another test split. Run `dvc repro` to write its titles again.")
    return titled


def _counts(split: pd.DataFrame) -> dict[str, int]:
    return {
        "examples": len(split),
        "lessons": len(split[LESSON].drop_duplicates()),
        "courses": split["course_title"].nunique(),
        "words": int(split["text"].str.split().str.len().sum()),
    }


def _leaked(splits: Mapping[str, pd.DataFrame]) -> int:
    """Return the number of lessons that are in more than one split."""
    lessons = pd.concat([split[LESSON].drop_duplicates() for split in splits.values()])
    return len(lessons[lessons.duplicated()].drop_duplicates())


def _weakest(found: list[Slice]) -> Slice | None:
    large = [slice_ for slice_ in found if slice_.examples >= _FEWEST]
    return min(large, key=lambda slice_: slice_.interval.mean, default=None)


def _head(facts: Facts) -> str:
    """Return the YAML header. It names no license, because the license of the workbook is unknown."""
    board, tags = facts.leaderboard, facts.tags
    base = _HUB.match(facts.folder.checkpoint)
    results = [
        EvalResult(
            task_type="summarization",
            dataset_type="lectern",
            dataset_name=Path(tags.get("data.workbook", "workbook")).name,
            dataset_split="test",
            dataset_revision=tags.get("data.test.md5"),
            metric_type="rouge" if score in ROUGE_SCORES else "bertscore",
            metric_name=score,
            metric_value=round(interval.mean, 4),
        )
        for score, interval in board.row(board.best).test.items()
    ]
    data = ModelCardData(
        model_name=f"{facts.name}-{facts.number}",
        base_model=base[1] if base else None,
        library_name="transformers",
        tags=["lectern", "chapter-titles", facts.folder.family],
        metrics=["rouge", "bertscore"],
        eval_results=results,
    )
    return data.to_yaml()


def _summary(facts: Facts) -> str:
    commit, workbook = facts.tags.get("git.commit", "unknown")[:8], facts.tags.get("data.workbook", "unknown")
    return (
        f"{headline(facts.leaderboard)}\n\nFrom commit `{commit}` and workbook `{workbook}`, "
        f"{len(facts.splits['train'])} training examples.\n\n{_closing_line(facts.number)}"
    )


def _closing_line(number: str) -> str:
    """Return the last line of the descriptions that `keep_card` writes. A person's description lacks it."""
    return f"The whole card: `lectern card {number}`, or `{_path(number, 'html')}` among the artifacts of its run."


def as_page(markdown: str) -> str:
    """Turn a card's Markdown into an HTML page. HTML inside the Markdown is shown as text and never runs."""
    body = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(body)
    title = body.strip().partition("\n")[0].lstrip("# ")
    return _environment(autoescape=True).get_template("card.html.j2").render(title=title, body=rendered)


def keep_card(client: MlflowClient, version: ModelVersion, model: str, card: ModelCard) -> None:
    """Store the card with the version. A description that a person wrote stays.

    `models/MODEL` gets no card, because DVC and the version's lineage identify the model by the hash of that folder.
    """
    number = str(version.version)
    written = (card.markdown, as_page(card.markdown))
    if find_run(client, version.run_id):  # the run may have been deleted
        for text, suffix in zip(written, ("md", "html"), strict=True):
            client.log_text(version.run_id, text, _path(number, suffix))
    with TemporaryDirectory() as folder:
        for text, name in zip(written, README, strict=True):
            write_text(Path(folder, name), text, durable=False)
        client.log_model_artifacts(logged_model_ids(version)[0], folder, f"artifacts/{model}")
    if not version.description or version.description.endswith(_closing_line(number)):
        client.update_model_version(version.name, number, card.summary)


def read_card(client: MlflowClient, version: ModelVersion) -> str:
    """Return the card of `version` as Markdown.

    Raises:
        Rejected: the version has no card.
    """
    path = _path(str(version.version), "md")
    kept = client.list_artifacts(version.run_id, _FOLDER) if version.run_id else []
    if path not in [artifact.path for artifact in kept]:
        raise Rejected(
            f"Version {version.version} of '{version.name}' has no card. `lectern register` writes the card of the "
            "leaderboard's best model."
        )
    return mlflow.artifacts.load_text(f"runs:/{version.run_id}/{path}")


def _path(number: str, suffix: str) -> str:
    return f"{_FOLDER}/version-{number}.{suffix}"


def _environment(*, autoescape: bool) -> Environment:
    environment = template_environment("pipeline.registry", autoescape=autoescape)
    environment.filters |= {"plain": plain, "excerpt": _excerpt, "show": format_interval}
    return environment


def plain(text: str) -> str:
    """Put `text` on one line and escape the characters that have a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(str(text).split()))


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]} …"
