"""Check each family with the installed libraries, from a small checkpoint to served titles."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
import torch
from rich.table import Table
from rich.text import Text

from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.rouge import mean_rouge
from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint, save_model
from pipeline.models.families import DROPPED, FAMILIES, explain_unknown_families
from pipeline.models.generation import GenerateSettings, Titler, decoder_start, open_titler
from pipeline.models.scratch import ScratchSize
from pipeline.models.title_logits import logits_at_once, logits_by_steps
from pipeline.registry.registration import log_served_model
from pipeline.registry.tracking import connect
from pipeline.training.prepare import Prepared, prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

log = logging.getLogger(__name__)

_SUBJECTS = ("gradients", "matrices", "graphs", "sorting")
_EXAMPLES = pd.DataFrame(
    {
        "text": [f"so in this part we look at {subject}, and at why {subject} matter" for subject in _SUBJECTS],
        "title": [f"Why {subject} matter" for subject in _SUBJECTS],
    }
)
_TEXTS = _EXAMPLES["text"].tolist()
_SIZE = ScratchSize(width=32, layers=2, heads=2, vocabulary=300)
_ROUNDING = 1e-4  # largest difference between two ways to compute logits, in their standard deviations
_SOURCE_TOKENS, _TARGET_TOKENS = 48, 12
_ONE_STEP = TrainSettings(
    epochs=1,
    optimiser="adamw",
    learning_rate=1e-3,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.01,
    batch_size=len(_EXAMPLES),
    micro_batch_tokens=4096,
    freeze=[],
    freeze_lower_layers=0,
    unfreeze_every=0,
    discriminative=1.0,
    max_gradient_norm=1.0,
    early_stopping=0,
    precision="auto",
    gradient_checkpointing=False,
    compile=False,
    processes=1,
    seed=1,
)
# An almost untrained model would end at once or repeat one token, so both are forbidden.
_GENERATE = GenerateSettings(
    num_beams=2,
    candidates=2,
    max_new_tokens=12,
    min_new_tokens=8,
    no_repeat_ngram_size=1,
    length_penalty=1.0,
    batch_size=len(_EXAMPLES),
)


@dataclass(frozen=True)
class FamilyResult:
    """The result of the check of one family."""

    family: str
    result: str  # PASSED | FAILED
    seconds: float
    parameters: int | None = None  # of the small model; None if it could not be made
    failed_at: str | None = None  # the failed step
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.result == "PASSED"


def check_families(families: Sequence[str] = ()) -> list[FamilyResult]:
    """Check each of `families`, or all families; continue after a failure.

    The check uses a temporary folder with an MLflow database of its own.

    Raises:
        UsageError: a family does not exist.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise UsageError(f"There is no family {', '.join(unknown)}; {explain_unknown_families(unknown)}.")
    with _temporary_project():
        return [_check(family) for family in dict.fromkeys(families or FAMILIES)]


def families_table(rows: Sequence[FamilyResult]) -> Table:
    """Format the results for a terminal."""
    table = Table(title=f"{sum(row.passed for row in rows)} of {len(rows)} families work", title_justify="left")
    for column in ("family", "result", "seconds", "parameters", "failed at", "error"):
        table.add_column(column)
    for row in rows:
        parameters = "" if row.parameters is None else f"{row.parameters:,}"
        table.add_row(
            row.family, row.result, f"{row.seconds:.1f}", parameters, row.failed_at or "", Text(row.error or "")
        )
    if len(rows) == len(FAMILIES):
        table.caption = "\n".join(f"Not tried: {name}; {why}." for name, why in DROPPED.items())
        table.caption_justify = "left"
    return table


@contextlib.contextmanager
def _temporary_project() -> Iterator[None]:
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            connect()
            yield
        finally:
            os.environ["MLFLOW_TRACKING_URI"] = tracking


def _check(family: str) -> FamilyResult:
    trial, start = _Trial(family), time.monotonic()
    steps = {
        "open": trial.open,
        "shapes": trial.shapes,
        "cached steps": trial.cached_steps,
        "train": trial.train,
        "generate": trial.generate,
        "reload": trial.reload,
        "serve": trial.serve,
    }
    failure: dict[str, str] = {}
    for name, step in steps.items():
        try:
            step()
        except Exception as error:  # any error is a result of the check
            log.exception("%s fails at step '%s'", family, name)
            failure = {"failed_at": name, "error": f"{type(error).__name__}: {error}"}
            break
    row = FamilyResult(
        family,
        result="FAILED" if failure else "PASSED",
        seconds=round(time.monotonic() - start, 1),
        parameters=trial.parameters,
        **failure,
    )
    log.info("%s: %s", family, row.result)
    return row


