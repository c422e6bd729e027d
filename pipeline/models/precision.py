"""Decide from the hardware and the settings in which precision a model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from pipeline.files import make_folder, write_text
from pipeline.models.families import Family

_NARROW = 256  # below, casts and what stays in float32 take longer than the products gain
_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16")
"""Instructions that multiply matrices of bfloat16, by the names of `torch.cpu.get_capabilities`."""


Precision = Literal["float32", "bfloat16", "float16"]


def training_precision(
    wanted: Literal["auto", "float32", "bfloat16"], model: PreTrainedModel, family: Family, folder: Path
) -> Precision:
    """The precision of the training whose checkpoints are in `folder`; the same each time it is asked for.

    On a GPU without bfloat16, `auto` takes float16, except for the families that overflow in it.
    """
    if wanted != "auto":
        return wanted
    if bfloat16_pays_from_start(model, folder):
        return "bfloat16"
    return "float16" if torch.cuda.is_available() and family.half_precision == "float16" else "float32"


def bfloat16_pays_from_start(model: PreTrainedModel, folder: Path) -> bool:
    """Return what `bfloat16_pays` said when `folder`, a training's own, was first asked about.

    A training that resumes on another machine, or that several processes share, keeps the precision it began with.
    """
    make_folder(folder)
    kept = folder / "precision"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            write_text(kept, "bfloat16" if bfloat16_pays(model) else "other")
        return kept.read_text(encoding="utf-8") == "bfloat16"


def bfloat16_pays(model: PreTrainedModel) -> bool:
    """Tell whether this machine's GPU, or else its CPU, has instructions for bfloat16, and the model is wide enough.

    The answer depends on the hardware and the model only, so that the same training gives the same scores however
    busy the machine is.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    width = model.get_input_embeddings().embedding_dim
    return width >= _NARROW and any(capabilities.get(name) for name in _CPU_INSTRUCTIONS)
