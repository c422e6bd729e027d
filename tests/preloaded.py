"""What `tests.command` imports once: all that the command imports at some time."""

import evaluate  # noqa: F401
import mlflow.pyfunc  # noqa: F401
import transformers.trainer  # noqa: F401

import pipeline.registry.gate
import pipeline.registry.matrix
import pipeline.search.search
import pipeline.stages.evaluate
import pipeline.stages.register
import pipeline.stages.train
import pipeline.stages.validate
import pipeline.titles.batch  # noqa: F401
