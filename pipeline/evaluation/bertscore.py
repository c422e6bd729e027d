"""BERTScore, example by example, and the finding of the model behind it."""

from __future__ import annotations

import contextlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from bert_score import BERTScorer
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from pipeline.errors import Misused, Refused
from pipeline.evaluation.metrics import BERT_SCORES

_LONGEST_TITLE_TOKENS = 512
_HUB_SECONDS = 5
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # never pickled weights
_WHAT_TO_DO = (
    "Set evaluate.bertscore_model in params.yaml to a model that is here: package:PACKAGE/PATH for one inside an "
    "installed package, a folder that transformers saved, or the name of a model on the Hugging Face hub."
)


class BertScore(evaluate.Metric):
    """BERTScore's precision, recall and F1 (Zhang et al., 2020: "BERTScore: Evaluating Text Generation with BERT"),
    not rescaled, without idf weights. `compute` gives a list for each score, one value an example.

    A pair with an empty title scores 0, which also keeps it away from bert_score, where it raises. Cosines below 0
    count as 0, and F1 is taken after that: two of unlike sign would give it any value.

    Args:
        model: `package:PACKAGE/PATH`, a folder, or a hub name, which may end in `@REVISION`.
        layers: the layer whose output is compared, counted from 1.
    """

    def __init__(self, model: str, layers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.layers = layers

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="BERTScore precision, recall and F1, one an example.",
            citation="Zhang et al., 2020. BERTScore: Evaluating Text Generation with BERT. ICLR.",
            inputs_description="predictions, references: lists of titles.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        pairs = list(zip(predictions, references, strict=True))
        worded = [place for place, pair in enumerate(pairs) if all(title.strip() for title in pair)]
        precision, recall = np.zeros(len(pairs)), np.zeros(len(pairs))
        if worded:
            # One pair a batch: in a larger one bert_score lets a padded place outdo a word whose best cosine is
            # below 0, and an example's score would depend on its neighbours.
            found = load_scorer(self.model, self.layers).score(
                [pairs[place][0] for place in worded], [pairs[place][1] for place in worded], batch_size=1
            )
            precision[worded], recall[worded] = (np.clip(part.numpy(), 0, 1) for part in found[:2])
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(pairs)), where=total > 0)
        return dict(zip(BERT_SCORES, (precision.tolist(), recall.tolist(), f1.tolist()), strict=True))


@cache
def load_scorer(model: str, layers: int) -> BERTScorer:
    """The one scorer of this process for `model`, cut after `layers` layers.

    Raises:
        Refused: the model cannot be had, or is not one that bert_score can use.
        Misused: it has fewer layers.
    """
    try:
        # bert_score takes every path with "t5" in it for a T5 model, so it is given a path without a name.
        with contextlib.chdir(find_model(model)):
            scorer = BERTScorer(model_type=".", num_layers=layers)
    except AssertionError as error:
        raise Misused(
            f"evaluate.bertscore_layers is {layers}, which BERTScore's model '{model}' has not: {error}."
        ) from None
    except (OSError, ValueError) as error:
        raise Refused(f"BERTScore's model '{model}' cannot be opened: {error}. {_WHAT_TO_DO}") from None
    # A tokenizer without a maximum length overflows.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _LONGEST_TITLE_TOKENS)
    return scorer


def find_model(model: str) -> Path:
    """The local folder that `model` stands for, fetched from the hub if it must and can be.

    Raises:
        Refused: it cannot be had, with what can be done.
    """
    if model.startswith("package:"):
        return _find_in_package(model.removeprefix("package:"))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    return _find_on_hub(model)


def _find_in_package(place: str) -> Path:
    package, _, inside = place.partition("/")
    # Found, never imported: only its files are wanted, and what it imports need not be installed.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise Refused(
            f"BERTScore's model is to come from the package '{package}', which is not installed. {_WHAT_TO_DO}"
        )
    folder = Path(found.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise Refused(
            f"BERTScore's model is to come from '{inside}' in the package '{package}', which has none. {_WHAT_TO_DO}"
        )
    return folder.resolve()


def _find_on_hub(model: str) -> Path:
    name, _, revision = model.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=_HUB_FILES, etag_timeout=_HUB_SECONDS)
        )
    except LocalEntryNotFoundError:
        why = "is no folder here, the hub cannot be reached, and its local cache does not hold it"
    except HFValidationError:
        why = "is no folder here and cannot be the name of a model on the hub"
    except HfHubHTTPError as error:
        why = f"is no folder here, and the hub refuses it ({error.response.status_code})"
    raise Refused(f"BERTScore's model '{model}' {why}. {_WHAT_TO_DO}")
