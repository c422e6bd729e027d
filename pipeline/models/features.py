"""Cache the output of a model's frozen layers on disk, for all epochs and for later trainings.

The cached outputs are called features. For a sequence-to-sequence model with a frozen encoder they are the encoder's
output. For a causal model with frozen lower layers they are the hidden states after the highest frozen layer.

Features are rounded to bfloat16 even when they are not cached, so the cache does not change a training's result.
Evaluation and serving never use features: both run the whole model in float32.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import send_to_device
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from pipeline import machine_errors
from pipeline.files import file_aside, make_folder
from pipeline.models.disk_budget import limit_bytes, make_room
from pipeline.models.families import Family
from pipeline.models.inputs import Inputs, micro_batches, pad
from pipeline.paths import FEATURES

log = logging.getLogger(__name__)

_CACHE_DTYPE = torch.bfloat16
# Tokens that the encoder reads at once. Larger batches add padding and no longer fit the CPU's cache.
_ENCODER_BATCH_TOKENS = 2048
_SHARD_BYTES = 1 << 28
# Entries of a configuration that change when a model is saved and opened again, and that features do not depend on.
_IRRELEVANT_TO_FEATURES = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def frozen_part(model: PreTrainedModel, family: Family) -> tuple[nn.Module, ...]:
    """Return the modules whose output for a text stays the same during a training, or an empty tuple.

    They are the encoder of a sequence-to-sequence model, or the embedding and the lower layers of a causal model. They
    count only if all their parameters are frozen.
    """
    if not family.causal:
        encoder = model.get_encoder()
        return () if _trains(encoder) else (encoder,)
    lowest = [model.get_input_embeddings(), *model.get_submodule(family.decoder_layers)]
    frozen = tuple(itertools.takewhile(lambda module: not _trains(module), lowest))
    return frozen if len(frozen) > 1 else ()


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


class Features:
    """Features of one model's frozen part: one tensor (tokens, width) for the token ids of each source.

    Args:
        model: The model.
        inputs: The model's inputs.
        part: The model's `frozen_part`.
        half: Compute in bfloat16 instead of the weights' own precision.
    """

    def __init__(
        self, model: PreTrainedModel, inputs: Inputs, part: tuple[nn.Module, ...], *, half: bool = False
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._part = part
        self._layers = len(part) - 1
        self._half = half
        self._shards = _Shards(FEATURES / _fingerprint(model, inputs.family, part, half))

    def __call__(self, sources: Sequence[list[int]]) -> Tensor:
        """Return features as float32, (batch, longest source, width), padded with 0.

        Missing features are computed. They equal cached ones bit by bit.
        """
        return pad([self._row(source).float() for source in sources], 0, self._inputs.side)

    def _row(self, source: list[int]) -> Tensor:
        name = _name(source)
        return self._shards[name] if name in self._shards else self._compute(source)

    def prepare(self, sources: Sequence[list[int]]) -> None:
        """Compute and cache missing features, unless the limit or the disk has no room for them.

        Features of other texts are deleted if the limit has no room for them too.
        """
        if not self._missing(sources):
            return
        if self._size(sources) > limit_bytes():
            log.info(
                "The features of %d texts take %.1f GB, more than LECTERN_FEATURES_GB allows. They are computed in "
                "each epoch.",
                len(sources),
                self._size(sources) / 1e9,
            )
            return
        # Another process with the same frozen part may compute the same features now.
        with self._shards.locked():
            self._prepare(sources)

    def _missing(self, sources: Sequence[list[int]]) -> list[list[int]]:
        return list({_name(source): source for source in sources if _name(source) not in self._shards}.values())

    def _prepare(self, sources: Sequence[list[int]]) -> None:
        if self._size(self._missing(sources)) + self._shards.bytes > limit_bytes():
            self._shards.clear()
        missing = self._missing(sources)
        if not missing:  # the other process has computed them
            return
        make_room(self._size(missing), keep=self._shards.folder)
        try:
            self._compute_and_keep(missing)
        except (OSError, SafetensorError) as error:
            lacking = machine_errors.translate_error(error)
            if lacking is None:
                raise
            log.warning("The features of %d texts are computed in each epoch: %s", len(missing), lacking)

    def _size(self, sources: Sequence[list[int]]) -> int:
        """Return the bytes that the features of `sources` take."""
        return sum(map(len, sources)) * self._model.get_input_embeddings().embedding_dim * _CACHE_DTYPE.itemsize

    def _compute_and_keep(self, sources: Sequence[list[int]]) -> None:
        computed: dict[str, Tensor] = {}
        for source in tqdm(sources, desc="features", unit="text", disable=not sys.stderr.isatty()):
            computed[_name(source)] = self._compute(source)
            if sum(tensor.nbytes for tensor in computed.values()) > _SHARD_BYTES:
                self._shards.add(computed)
                computed = {}
        self._shards.add(computed)

    def frozen_layers_skipped(self) -> AbstractContextManager[None]:
        """Skip a causal model's frozen layers within the block: the model gets features, their output, as input."""
        if not self._inputs.family.causal:
            return nullcontext()
        return _layers_skipped(self._model.get_submodule(self._inputs.family.decoder_layers), range(self._layers))

    @torch.no_grad()
    def _compute(self, source: list[int]) -> Tensor:
        """Compute the features of one source: (tokens, width), in bfloat16.

        Each source is computed separately: within a batch, rounding depends on the other sources.
        """
        for module in self._part:
            module.eval()
        batch = {name: tensor.to(self._model.device) for name, tensor in self._inputs.batch([source]).items()}
        # Overrides an autocast of the caller.
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            return self._run_frozen_part(self._model, batch)[0].to(_CACHE_DTYPE).cpu()

    def _run_frozen_part(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        if not self._inputs.family.causal:
            return model.get_encoder()(**batch).last_hidden_state
        layers = model.get_submodule(self._inputs.family.decoder_layers)
        outputs: list[Tensor] = []
        hook = layers[self._layers - 1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
        try:
            with _layers_skipped(layers, range(self._layers, len(layers))):
                model.base_model(**batch, position_ids=self._inputs.positions(batch["attention_mask"]), use_cache=False)
        finally:
            hook.remove()
        return outputs[0]


class EncodedTexts:
    """Output of a model's encoder for a few sources, in memory."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, inputs: Inputs, sources: Sequence[list[int]]) -> None:
        self._side = inputs.side
        self._rows: dict[tuple[int, ...], Tensor] = {}
        for part in micro_batches(sources, len, _ENCODER_BATCH_TOKENS):
            states = model.get_encoder()(**send_to_device(inputs.batch(part), model.device)).last_hidden_state
            for source, row in zip(part, states.to(model.dtype), strict=True):
                self._rows[tuple(source)] = row[: len(source)]

    def __call__(self, sources: Sequence[list[int]]) -> Tensor:
        """Return the encoder's output, (batch, longest source, width), padded with 0."""
        return pad([self._rows[tuple(source)] for source in sources], 0, self._side)

    def frozen_layers_skipped(self) -> AbstractContextManager[None]:
        """Do nothing: a model skips its encoder when it gets the encoder's output."""
        return nullcontext()


@contextmanager
def _layers_skipped(layers: nn.ModuleList, numbers: range) -> Iterator[None]:
    """Replace the layers with these numbers by the identity within the block."""
    originals = [layers[number] for number in numbers]
    for number in numbers:
        layers[number] = _IdentityLayer()
    try:
        yield
    finally:
        for number, layer in zip(numbers, originals, strict=True):
            layers[number] = layer


class _IdentityLayer(nn.Module):
    """A layer that returns its input and ignores masks and positions."""

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        return hidden_states


class _Shards:
    """Feature files of one frozen part. Each file is written once, by one process, and never changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        self._files: dict[str, Any] = {}  # name of a source → its open file
        self._open_all()
        if self._files:
            with suppress(FileNotFoundError):
                os.utime(folder)  # recently used folders are deleted last

    def _open_all(self) -> None:
        """Open all files in the folder, and delete damaged ones."""
        self.bytes = 0
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self._open(path)
            except FileNotFoundError:  # another process has deleted it to make room
                continue
            except SafetensorError:
                log.warning("%s is damaged. Its features are computed again.", path)
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Open the files that other processes wrote, and stop these processes from adding more within the block."""
        make_folder(self.folder)
        with FileLock(self.folder / "lock"):
            self._open_all()
            yield

    def clear(self) -> None:
        """Delete all files."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)
        self.bytes = 0
        self._files.clear()

    def _open(self, path: Path) -> None:
        # Memory-mapped, so the file stays readable here after another process has deleted it.
        shard: Any = safe_open(path, framework="pt")
        self.bytes += path.stat().st_size
        self._files |= dict.fromkeys(shard.keys(), shard)

    def add(self, features: dict[str, Tensor]) -> None:
        """Write features, by the names of their sources, to a new file."""
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with file_aside(path, durable=False) as aside:
            save_file(features, aside)
        self._open(path)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)


def _name(source: Sequence[int]) -> str:
    """Return a hash of a source's token ids."""
    return hashlib.blake2b(torch.tensor(source, dtype=torch.int32).numpy().tobytes(), digest_size=16).hexdigest()


def _relevant_entries(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the entries of a configuration, and of those within it, that features may depend on."""
    return [
        (name, _relevant_entries(value) if isinstance(value, dict) else value)
        for name, value in sorted(config.items(), key=lambda item: str(item[0]))
        if name not in _IRRELEVANT_TO_FEATURES
    ]


def _fingerprint(model: PreTrainedModel, family: Family, part: tuple[nn.Module, ...], half: bool) -> str:
    """Return a hash of everything that features depend on, except the source."""
    digest = hashlib.blake2b(digest_size=16)
    config = _relevant_entries(model.config.to_dict())
    digest.update(f"{family.name} {transformers.__version__} {torch.__version__} {config}".encode())
    # Devices round differently, and so did earlier releases, which computed several texts in a batch or another GELU.
    precision = "bfloat16" if half else "float32"
    digest.update(f"{model.device.type}, {precision}, each text alone, GELU in one operation".encode())
    for module in part:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
