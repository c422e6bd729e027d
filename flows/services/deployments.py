"""Serves what `prefect.yaml` deploys, in the working directory and without a work pool, until it is stopped."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.deployments.schedules import create_deployment_schedule_create
from prefect.events import DeploymentTriggerTypes
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator

from pipeline.errors import UsageError

PREFECT_YAML = Path("prefect.yaml")


class Deployment(BaseModel):
    """What is read of an entry of `deployments`; how a work pool runs it is not for us."""

    name: str
    entrypoint: str
    description: str
    concurrency_limit: ConcurrencyLimitConfig
    schedule: Schedule | None = None
    parameters: dict[str, Any] = {}
    triggers: list[DeploymentTriggerTypes] = []

    @field_validator("schedule")
    @classmethod
    def _can_be_kept(cls, schedule: Schedule | None) -> Schedule | None:
        if schedule:
            create_deployment_schedule_create(schedule)
        return schedule

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"

    @property
    def when(self) -> str:
        if self.schedule is None:
            return "when it is started"
        return (
            f"{self.schedule.cron or self.schedule.rrule or self.schedule.interval}, {self.schedule.timezone or 'UTC'}"
        )

    @property
    def flow(self) -> Flow:
        file, _, name = self.entrypoint.partition(":")
        return getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)

    def to_serve(self) -> RunnerDeployment:
        return self.flow.to_deployment(
            self.name,
            schedule=self.schedule,
            description=self.description,
            parameters=self.parameters,
            triggers=self.triggers,
            concurrency_limit=self.concurrency_limit,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def read_deployments(path: Path = PREFECT_YAML) -> list[Deployment]:
    """Each entry of `path`.

    Raises:
        UsageError: the file is missing, or wrong; each wrong value is named.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(list[Deployment]).validate_python(content["deployments"])
    except FileNotFoundError:
        raise UsageError(f"{path} is not here. Take it back from version control.") from None
    except ValidationError as error:
        lines = [
            f"  deployments.{'.'.join(map(str, e['loc']))}: {e['msg']} (it is {e['input']!r})" for e in error.errors()
        ]
        raise UsageError("\n".join([f"{path} is wrong in {len(lines)} place(s):", *lines])) from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as deployments: {error}") from None


if __name__ == "__main__":
    serve(*(deployment.to_serve() for deployment in read_deployments()))
