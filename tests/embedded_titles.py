"""Record the titles that BERTScore embeds."""

from __future__ import annotations

import pytest

from pipeline.evaluation import bertscore


def record_embedded_titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each embedded title is appended from now on, with repetitions."""
    embedded: list[str] = []
    embed = bertscore.get_bert_embedding

    def recording_embed(titles: list[str], *args: object, **kwargs: object) -> object:
        embedded.extend(titles)
        return embed(titles, *args, **kwargs)

    monkeypatch.setattr(bertscore, "get_bert_embedding", recording_embed)
    return embedded
