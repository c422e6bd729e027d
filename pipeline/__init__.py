"""Lectern's pipeline: what each stage does. When and where it runs is for `flows/` and `dvc.yaml` to say."""

import os
import sys

from pipeline.experiments import in_main_project

# Libraries read these as they are imported, so they stand ahead of every other import.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not sys.stderr.isatty():
    # A bar that nobody watches fills a log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# The tracking server, unless the environment names another: a database in the project's folder.
os.environ["MLFLOW_TRACKING_URI"] = in_main_project(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
# One that is away should be known in seconds, not after the library's minutes of patience.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
