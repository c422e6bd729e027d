"""Imports run downward, names of modules are unique, and dvc.yaml names all the code of each stage."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROOMS = (
    "data",
    "models",
    "training",
    "evaluation",
    "transcripts",
    "chapters",
    "registry",
    "search",
    "exports",
    "monitoring",
    "titles",
    "inbox",
    "server",
    "maintenance",
    "command",
    "stages",
    "__main__",
)
SHARED = {
    "catalogue",
    "errors",
    "experiments",
    "extras",
    "files",
    "json_records",
    "machine_errors",
    "paths",
    "redaction",
    "settings",
    "terminal",
}

# Code that observes or starts a stage; a change of it makes no output stale.
EXEMPT = {
    *(Path("pipeline") / f"{name}.py" for name in SHARED),
    Path("pipeline/command.py"),
    Path("pipeline/registry/outages.py"),
    Path("pipeline/registry/tracking.py"),
    Path("pipeline/registry/training_log.py"),
    Path("pipeline/registry/lineage.py"),
}

# `settings.py` means the same in each room: the section of params.yaml that the room reads.
REPEATED_NAMES = {"__init__", "settings", "tables", "workbook"}

MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


class Imports(ast.NodeVisitor):
    """The dotted names that a module imports anywhere, except under TYPE_CHECKING."""

    def __init__(self, package: str) -> None:
        self.names: set[str] = set()
        self._package = package.split(".")

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parents = self._package[: len(self._package) - node.level + 1] if node.level else []
        origin = ".".join([*parents, *([node.module] if node.module else [])])
        self.names.update(f"{origin}.{alias.name}" for alias in node.names)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)


@cache
def imports(module: Path) -> frozenset[str]:
    visitor = Imports(package=".".join(module.parent.parts))
    visitor.visit(ast.parse((ROOT / module).read_text(encoding="utf-8")))
    return frozenset(visitor.names)


@cache
def imported_files(module: Path) -> frozenset[Path]:
    """Return the files of the pipeline that `module` imports, directly or through a name inside them."""
    return frozenset(file for name in imports(module) if (file := file_of(name)))


def file_of(name: str) -> Path | None:
    if not name.startswith("pipeline."):
        return None
    path = Path(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py"))
    return next((file for file in candidates if (ROOT / file).is_file()), None)


def code_of(module: Path) -> set[Path]:
    """Return `module` and all modules that it imports, directly or not, except for the exempt ones."""
    found, todo = {module}, [module]
    while todo:
        new = imported_files(todo.pop()) - found - EXEMPT
        found |= new
        todo += new
    return found


def room(module: Path) -> str:
    """Return the room of a module: `data` for `pipeline/data/examples.py`."""
    return module.with_suffix("").parts[1]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_from_rooms_below_its_own(module: Path):
    allowed = {*SHARED, "__init__"}
    if room(module) not in allowed:
        assert room(module) in ROOMS, f"{module} is in no room: {', '.join(ROOMS)}"
        allowed.update(ROOMS[: ROOMS.index(room(module)) + 1])
    upward = [str(file) for file in imported_files(module) if file.parts[0] == "pipeline" and room(file) not in allowed]
    assert not upward, f"{module} imports {', '.join(sorted(upward))}; imports run downward only: {' <- '.join(ROOMS)}"


@pytest.mark.parametrize(
    ("layer", "above"), [("pipeline", ("prefect", "dvc", "flows", "lectern")), ("flows", ("lectern",))]
)
def test_a_layer_imports_nothing_from_above(layer: str, above: tuple[str, ...]):
    for module in (path.relative_to(ROOT) for path in (ROOT / layer).rglob("*.py")):
        upward = {name for name in imports(module) if name.split(".")[0] in above}
        assert not upward, f"{module} imports {', '.join(sorted(upward))}"


def test_no_two_rooms_have_a_module_of_the_same_name():
    modules: dict[str, list[str]] = {}
    for module in MODULES:
        if room(module) != "stages" and module.stem not in REPEATED_NAMES:  # stages have the names in dvc.yaml
            modules.setdefault(module.stem, []).append(str(module))
    assert not [paths for paths in modules.values() if len(paths) > 1]


@pytest.mark.parametrize("stage", STAGES)
def test_the_dependencies_of_a_stage_name_all_its_code(stage: str):
    module = Path("pipeline/stages") / f"{stage}.py"
    assert (ROOT / module).is_file(), f"{module}, which stage {stage} runs, does not exist"
    definition = STAGES[stage]
    deps = {Path(dep) for dep in definition.get("do", definition)["deps"]}
    code = {file for file in code_of(module) if file.name != "__init__.py"}
    missing = sorted(str(file) for file in code if deps.isdisjoint([file, *file.parents]))
    assert not missing, f"dvc.yaml, stage {stage}, lacks the deps:\n" + "\n".join(f"- {file}" for file in missing)
