"""A search as a terminal shows it."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from pipeline.search.study import REASON, TODAY, StudyOnDisk

_ORDER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
_ROWS = 10


def trials_table(study: StudyOnDisk) -> Table:
    """A row a trial: the best first, then those that were pruned, then those that failed."""
    found = study.trials()
    sign = 1 if study.minimises else -1
    ranked = sorted(found, key=lambda trial: (_ORDER.index(trial.state), sign * (trial.value or 0.0)))
    shown = f"the first {_ROWS} of " if len(found) > _ROWS else ""
    table = Table(title=f"Search {study.name}: {shown}{len(found)} trials", title_justify="left")
    for column in ("trial", "state", study.metric, *study.space.ranges, "remark"):
        table.add_column(column)
    for trial in ranked[:_ROWS]:
        values = study.space.values(trial.params)
        table.add_row(
            str(trial.number),
            trial.state.name.lower(),
            "" if trial.value is None else f"{trial.value:.4f}",
            *(short(values.get(knob, "")) for knob in study.space.ranges),
            _remark(trial),
        )
    return table


def short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _remark(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get(REASON, "interrupted")
    return "as in params.yaml" if TODAY in trial.user_attrs else ""
