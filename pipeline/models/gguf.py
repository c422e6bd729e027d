"""GGUF checkpoints: converted once to a folder that opens in a moment, since reading GGUF takes many seconds."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

from pipeline.extras import require_extra
from pipeline.files import made_once
from pipeline.paths import CONVERTED

log = logging.getLogger(__name__)


def converted(path: Path, model_class: type) -> Path:
    """The folder with what the GGUF file at `path` holds, weights in float32 so that no bit of them is lost.

    Kept in `.lectern/converted` for every process that wants it, for as long as the file and transformers are the same.

    Args:
        model_class: the `AutoModelFor…` that reads it.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = CONVERTED / f"{path.stem}-{digest[:16]}-{transformers.__version__}"
    return made_once(folder, lambda aside: _convert(path, model_class, aside))


def _convert(path: Path, model_class: type, folder: Path) -> None:
    require_extra("gguf", user=f"The checkpoint {path.name}")
    log.info("converting %s, once", path.name)
    model = model_class.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # Its weights are plain numbers by now; transformers refuses to save a model that it remembers as a quantised one.
    del model.hf_quantizer, model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
