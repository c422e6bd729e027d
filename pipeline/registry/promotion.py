"""Promote a version to champion, roll back, and keep the trail of both.

An MLflow alias has no history. So each move of the alias `champion` is kept as a tag of the registered model, and a
rollback reads these tags.
"""

from __future__ import annotations

import getpass
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.table import Table
from rich.text import Text

from pipeline.errors import Rejected, TemporaryFailure
from pipeline.registry.registry_database import CHAMPION
from pipeline.registry.serving_trial import try_version
from pipeline.registry.tracking import find_run
from pipeline.registry.tracking_store import sync_artifacts
from pipeline.registry.versions import (
    find_by_alias,
    find_by_number,
    find_registered_model,
    get_candidate,
    registry_lock,
)

if TYPE_CHECKING:
    from pipeline.registry.gate import Verdict

NO_REASON = "no reason given"
TRIAL_TEXT = "so in this part we look at how a learning rate that is too high makes the loss go up instead of down"
_TRAIL = "trail."
_EVIDENCE = {"promote": "promotions", "rollback": "rollbacks"}  # folders among the artifacts of a version's run


@dataclass(frozen=True)
class Move:
    """One move of the alias `champion`."""

    action: str  # promote | rollback
    version: str  # the champion after the move
    before: str | None  # the champion before the move
    who: str
    when: str  # UTC
    because: str
    evidence: str | None = None  # path of the move and its verdict among the artifacts of the version's run
    forced: bool = False  # promoted although the version failed the gate


Judge = Callable[[ModelVersion, ModelVersion | None], "Verdict"]
"""Judges a version against the champion."""


