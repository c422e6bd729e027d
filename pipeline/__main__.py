"""Run one stage: `python -m pipeline STAGE [MODEL]`, as dvc.yaml does."""

import sys

from pipeline.command import run_command
from pipeline.stages import run_stage

if __name__ == "__main__":  # child processes of a stage import this file too
    run_command(lambda: run_stage(*sys.argv[1:]))
