"""What the model really sees: the first examples, as its tokenizer cuts them."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from pipeline.models.inputs import IGNORED, Inputs


def preview(inputs: Inputs, examples: pd.DataFrame, rows: int = 4) -> str:
    """A batch of the first `rows` examples: tensor shapes, then each source and label sequence decoded."""
    chosen = [
        inputs.example(text, title)
        for text, title in zip(examples["text"][:rows], examples["title"][:rows], strict=True)
    ]
    batch = inputs.training_batch(chosen)
    lines = [f"{name}: {tuple(value.shape)}" for name, value in batch.items() if isinstance(value, Tensor)]
    for example in chosen:
        learnt = [token for token in example.labels if token != IGNORED]
        lines += ["", f"source ({len(example.source)} tokens): {inputs.tokenizer.decode(example.source)}"]
        lines += [f"label ({len(learnt)} tokens): {inputs.tokenizer.decode(learnt)}"]
    return "\n".join(lines) + "\n"
