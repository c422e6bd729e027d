"""Lectern's pipeline: the work of each stage. `flows/` and `dvc.yaml` decide when and where a stage runs."""

import os
import sys

from pipeline.experiments import in_main_project

# Set before every other import, because libraries read these variables when they are imported.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not sys.stderr.isatty():
    # Progress bars would fill a log file.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# The default tracking server is a database in the project's folder.
os.environ["MLFLOW_TRACKING_URI"] = in_main_project(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
# Report a server that does not answer within seconds, not after MLflow's default of several minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
