"""Features of a model's frozen part: computed once, kept on disk, and used by every epoch and by later trainings.

For a sequence-to-sequence model they are the encoder's output. For a causal model, whose frozen part is its lower
layers, they are the hidden state behind the highest of them.

A training reads features rounded to bfloat16, whether they are kept or not, so the cache changes nothing of what is
learnt. Evaluation and serving never read them: both run the whole model in float32.
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

_KEPT_AS = torch.bfloat16
# A step of a decoder is short, and wants many texts; an encoder has enough to do with a few, and of more it would only
# pad more and leave the processor's cache.
_ENCODED_AT_ONCE = 2048
_SHARD_BYTES = 1 << 28
# What a configuration gains or loses when a model is saved and opened again.
_SAYS_NOTHING_OF_FEATURES = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def frozen_part(model: PreTrainedModel, family: Family) -> tuple[nn.Module, ...]:
    """What gives the same for the same text as long as the model is trained; empty where there is nothing.

    Of a sequence-to-sequence model its encoder; of a causal model the embedding and the layers below the lowest that
    trains.
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
    """The frozen part of one model as a table: a source's token ids → (tokens, width), rounded to bfloat16.

    Args:
        part: the frozen part, as `frozen_part` tells.
        half: whether they are computed in bfloat16 too, and not in the weights' own precision.
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
        """The features of `sources`: (batch, longest source, width), float32, padded with 0.

        Features that are not kept are computed. They are the same, bit by bit, as kept ones.
        """
        return pad([self._row(source).float() for source in sources], 0, self._inputs.side)

    def _row(self, source: list[int]) -> Tensor:
        name = _name(source)
        return self._shards[name] if name in self._shards else self._compute(source)

    def prepare(self, sources: Sequence[list[int]]) -> None:
        """Compute and keep the features of `sources` that are missing, unless the limit or the disk has no room.

        Features of other texts are removed where the limit leaves no room for both.
        """
        if not self._missing(sources):
            return
        if self._room(sources) > limit_bytes():
            log.info(
                "The features of %d texts take %.1f GB, more than LECTERN_FEATURES_GB allows. They are computed each "
                "time.",
                len(sources),
                self._room(sources) / 1e9,
            )
            return
        # Another process with the same frozen part may be about to compute the same.
        with self._shards.alone():
            self._prepare(sources)

    def _missing(self, sources: Sequence[list[int]]) -> list[list[int]]:
        return list({_name(source): source for source in sources if _name(source) not in self._shards}.values())

    def _prepare(self, sources: Sequence[list[int]]) -> None:
        if self._room(self._missing(sources)) + self._shards.bytes > limit_bytes():
            self._shards.clear()
        missing = self._missing(sources)
        if not missing:  # that process has computed them meanwhile
            return
        make_room(self._room(missing), keep=self._shards.folder)
        try:
            self._compute_and_keep(missing)
        except (OSError, SafetensorError) as error:
            lacking = machine_errors.translate_error(error)
            if lacking is None:
                raise
            log.warning("The features of %d texts are computed each time: %s", len(missing), lacking)

    def _room(self, sources: Sequence[list[int]]) -> int:
        """Bytes that the features of `sources` take."""
        return sum(map(len, sources)) * self._model.get_input_embeddings().embedding_dim * _KEPT_AS.itemsize

    def _compute_and_keep(self, sources: Sequence[list[int]]) -> None:
        computed: dict[str, Tensor] = {}
        for source in tqdm(sources, desc="features", unit="text", disable=not sys.stderr.isatty()):
            computed[_name(source)] = self._compute(source)
            if sum(tensor.nbytes for tensor in computed.values()) > _SHARD_BYTES:
                self._shards.add(computed)
                computed = {}
        self._shards.add(computed)

    def left_out(self) -> AbstractContextManager[None]:
        """While the block runs, a causal model's frozen layers pass on what they are given: it is fed from here."""
        if not self._inputs.family.causal:
            return nullcontext()
        return _passing_on(self._model.get_submodule(self._inputs.family.decoder_layers), range(self._layers))

    @torch.no_grad()
    def _compute(self, source: list[int]) -> Tensor:
        """The features of one source: (tokens, width), in bfloat16.

        A batch would round them differently from one batch to the next, so each source is computed on its own.
        """
        for module in self._part:
            module.eval()
        batch = {name: tensor.to(self._model.device) for name, tensor in self._inputs.batch([source]).items()}
        # In the precision that was asked for, whatever the precision of the training that reads them.
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            return self._run(self._model, batch)[0].to(_KEPT_AS).cpu()

    def _run(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        if not self._inputs.family.causal:
            return model.get_encoder()(**batch).last_hidden_state
        layers = model.get_submodule(self._inputs.family.decoder_layers)
        found: list[Tensor] = []
        hook = layers[self._layers - 1].register_forward_hook(lambda _module, _given, output: found.append(output))
        try:
            with _passing_on(layers, range(self._layers, len(layers))):
                model.base_model(**batch, position_ids=self._inputs.positions(batch["attention_mask"]), use_cache=False)
        finally:
            hook.remove()
        return found[0]


class Encoded:
    """What the encoder of one model, as it is now, makes of a few sources, in memory."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, inputs: Inputs, sources: Sequence[list[int]]) -> None:
        self._side = inputs.side
        self._rows: dict[tuple[int, ...], Tensor] = {}
        for part in micro_batches(sources, len, _ENCODED_AT_ONCE):
            states = model.get_encoder()(**send_to_device(inputs.batch(part), model.device)).last_hidden_state
            for source, row in zip(part, states.to(model.dtype), strict=True):
                self._rows[tuple(source)] = row[: len(source)]

    def __call__(self, sources: Sequence[list[int]]) -> Tensor:
        """(batch, longest source, width), padded with 0."""
        return pad([self._rows[tuple(source)] for source in sources], 0, self._side)

    def left_out(self) -> AbstractContextManager[None]:
        """Nothing: whoever is fed with these asks no encoder."""
        return nullcontext()


@contextmanager
def _passing_on(layers: nn.ModuleList, numbers: range) -> Iterator[None]:
    """While the block runs, the layers of these numbers return what they are given."""
    kept = [layers[number] for number in numbers]
    for number in numbers:
        layers[number] = _PassOn()
    try:
        yield
    finally:
        for number, layer in zip(numbers, kept, strict=True):
            layers[number] = layer


class _PassOn(nn.Module):
    """Stands where a layer was."""

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        return hidden_states


class _Shards:
    """The files of one frozen part. Each is written once, whole, by one process; several hold what all have written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        self._places: dict[str, safe_open] = {}
        self._look()
        if self._places:
            with suppress(FileNotFoundError):
                os.utime(folder)

    def _look(self) -> None:
        """Opens what lies there."""
        self.bytes = 0
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self._open(path)
            except FileNotFoundError:  # another process makes room
                continue
            except SafetensorError:
                log.warning("%s is damaged; what it held is computed again", path)
                path.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the block runs, no other process adds to these; what those before have added is here."""
        make_folder(self.folder)
        with FileLock(self.folder / "lock"):
            self._look()
            yield

    def clear(self) -> None:
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)
        self.bytes = 0
        self._places.clear()

    def _open(self, path: Path) -> None:
        # Memory-mapped, and still there for us when another process makes room.
        shard = safe_open(path, framework="pt")
        self.bytes += path.stat().st_size
        self._places |= dict.fromkeys(shard.keys(), shard)

    def add(self, features: dict[str, Tensor]) -> None:
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        with file_aside(path, durable=False) as aside:
            save_file(features, aside)
        self._open(path)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Tensor:
        return self._places[name].get_tensor(name)


def _name(source: Sequence[int]) -> str:
    return hashlib.blake2b(torch.tensor(source, dtype=torch.int32).numpy().tobytes(), digest_size=16).hexdigest()


def _telling(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """What `config` says of features, and what each configuration within it does."""
    return [
        (name, _telling(value) if isinstance(value, dict) else value)
        for name, value in sorted(config.items(), key=lambda item: str(item[0]))
        if name not in _SAYS_NOTHING_OF_FEATURES
    ]


def _fingerprint(model: PreTrainedModel, family: Family, part: tuple[nn.Module, ...], half: bool) -> str:
    """Of all that the features depend on, but for the source."""
    digest = hashlib.blake2b(digest_size=16)
    config = _telling(model.config.to_dict())
    digest.update(f"{family.name} {transformers.__version__} {torch.__version__} {config}".encode())
    # Other devices, and batches of several texts as in earlier releases, round differently.
    digest.update(f"{model.device.type}, {'bfloat16' if half else 'float32'}, each text alone".encode())
    for module in part:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
