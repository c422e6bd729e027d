"""The modules that `tests.forking` imports once: everything that the commands `lectern` and `dvc` ever import.

Some modules read the environment or set up logging when they are imported. Each forked process imports these again,
which is quick because everything below them is loaded: `pipeline` itself, which `tests.forking` reloads, and those that
`forget_environment_readers` removes.
"""

import sys
from unittest.mock import patch

import dvc.cli
import dvc.commands.repro
import dvc.repo.reproduce  # noqa: F401
import evaluate  # noqa: F401
import mlflow.pyfunc  # noqa: F401
import prefect.context
import prefect.logging.configuration
import transformers.trainer  # noqa: F401

import pipeline.exports.export
import pipeline.inbox.title_inbox
import pipeline.monitoring.drift_report
import pipeline.registry.family_check
import pipeline.registry.gate
import pipeline.search.search
import pipeline.server.chapters_api
import pipeline.server.page
import pipeline.server.run_server
import pipeline.stages.compare
import pipeline.stages.predict
import pipeline.stages.register
import pipeline.stages.score
import pipeline.stages.train
import pipeline.stages.validate
import pipeline.titles.title_chapters
import pipeline.titles.workbook  # noqa: F401

with patch.object(prefect.logging.configuration, "setup_logging"):
    import flows.maintenance.backup
    import flows.maintenance.clean
    import flows.maintenance.lineage
    import flows.promote
    import flows.services.doctor
    import flows.services.up
    import flows.titles
    import flows.train
    import flows.watch  # noqa: F401


def forget_environment_readers() -> None:
    """Remove Prefect's entry module, which sets up logging, and `flows`, whose import triggers it."""
    for name in [*sys.modules]:
        if name == "prefect.main" or name.partition(".")[0] in ("flows", "lectern"):
            del sys.modules[name]


def read_environment() -> None:
    """Read Prefect's settings from the environment of a forked process, as its import does in a new process."""
    prefect.context.refresh_global_settings_context()
