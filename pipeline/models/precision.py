"""Choose the precision of a training from the hardware, the model and the settings. Nothing is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from pipeline.files import make_folder, write_text
from pipeline.models.families import Family

_MIN_WIDTH = 256  # in narrower models, casts and float32 layers take longer than faster matrix products save
_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities` of instructions for bfloat16 matrix products."""


Precision = Literal["float32", "bfloat16", "float16"]


def training_precision(
    setting: Literal["auto", "float32", "bfloat16"], model: PreTrainedModel, family: Family, folder: Path
) -> Precision:
    """Return the precision of a training, which stays the same when the training resumes.

    `auto` chooses bfloat16 where `has_fast_bfloat16` says so. On other GPUs it chooses float16, except for families
    that overflow in it. On other CPUs it chooses float32.

    Args:
        setting: `precision` in `params.yaml`.
        model: The model to train.
        family: The model's family.
        folder: The training's own folder, which keeps the decision.
    """
    if setting != "auto":
        return setting
    if _started_in_bfloat16(model, folder):
        return "bfloat16"
    return "float16" if torch.cuda.is_available() and family.half_precision == "float16" else "float32"


def _started_in_bfloat16(model: PreTrainedModel, folder: Path) -> bool:
    """Return the answer of `has_fast_bfloat16` when the training in `folder` started.

    A training keeps its precision when it resumes on another machine, and in each of several processes.
    """
    make_folder(folder)
    decision = folder / "precision"
    with FileLock(f"{decision}.lock"):
        if not decision.exists():
            write_text(decision, "bfloat16" if has_fast_bfloat16(model) else "other")
        return decision.read_text(encoding="utf-8") == "bfloat16"


def has_fast_bfloat16(model: PreTrainedModel) -> bool:
    """Return whether the GPU, or else the CPU, has instructions for bfloat16, and a CPU's model is wide enough.

    The answer depends on hardware and model only, so a busy machine trains with the same precision as an idle one.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    width = model.get_input_embeddings().embedding_dim
    return width >= _MIN_WIDTH and any(capabilities.get(name) for name in _CPU_INSTRUCTIONS)
