"""Where things lie in a project folder, relative to it. `dvc.yaml` names the same places."""

from pathlib import Path

PARAMS = Path("params.yaml")
CATALOGUE = Path("catalogue.yaml")

SAMPLE = Path("data/raw/sample.xlsx")
WORKBOOKS = Path("data/workbooks")
TOPICS = Path("data/interim/topics.parquet")
LINES = Path("data/interim/lines.parquet")
EXAMPLES = Path("data/examples/examples.parquet")
SET_ASIDE = Path("data/examples/set_aside.csv")
SPLITS = Path("data/splits")
TRAINING_SPLITS = {split: SPLITS / f"{split}.parquet" for split in ("train", "validation")}

EXPECTATIONS = Path("expectations")
DATA_DOCS = Path("reports/data_docs")
VALIDATION = Path("reports/validation.json")
SPLIT_VALIDATION = Path("reports/split_validation.json")

SETTINGS = Path("settings")
MODELS = Path("models")
BEST_MODEL = Path("best_model")
TRAINING = Path("reports/training")
TITLES = Path("reports/titles")
METRICS = Path("reports/metrics")
RESULTS = Path("reports/results")
PREDICTIONS = Path("reports/predictions")
SEARCHES = Path("reports/search")
COLLECTED = Path("reports/contestants.json")
CURVES = Path("reports/curves.csv")
LEADERBOARD = Path("reports/leaderboard.json")
LEADERBOARD_MD = Path("reports/leaderboard.md")
REPORTS = Path("reports")
REPORT = Path("reports/report.html")
REGISTERED = Path("reports/registered.json")
DRIFT = Path("reports/drift.html")
RUN_REPORTS = REPORTS / "runs"  # of runs with parameters of their own
DRIFT_JSON = Path("reports/drift.json")

EXPORTS = Path("exports")  # versions converted for quick inference: NAME/NUMBER

# What the running system keeps for itself, outside version control and outside DVC's outputs.
STATE = Path(".lectern")
CHECKPOINTS = STATE / "checkpoints"  # from which interrupted trainings resume
RUN_COPIES = STATE / "runs"  # copies of the project, for runs with parameters of their own
CONVERTED = STATE / "converted"  # checkpoints of other formats, converted once
FETCHED = STATE / "fetched"  # registered models that lie in a bucket, fetched once
FEATURES = STATE / "features"  # what frozen weights make of texts: a folder for all of the same weights
REGISTRY_LOCK = STATE / "registry.lock"  # of whoever registers or promotes a version
RUNNING = STATE / "running"  # a mark for each MLflow run that is being written
