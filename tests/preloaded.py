"""What `tests.forking` imports once: all that the commands `lectern` and `dvc` import at some time."""

import dvc.cli
import dvc.commands.repro
import dvc.repo.reproduce  # noqa: F401
import evaluate  # noqa: F401
import mlflow.pyfunc  # noqa: F401
import transformers.trainer  # noqa: F401

import pipeline.registry.family_check
import pipeline.registry.gate
import pipeline.search.search
import pipeline.stages.compare
import pipeline.stages.predict
import pipeline.stages.register
import pipeline.stages.score
import pipeline.stages.train
import pipeline.stages.validate
import pipeline.titles.workbook  # noqa: F401