class PromotionRejected(Rejected):
    """The version fails a rule of the gate. The champion has not changed."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        super().__init__(f"Version {verdict.version} of '{name}' was not promoted. It fails:\n{verdict.failures()}")
        self.verdict = verdict


def promote(
    client: MlflowClient,
    name: str,
    number: int | None,
    *,
    because: str,
    judge: Judge,
    force: bool = False,
    who: str | None = None,
) -> tuple[Move, Verdict]:
    """Make a version the champion if `judge` lets it pass.

    Args:
        number: the version; None for the challenger.
        force: promote even if the verdict is negative; the trail records this.
        who: the person who promotes; None for the user of this process.

    Raises:
        UsageError: the version does not exist.
        Rejected: the version does not load, fails a rule, or is already the champion.
        TemporaryFailure: a version cannot be tried now, or another machine changed the champion meanwhile.
    """
    # Judged under the lock: of two promotions at once, the second is compared with the champion that the first made.
    with registry_lock():
        version, champion = get_candidate(client, name, number)
        verdict = judge(version, champion)
        if not verdict.passed and not force:
            raise PromotionRejected(name, verdict)
        return _move(client, "promote", version, champion, because, who, verdict), verdict


def find_promotion(client: MlflowClient, name: str, number: int | None, because: str, who: str | None) -> Move | None:
    """Find the promotion that `promote` with these arguments has already made, if it is the latest move.

    A caller that lost the connection during `promote` learns from this whether the promotion was made. If so, the tag
    of the version is written again, since it comes last and may be missing.
    """
    champion, moves = find_by_alias(client, name, CHAMPION), trail(client, name)
    if champion is None or not moves:
        return None
    last = moves[-1]
    if (last.action, last.version) != ("promote", str(champion.version)):
        return None
    if number not in (None, int(last.version)) or (last.because, last.who) != _reason_and_person(because, who):
        return None
    _tag_version(client, name, last)
    return last


def rollback(client: MlflowClient, name: str, *, because: str) -> Move:
    """Make the previous champion the champion again, if it loads and writes a title.

    Raises:
        Rejected: there is no previous champion, or it was deleted or does not work.
        TemporaryFailure: it cannot be tried now, or another machine changed the champion meanwhile.
    """
    with registry_lock():
        champion = find_by_alias(client, name, CHAMPION)
        line = champions(_completed(trail(client, name), champion))
        if champion is not None and line[-1:] != [str(champion.version)]:
            line.append(str(champion.version))  # the alias was moved by another tool, such as MLflow's web page
        if len(line) < 2:
            raise Rejected(f"'{name}' has no earlier champion to roll back to. `lectern history` lists all champions.")
        previous = find_by_number(client, name, int(line[-2]))
        if previous is None:
            raise Rejected(
                f"Version {line[-2]} of '{name}', the previous champion, was deleted. Promote another version."
            )
        [title] = try_version(previous, [TRIAL_TEXT]).titles
        if not title:
            raise Rejected(f"Version {line[-2]} of '{name}' writes an empty title. Promote another version.")
        return _move(client, "rollback", previous, champion, because)


def trail(client: MlflowClient, name: str) -> list[Move]:
    """Return every move of the champion alias, oldest first."""
    registered = find_registered_model(client, name)
    tags = registered.tags if registered else {}
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_TRAIL)]


def _completed(moves: list[Move], champion: ModelVersion | None) -> list[Move]:
    """Drop the moves whose process was killed after it wrote the trail and before it moved the alias."""
    champion_after = [move.before for move in moves[1:]] + [str(champion.version) if champion else None]
    return [
        move
        for move, version in zip(moves, champion_after, strict=True)
        if version == move.version or version != move.before
    ]


def champions(moves: list[Move]) -> list[str]:
    """Return the line of champions, the current one last. A rollback to a version removes the champions after it."""
    line: list[str] = []
    for move in moves:
        if move.action == "rollback":
            # A version may have been champion twice. The latest time counts, so that each rollback is one step.
            kept = next((end for end in range(len(line), 0, -1) if line[end - 1] == move.version), 0)
            line = line[:kept] or [move.version]
        elif line[-1:] != [move.version]:  # a promotion that was killed and repeated is in the trail twice
            line.append(move.version)
    return line


def history_table(name: str, moves: list[Move]) -> Table:
    """Format the trail for a terminal."""
    table = Table(title=f"Champions of '{name}'", title_justify="left")
    for column in ("when (UTC)", "what", "from", "to", "who", "because", "evidence"):
        table.add_column(column)
    for move in moves:
        what = f"{move.action}, forced" if move.forced else move.action
        cells = (move.when, what, move.before or "-", move.version, move.who, move.because, move.evidence or "-")
        table.add_row(*map(Text, cells))
    return table


def _move(
    client: MlflowClient,
    action: str,
    version: ModelVersion,
    before: ModelVersion | None,
    because: str,
    who: str | None = None,
    verdict: Verdict | None = None,
) -> Move:
    """Keep the evidence, write the trail, and move the alias `champion` from `before` to `version`."""
    name = version.name
    _require_champion(client, name, before)
    now = time.gmtime()
    because, who = _reason_and_person(because, who)
    run = find_run(client, version.run_id) if version.run_id else None
    path = f"{_EVIDENCE[action]}/version-{version.version}-{time.strftime('%Y%m%dT%H%M%SZ', now)}.json"
    move = Move(
        action=action,
        version=str(version.version),
        before=str(before.version) if before else None,
        who=who,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        because=because,
        evidence=path if run else None,
        forced=verdict is not None and not verdict.passed,
    )
    if run:
        evidence = {"move": asdict(move), "verdict": verdict.as_json() if verdict else None}
        client.log_text(run.info.run_id, json.dumps(evidence, indent=2, ensure_ascii=False), path)
        sync_artifacts(f"{run.info.artifact_uri}/{path}")
    # The trail comes before the alias, since a move without its tag could not be rolled back. The random part of the
    # key keeps two moves apart that two machines make at the same time.
    key = f"{_TRAIL}{len(trail(client, name)):06d}.{uuid.uuid4().hex[:8]}"
    _require_champion(client, name, before)  # again, because sending the evidence takes time
    client.set_registered_model_tag(name, key, json.dumps(asdict(move)))
    client.set_registered_model_alias(name, CHAMPION, move.version)
    _tag_version(client, name, move)
    return move


def _require_champion(client: MlflowClient, name: str, expected: ModelVersion | None) -> None:
    """Check that the champion is still `expected`: the registry lock holds only within this project's folder.

    Raises:
        TemporaryFailure: it is another version.
    """
    champion = find_by_alias(client, name, CHAMPION)
    if (champion.version if champion else None) != (expected.version if expected else None):
        raise TemporaryFailure(
            f"The champion of '{name}' changed while this command was running: "
            f"{f'it is now version {champion.version}' if champion else 'there is none now'}. "
            "Run the command again if you still want the change."
        )


def _reason_and_person(because: str, who: str | None) -> tuple[str, str]:
    """Fill in a missing reason and a missing person."""
    return because.strip() or NO_REASON, who or _user()


def _tag_version(client: MlflowClient, name: str, move: Move) -> None:
    client.set_model_version_tag(name, move.version, f"{move.action}.{move.when}", json.dumps(asdict(move)))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
