"""What BERTScore's model is given to read."""

from __future__ import annotations

import pytest

from pipeline.evaluation import bertscore


def titles_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every title that it is given from now on, as often as it is; the list grows."""
    read: list[str] = []
    embed = bertscore.get_bert_embedding

    def noting(titles: list[str], *words: object, **more: object) -> object:
        read.extend(titles)
        return embed(titles, *words, **more)

    monkeypatch.setattr(bertscore, "get_bert_embedding", noting)
    return read