class _Trial:
    """The steps of one family's check, in the order of `_check`: each builds on the ones before."""

    _model: Prepared
    _titles: list[list[str]]

    def __init__(self, family: str) -> None:
        self.parameters: int | None = None
        self._family = family
        self._checkpoint = Path(family, "checkpoint")
        self._trained = Path(family, "trained")

    def open(self) -> None:
        """Make a model from scratch, save it, and open it again as a checkpoint."""
        settings = self._settings("scratch", _SIZE)
        texts = [*_TEXTS, *_EXAMPLES["title"]]
        card = Card(
            model=self._family,
            family=self._family,
            checkpoint="scratch",
            max_source_tokens=_SOURCE_TOKENS,
            max_target_tokens=_TARGET_TOKENS,
        )
        self._checkpoint.mkdir(parents=True)
        save_model(self._checkpoint, *open_checkpoint(settings, texts), card, settings.weights)
        settings = self._settings(str(self._checkpoint))
        self._model = prepare(self._family, settings, _ONE_STEP, texts)
        self.parameters = self._model.size()["parameters"]

    def _settings(self, checkpoint: str, scratch: ScratchSize | None = None) -> ModelSettings:
        return ModelSettings(
            family=self._family,
            checkpoint=checkpoint,
            scratch=scratch,
            max_source_tokens=_SOURCE_TOKENS,
            max_target_tokens=_TARGET_TOKENS,
        )

    def shapes(self) -> None:
        """Check that the model gives logits for each token of each title, and a finite loss."""
        inputs = self._model.inputs
        batch = inputs.training_batch([inputs.example(*row) for row in _EXAMPLES[["text", "title"]].to_numpy()])
        with torch.inference_mode():
            output = self._model.network.eval()(**batch)
        expected, found = (*batch["labels"].shape, len(inputs.tokenizer)), tuple(output.logits.shape)
        if found != expected:
            raise Rejected(f"the logits have the shape {found} instead of {expected}")
        if not output.loss.isfinite():
            raise Rejected(f"the loss is {output.loss.item()}")

    def cached_steps(self) -> None:
        """Check that cached steps, used in generation, give the logits of whole titles, used in training."""
        model, inputs = self._model.network.eval(), self._model.inputs
        start = [] if inputs.family.causal else decoder_start(model.config, inputs)
        titles = [[*start, *inputs.target(title)] for title in _EXAMPLES["title"]]
        titles = [title[: min(map(len, titles))] for title in titles]
        sources = [inputs.source(text) for text in _TEXTS]
        whole, steps = logits_at_once(model, inputs, sources, titles), logits_by_steps(model, inputs, sources, titles)
        difference = ((steps - whole).abs().max() / whole.std()).item()
        if not difference < _ROUNDING:
            raise Rejected(
                f"the logits of whole titles and of cached steps differ by {difference:.4f} standard deviations, so "
                "training and generation would use different functions"
            )

    def train(self) -> None:
        """Check that one step of the optimiser changes the weights."""
        before = [parameter.detach().clone() for parameter in self._model.network.parameters()]
        curves = fit(
            self._model.trained,
            self._model.inputs,
            _EXAMPLES,
            _EXAMPLES,
            _ONE_STEP,
            score=mean_rouge,
            resume_from=Path(self._family, "resume"),
        )
        if curves["step"].tolist() != [1] or not curves["train_loss"].notna().all():
            raise Rejected(f"one training step gave the curves {curves.to_dict('records')}")
        after = [parameter.detach().cpu() for parameter in self._model.network.parameters()]
        if all(map(torch.equal, before, after)):
            raise Rejected("the training step changed no weights")

    def generate(self) -> None:
        """Check that generation writes the requested number of titles for each text, none of them empty."""
        self._titles = Titler(self._model.network, self._model.inputs, _GENERATE).titles(_TEXTS)
        for text, found in zip(_TEXTS, self._titles, strict=True):
            if len(found) != _GENERATE.candidates or not all(found):
                raise Rejected(f"'{text}' has the titles {found}")

    def reload(self) -> None:
        """Check that the saved model writes the same titles."""
        self._trained.mkdir()
        save_model(self._trained, self._model.network, self._model.inputs.tokenizer, self._model.card, "float32")
        self._compare(open_titler(self._trained, _GENERATE).titles(_TEXTS))

    def serve(self) -> None:
        """Check that the model writes the same titles when MLflow serves it."""
        served = mlflow.pyfunc.load_model(log_served_model(self._trained, _GENERATE).model_uri)
        self._compare(served.predict(_TEXTS)["candidates"].tolist())

    def _compare(self, titles: list[list[str]]) -> None:
        for text, found, before in zip(_TEXTS, titles, self._titles, strict=True):
            if found != before:
                raise Rejected(f"'{text}' has the titles {found} instead of {before}")
