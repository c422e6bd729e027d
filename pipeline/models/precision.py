"""The precision that a training computes in: half where it is faster, here."""

from __future__ import annotations

import timeit
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from pipeline.files import make_folder, write_text
from pipeline.models.families import Family

_TOKENS = 512
_NARROW = 256  # below, what is cast and what stays in float32 outweigh the products
_GAIN = 1.5  # times faster, at least: casting costs, and a measurement errs


Precision = Literal["float32", "bfloat16", "float16"]


def training_precision(
    wanted: Literal["auto", "float32", "bfloat16"], model: PreTrainedModel, family: Family, folder: Path
) -> Precision:
    """The precision of the training whose checkpoints are in `folder`; the same each time it is asked for.

    On a GPU without bfloat16, `auto` takes float16, except for the families that overflow in it.
    """
    if wanted != "auto":
        return wanted
    if bfloat16_paid(model, folder):
        return "bfloat16"
    return "float16" if torch.cuda.is_available() and family.half_precision == "float16" else "float32"


def bfloat16_paid(model: PreTrainedModel, folder: Path) -> bool:
    """`bfloat16_pays` as it was when first asked for `folder`: whoever shares a training, or goes on with it, computes
    as it began."""
    make_folder(folder)
    kept = folder / "precision"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            write_text(kept, "bfloat16" if bfloat16_pays(model) else "other")
        return kept.read_text(encoding="utf-8") == "bfloat16"


def bfloat16_pays(model: PreTrainedModel) -> bool:
    """Whether the device that `model` will be on computes it so much faster in bfloat16 that a training gains by it.

    A GPU says so itself. A processor is measured: with instructions for it (AVX512-BF16, AMX) it multiplies matrices
    several times faster than in float32, without them more slowly.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    width = model.get_input_embeddings().embedding_dim
    return width >= _NARROW and _gain(width) > _GAIN


@cache
def _gain(width: int) -> float:
    return _seconds(width, torch.float32) / _seconds(width, torch.bfloat16)


def _seconds(width: int, dtype: torch.dtype) -> float:
    """Of one product of hidden states with a feed-forward layer's matrix: the least of several, which is the least
    disturbed by others at the machine."""
    states, weights = torch.ones(_TOKENS, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
    return min(timeit.repeat(lambda: states @ weights, number=1, repeat=7))
