"""Whether every family works with the libraries that are installed: each from a small checkpoint to served titles."""

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
from pipeline.registry.tracking import connect
from pipeline.registry.versions import log_served_model
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
_ROUNDING = 1e-4  # of the logits' standard deviation; by which two ways to compute them may differ
_LIMITS = {"max_source_tokens": 48, "max_target_tokens": 12}
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
# A model that has hardly learnt anything would repeat one token, padding perhaps, and end; so it may not.
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
class Row:
    """What came of one family."""

    family: str
    result: str  # PASSED | FAILED
    seconds: float
    parameters: int | None = None  # of the small model; None where there was none
    failed_at: str | None = None  # the step
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.result == "PASSED"


def matrix(families: Sequence[str] = ()) -> list[Row]:
    """A row for each of `families`, or for all: one that fails does not keep the next from being tried.

    Works in a folder and with an MLflow database of its own, which are gone afterwards.

    Raises:
        UsageError: there is no such family.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise UsageError(f"There is no family {', '.join(unknown)}; {explain_unknown_families(unknown)}.")
    with _workshop():
        return [_row(family) for family in dict.fromkeys(families or FAMILIES)]


def matrix_table(rows: Sequence[Row]) -> Table:
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
def _workshop() -> Iterator[None]:
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            connect()
            yield
        finally:
            os.environ["MLFLOW_TRACKING_URI"] = tracking


def _row(family: str) -> Row:
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
    failure = {}
    for name, step in steps.items():
        try:
            step()
        except Exception as error:  # whatever it is, it is this family's result
            log.exception("%s fails at '%s'", family, name)
            failure = {"failed_at": name, "error": f"{type(error).__name__}: {error}"}
            break
    row = Row(
        family,
        result="FAILED" if failure else "PASSED",
        seconds=round(time.monotonic() - start, 1),
        parameters=trial.parameters,
        **failure,
    )
    log.info("%s: %s", family, row.result)
    return row


class _Trial:
    """One family's way, by steps that follow one another."""

    _model: Prepared
    _titles: list[list[str]]

    def __init__(self, family: str) -> None:
        self.parameters: int | None = None
        self._family = family
        self._checkpoint = Path(family, "checkpoint")
        self._trained = Path(family, "trained")

    def open(self) -> None:
        """A model from scratch, written to a folder that is then its checkpoint."""
        settings = ModelSettings(family=self._family, checkpoint="scratch", scratch=_SIZE, **_LIMITS)
        texts = [*_TEXTS, *_EXAMPLES["title"]]
        card = Card(model=self._family, family=self._family, checkpoint="scratch", **_LIMITS)
        self._checkpoint.mkdir(parents=True)
        save_model(self._checkpoint, *open_checkpoint(settings, texts), card, settings.weights)
        settings = ModelSettings(family=self._family, checkpoint=str(self._checkpoint), **_LIMITS)
        self._model = prepare(self._family, settings, _ONE_STEP, texts)
        self.parameters = self._model.size()["parameters"]

    def shapes(self) -> None:
        """Logits for each token of each title, and a loss."""
        inputs = self._model.inputs
        batch = inputs.training_batch([inputs.example(*row) for row in _EXAMPLES[["text", "title"]].to_numpy()])
        with torch.inference_mode():
            output = self._model.network.eval()(**batch)
        expected, found = (*batch["labels"].shape, len(inputs.tokenizer)), tuple(output.logits.shape)
        if found != expected:
            raise Rejected(f"the logits are {found}; {expected} were expected")
        if not output.loss.isfinite():
            raise Rejected(f"the loss is {output.loss.item()}")

    def cached_steps(self) -> None:
        """The logits of whole titles, by which a model learns, from the cached steps by which it writes."""
        model, inputs = self._model.network.eval(), self._model.inputs
        start = [] if inputs.family.causal else decoder_start(model.config, inputs)
        titles = [[*start, *inputs.target(title)] for title in _EXAMPLES["title"]]
        titles = [title[: min(map(len, titles))] for title in titles]
        sources = [inputs.source(text) for text in _TEXTS]
        whole, steps = logits_at_once(model, inputs, sources, titles), logits_by_steps(model, inputs, sources, titles)
        difference = ((steps - whole).abs().max() / whole.std()).item()
        if not difference < _ROUNDING:
            raise Rejected(
                f"the logits of whole titles differ from those of cached steps by {difference:.4f} of their standard "
                "deviation: the model would learn another function than it writes with"
            )

    def train(self) -> None:
        """One step of the optimiser, which moves the weights."""
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
            raise Rejected(f"the training has the curves {curves.to_dict('records')}")
        after = [parameter.detach().cpu() for parameter in self._model.network.parameters()]
        if all(map(torch.equal, before, after)):
            raise Rejected("the step has left all weights as they were")

    def generate(self) -> None:
        """Two titles for each text, none empty."""
        self._titles = Titler(self._model.network, self._model.inputs, _GENERATE).titles(_TEXTS)
        for text, found in zip(_TEXTS, self._titles, strict=True):
            if len(found) != _GENERATE.candidates or not all(found):
                raise Rejected(f"'{text}' has the titles {found}")

    def reload(self) -> None:
        """The same titles from the model folder."""
        self._trained.mkdir()
        save_model(self._trained, self._model.network, self._model.inputs.tokenizer, self._model.card, "float32")
        self._compare(open_titler(self._trained, _GENERATE).titles(_TEXTS))

    def serve(self) -> None:
        """The same titles from the model as MLflow serves it."""
        served = mlflow.pyfunc.load_model(log_served_model(self._trained, _GENERATE).model_uri)
        self._compare(served.predict(_TEXTS)["candidates"].tolist())

    def _compare(self, titles: list[list[str]]) -> None:
        for text, found, before in zip(_TEXTS, titles, self._titles, strict=True):
            if found != before:
                raise Rejected(f"'{text}' has the titles {found}, and had {before}")
