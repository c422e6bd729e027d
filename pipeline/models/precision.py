"""Decide from the hardware whether a model trains faster in bfloat16."""

from __future__ import annotations

from pathlib import Path

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from pipeline.files import write_text

_NARROW = 256  # below, casts and what stays in float32 take longer than the products gain
_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16")
"""Instructions that multiply matrices of bfloat16, by the names of `torch.cpu.get_capabilities`."""


def bfloat16_pays_from_start(model: PreTrainedModel, folder: Path) -> bool:
    """Return what `bfloat16_pays` said when `folder`, a training's own, was first asked about.

    A training that resumes on another machine, or that several processes share, keeps the precision it began with.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
