"""Prefect flows that decide when and where Lectern's work runs. DVC's graph in `dvc.yaml` decides what runs."""

import pipeline  # noqa: F401 - first: it turns telemetry off in the environment, before Prefect is imported
