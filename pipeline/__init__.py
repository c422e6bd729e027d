"""Lectern's pipeline: what each stage does. When and where it runs is for `flows/` and `dvc.yaml` to say."""

import os

# Libraries read these as they are imported, so they stand ahead of every other import.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
