"""Keep the vectors of passages, so that a lesson is read by the encoder once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.chapters.embedding import embed
from pipeline.files import file_aside
from pipeline.paths import PASSAGE_VECTORS


def kept_vectors(passages: Sequence[str], encoder: str, kept: Path = PASSAGE_VECTORS) -> np.ndarray:
    """Embed passages, or return the vectors that an earlier call kept in the folder `kept`.

    Raises:
        Rejected: the encoder cannot be found or opened.
    """
    digest = hashlib.sha256("\n".join([encoder, *passages]).encode()).hexdigest()
    path = kept / f"{digest[:32]}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, or damaged by a crash
        vectors = embed(passages, encoder)
    kept.mkdir(parents=True, exist_ok=True)
    with file_aside(path, durable=False) as aside, aside.open("wb") as file:
        np.save(file, vectors)
    return vectors
