"""ROUGE-1 between titles in any script."""

from __future__ import annotations

import pytest

from pipeline.evaluation.rouge import mean_rouge
from pipeline.evaluation.unicode_rouge import rouge1


@pytest.mark.parametrize(
    ("title", "other"),
    [
        ("Why the gradients' layers matter", "The layer matters: gradients, in 3 parts"),
        ("Réseaux récurrents été", "Les réseaux d'été"),
        ("Lớp học", "Học máy"),
        ("", "Trees"),
    ],
)
def test_titles_in_latin_script_score_as_on_the_leaderboard(title: str, other: str) -> None:
    assert rouge1([title], [other], stem=True) == [mean_rouge([title], [other])["rouge1"]]


def test_words_of_other_scripts_count() -> None:
    assert rouge1(["Деревья и графы"], ["деревья"]) == [0.5]
    assert rouge1(["PyTorch для графов"], ["Введение в PyTorch"]) == [pytest.approx(1 / 3)]
    assert rouge1(["勾配降下法"], ["勾配降下法"]) == [1.0]
    assert rouge1(["Деревья"], ["Графы"]) == [0.0]
