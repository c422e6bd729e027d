"""Promotion, rollback and their trail. The gate's rules have tests of their own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.registry import promotion
from pipeline.registry.gate import Verdict
from pipeline.registry.promotion import history_table, rollback, trail
from pipeline.registry.serving_trial import Trial
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_version
from tests.registry.small import NAME, aliases, make_champion, register, save_small_model


@pytest.mark.slow
def test_a_promotion_moves_the_champion_and_keeps_who_and_why(three_versions: MlflowClient) -> None:
    move = make_champion(three_versions, None, because="reads better")
    assert aliases(three_versions)["champion"] == "3"
    assert trail(three_versions, NAME) == [move]
    assert (move.before, move.because, bool(move.who)) == (None, "reads better", True)


def test_the_champion_is_served_before_the_challenger(three_versions: MlflowClient) -> None:
    assert int(get_version(three_versions, NAME, None).version) == 3
    make_champion(three_versions, 1)
    assert int(get_version(three_versions, NAME, None).version) == 1


def test_a_missing_version_cannot_be_promoted(three_versions: MlflowClient) -> None:
    with pytest.raises(UsageError, match="no version 9"):
        make_champion(three_versions, 9)


def test_the_champion_cannot_be_promoted_again(three_versions: MlflowClient) -> None:
    make_champion(three_versions, 2)
    with pytest.raises(Rejected, match="is already the champion"):
        make_champion(three_versions, 2)


def test_a_promotion_fails_if_another_machine_changes_the_champion_meanwhile(three_versions: MlflowClient) -> None:
    def judge(version: ModelVersion, _: ModelVersion | None) -> Verdict:
        three_versions.set_registered_model_alias(NAME, "champion", "2")
        return Verdict(str(version.version), None, [])

    with pytest.raises(TemporaryFailure, match="it is now version 2"):
        promotion.promote(three_versions, NAME, 1, because="", judge=judge)
    assert aliases(three_versions)["champion"] == "2"
    assert trail(three_versions, NAME) == []


@pytest.mark.slow
def test_a_champion_that_changes_while_the_evidence_is_sent_stays(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_champion(three_versions, 1)
    log_text = MlflowClient.log_text

    def promoted_meanwhile(client: MlflowClient, *words: str) -> None:
        log_text(client, *words)
        three_versions.set_registered_model_alias(NAME, "champion", "3")

    monkeypatch.setattr(MlflowClient, "log_text", promoted_meanwhile)
    with pytest.raises(TemporaryFailure, match="it is now version 3"):
        make_champion(three_versions, 2)
    assert aliases(three_versions)["champion"] == "3"
    assert [move.version for move in trail(three_versions, NAME)] == ["1"]


@pytest.mark.parametrize(
    ("promoted", "rolled_back_to"),
    [([1, 2, 3], ["2", "1"]), ([1, 2, 1, 3], ["1", "2", "1"])],
    ids=["each version once", "a version twice"],
)
@pytest.mark.usefixtures("served_here")
def test_each_rollback_goes_back_one_champion(
    promoted: list[int], rolled_back_to: list[str], three_versions: MlflowClient
) -> None:
    for number in promoted:
        make_champion(three_versions, number)
    assert [rollback(three_versions, NAME, because="").version for _ in rolled_back_to] == rolled_back_to
    assert aliases(three_versions)["champion"] == "1"
    with pytest.raises(Rejected, match="no earlier champion"):
        rollback(three_versions, NAME, because="")


@pytest.mark.usefixtures("served_here")
def test_a_rollback_keeps_its_evidence_with_the_version(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    move = rollback(three_versions, NAME, because="titles got longer")
    run_id = three_versions.get_model_version(NAME, "1").run_id
    evidence = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{move.evidence}"))
    assert evidence == {"move": asdict(move), "verdict": None}
    assert (move.action, move.because, move.forced) == ("rollback", "titles got longer", False)
    assert trail(three_versions, NAME)[-1] == move
    shown = Console(width=300)
    with shown.capture() as captured:
        shown.print(history_table(NAME, [move]))
    assert str(move.evidence) in captured.get()


@pytest.mark.usefixtures("served_here")
def test_a_promotion_killed_before_the_alias_moved_is_no_earlier_champion(three_versions: MlflowClient) -> None:
    for number in (1, 2, 3):
        make_champion(three_versions, number)
    three_versions.set_registered_model_alias(NAME, "champion", "2")  # as if killed before the alias moved
    assert rollback(three_versions, NAME, because="").version == "1"


@pytest.mark.usefixtures("served_here")
def test_a_killed_promotion_before_another_one_is_no_earlier_champion(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    three_versions.set_registered_model_alias(NAME, "champion", "1")
    make_champion(three_versions, 3)
    assert rollback(three_versions, NAME, because="").version == "1"


@pytest.mark.usefixtures("served_here")
def test_a_promotion_after_a_rollback_can_be_rolled_back(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    rollback(three_versions, NAME, because="")
    make_champion(three_versions, 3)
    assert rollback(three_versions, NAME, because="").version == "1"


@pytest.mark.usefixtures("served_here")
def test_a_rollback_starts_from_a_champion_that_another_tool_set(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    three_versions.set_registered_model_alias(NAME, "champion", "3")
    assert rollback(three_versions, NAME, because="").version == "2"


def test_a_rollback_fails_if_another_machine_changes_the_champion_meanwhile(
    three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)

    def promoted_meanwhile(*_: object) -> Trial:
        three_versions.set_registered_model_alias(NAME, "champion", "3")
        return Trial([["A title"]], 0, 0)

    monkeypatch.setattr(promotion, "try_version", promoted_meanwhile)
    with pytest.raises(TemporaryFailure, match="it is now version 3"):
        rollback(three_versions, NAME, because="")
    assert aliases(three_versions)["champion"] == "3"
    assert [move.version for move in trail(three_versions, NAME)] == ["1", "2"]


def test_a_rollback_to_a_deleted_version_changes_nothing(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    three_versions.delete_model_version(NAME, "1")
    with pytest.raises(Rejected, match=r"Version 1 .* was deleted"):
        rollback(three_versions, NAME, because="")
    assert aliases(three_versions)["champion"] == "2"
    assert len(trail(three_versions, NAME)) == 2


@pytest.mark.slow
def test_a_rollback_to_a_version_that_does_not_load_changes_nothing(three_versions: MlflowClient) -> None:
    for number in (1, 2):
        make_champion(three_versions, number)
    for weights in Path("mlartifacts").rglob("model.safetensors"):
        weights.write_bytes(b"damaged")
    with pytest.raises(Rejected, match="fails when it is served"):
        rollback(three_versions, NAME, because="")
    assert aliases(three_versions)["champion"] == "2"


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_a_rollback_to_a_version_that_writes_no_title_changes_nothing(
    project: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    client = connect()
    for family in ("t5", "causal"):
        register(client, save_small_model(tmp_path / family, examples, family))
        make_champion(client, None)
    with pytest.raises(Rejected, match="writes an empty title"):
        rollback(client, NAME, because="")
    assert aliases(client)["champion"] == "2"
