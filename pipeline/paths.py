"""Paths of files and folders, relative to the project folder. `dvc.yaml` names the same paths."""

from pathlib import Path

PARAMS = Path("params.yaml")
CATALOGUE = Path("catalogue.yaml")

SAMPLE = Path("data/raw/sample.xlsx")
WORKBOOKS = Path("data/workbooks")
TOPICS = Path("data/interim/topics.parquet")
LINES = Path("data/interim/lines.parquet")
BROKEN_ROWS = Path("data/interim/broken_rows.parquet")
EXAMPLES = Path("data/examples/examples.parquet")
SET_ASIDE = Path("data/examples/set_aside.csv")
SPLITS = Path("data/splits")
TRAINING_SPLITS = {split: SPLITS / f"{split}.parquet" for split in ("train", "validation")}
TEST = SPLITS / "test.parquet"

EXPECTATIONS = Path("expectations")
DATA_DOCS = Path("reports/data_docs")
VALIDATION = Path("reports/validation.json")
SPLIT_VALIDATION = Path("reports/split_validation.json")

REPORTS = Path("reports")
RUN_REPORTS = REPORTS / "runs"  # of runs with parameters of their own

SETTINGS = Path("settings")
MODELS = Path("models")
BEST_MODEL = Path("best_model")
SEGMENTER = Path("segmenter")
TRAINING = Path("reports/training")
TITLES = Path("reports/titles")
METRICS = Path("reports/metrics")  # one file per model
STAGE_METRICS = METRICS / "stages"  # a folder, so that no model's name collides with a stage's
RESULTS = Path("reports/results")
PREDICTIONS = Path("reports/predictions")
SEARCHES = Path("reports/search")
COLLECTED = Path("reports/contestants.json")
CURVES = Path("reports/curves.csv")
BOUNDARIES = Path("reports/boundaries.json")
JOINT = Path("reports/joint.json")
LEADERBOARD = Path("reports/leaderboard.json")
LEADERBOARD_MD = Path("reports/leaderboard.md")
REPORT = Path("reports/report.html")
REGISTERED = Path("reports/registered.json")
DRIFT = Path("reports/drift.html")
DRIFT_JSON = Path("reports/drift.json")

EXPORTS = Path("exports")  # versions converted for fast inference: NAME/NUMBER

# Lectern's own state, outside version control and outside DVC's outputs.
STATE = Path(".lectern")
CHECKPOINTS = STATE / "checkpoints"  # interrupted trainings resume from these
RUN_COPIES = STATE / "runs"  # copies of the project, for runs with parameters of their own
CONVERTED = STATE / "converted"  # checkpoints converted from other formats
FETCHED = STATE / "fetched"  # registered models fetched from a bucket
FEATURES = STATE / "features"  # outputs of frozen layers: one folder per set of frozen weights
PASSAGE_VECTORS = FEATURES / "passages"  # outputs of the sentence encoder: one file per lesson
REGISTRY_LOCK = STATE / "registry.lock"  # held while a version is registered, promoted or rolled back
RUNNING = STATE / "running"  # a marker for each open MLflow run
