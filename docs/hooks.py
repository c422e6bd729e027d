"""Write the reference pages from the code when MkDocs builds the site, so that they are never out of date."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the site can be built where Lectern itself is not installed

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 128, 34, 150, 26


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/http-api.md": http_api_page(),
        "reference/stages.md": stages_page(),
        "reference/graph.svg": graph_svg(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_page() -> str:
    """List every command with its arguments and options, as Typer's own generator writes it."""
    words = [sys.executable, "-m", "typer", "lectern.app", "utils", "docs", "--name", "lectern", "--title", "Commands"]
    text = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    exit_codes = "All commands use the same [exit codes](../environment.md#exit-codes)."
    commands = text[text.index("\n## ") :]  # without the list at the top, whose sentences are cut off
    return f"# Commands\n\n{exit_codes}\n{commands}"


def settings_page() -> str:
    """Show params.yaml, whose comments explain each setting, and list the settings that it leaves out."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    catalogue = (ROOT / "catalogue.yaml").read_text(encoding="utf-8")
    stale = "[Which stages a setting makes stale](../architecture.md#what-a-change-reruns)"
    return (
        "# Settings\n\nAll settings are in `params.yaml`. Each section has the name of the stage or the command that "
        f"reads it. {stale} explains what a change reruns. The names, types and limits are checked before any work "
        f"starts, and all wrong values are reported at once.\n\n```yaml\n{text}```\n\n"
        "## Settings with a default\n\nFew people change these settings, so the file leaves them out. To change one, "
        "add it to its section.\n\n| Setting | Default | Meaning |\n|---|---|---|\n"
        f"{''.join(_defaults(yaml.safe_load(text)))}\n"
        "## More models\n\n`lectern models add NAME` copies an entry of `catalogue.yaml` into `params.yaml`.\n\n"
        f"```yaml\n{catalogue}```\n"
    )


def _defaults(params: dict[str, Any]) -> Iterator[str]:
    from pipeline.chapters.segmenter_training import SegmentSettings
    from pipeline.models.checkpoints import ModelSettings
    from pipeline.models.generation import GenerateSettings
    from pipeline.search.settings import SearchSettings
    from pipeline.training.settings import TrainSettings

    sections = {
        "train": (TrainSettings, params["train"]),
        "generate.default": (GenerateSettings, params["generate"]["default"]),
        "segment": (SegmentSettings, params["segment"]),
        "search": (SearchSettings, params["search"]),
        "models.MODEL": (ModelSettings, ["train"]),
    }
    for section, (settings, written) in sections.items():
        for name, field in settings.model_fields.items():
            if name not in written and not field.is_required():
                default = yaml.safe_dump(field.default).split("\n")[0]
                yield f"| `{section}.{name}` | `{default}` | {field.description} |\n"


def http_api_page() -> str:
    """Describe the HTTP API of `lectern serve` from its OpenAPI description."""
    api = _openapi()
    lines = [
        "# HTTP API",
        "",
        "`lectern serve` answers at `http://127.0.0.1:8080`. `/openapi.json` is the machine-readable description, and "
        "[Serve titles](../serving.md) has examples. Numbers in this page come from the section `serve` of "
        "`params.yaml`.",
    ]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            lines += ["", f"## `{method.upper()} {path}`", "", f"{operation.get('summary', '')}", ""]
            if "requestBody" in operation:
                lines += ["Request:", "", *_schema(api, operation["requestBody"])]
            lines += ["", "| Status | Meaning |", "|--:|---|"]
            lines += [f"| {code} | {each['description']} |" for code, each in sorted(operation["responses"].items())]
            if "200" in operation["responses"]:
                lines += ["", "Answer:", "", *_schema(api, operation["responses"]["200"])]
    return "\n".join(lines) + "\n"


def _openapi() -> dict[str, Any]:
    """Build the application without a version: it is described, not run."""
    from pipeline.server.chapters_api import add_chapters_api
    from pipeline.server.settings import ServeSettings
    from pipeline.server.titles_api import create_app

    settings = ServeSettings.read(ROOT / "params.yaml")
    app = create_app(None, None, settings)
    add_chapters_api(app, None, settings)
    return app.openapi()


def _schema(api: dict[str, Any], body: dict[str, Any]) -> Iterator[str]:
    schema = body["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    properties = api["components"]["schemas"].get(name, {}).get("properties", {})
    yield from ("| Field | Type | Meaning |", "|---|---|---|")
    for field, each in properties.items():
        kind = each.get("type") or " or ".join(option.get("type", "") for option in each.get("anyOf", []))
        yield f"| `{field}` | {kind} | {each.get('description', '')} |"


def stages_page() -> str:
    """List the stages of dvc.yaml with what they read and write."""
    rows = []
    for name, stage in _stages().items():
        outputs = ", ".join(f"`{path}`" for path in _outputs(stage))
        rows.append(f"| `{name}` | {stage['desc']} | {outputs} |")
    return "\n".join(
        [
            "# Stages",
            "",
            "`dvc.yaml` is the pipeline's only graph. `dvc repro` and `lectern run` run it with the same cache. The "
            "code of a stage is `pipeline/stages/STAGE.py`. `train`, `predict` and `score` run once for each "
            "contestant, as `train@t5` for example.",
            "",
            "![The stages and what they depend on](graph.svg)",
            "",
            "| Stage | What it does | Output |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _stages() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in content.items()}


def _outputs(stage: dict[str, Any]) -> list[str]:
    listed = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [(each if isinstance(each, str) else next(iter(each))).replace("${item}", "MODEL") for each in listed]


def _graph() -> nx.DiGraph:
    stages = _stages()
    graph = nx.DiGraph()
    graph.add_nodes_from(stages)
    sample = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["ingest"]["workbook"]
    for name, stage in stages.items():
        for needed in stage.get("deps", []):
            path = needed.replace("${item}", "MODEL").replace("${ingest.workbook}", sample)
            for other, written in stages.items():
                if any(_overlap(path, output) for output in _outputs(written)) and other != name:
                    graph.add_edge(other, name)
    return nx.transitive_reduction(graph)


def _overlap(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


def graph_svg() -> str:
    """Draw the stages in rows, each below all stages it depends on."""
    graph = _graph()
    rows = [sorted(names, reverse=True) for names in nx.topological_generations(graph)]
    width = max(len(names) for names in rows) * (BOX_WIDTH + GAP_X)
    height = len(rows) * (BOX_HEIGHT + GAP_Y)
    tops = {
        name: (width / 2 + (place - (len(names) - 1) / 2) * (BOX_WIDTH + GAP_X), row * (BOX_HEIGHT + GAP_Y) + GAP_Y / 2)
        for row, names in enumerate(rows)
        for place, name in enumerate(names)
    }
    shapes = []
    for before, after in graph.edges:
        (x1, y1), (x2, y2) = tops[before], tops[after]
        y1, y2 = y1 + BOX_HEIGHT, y2 - 5
        curve = f"M{x1},{y1} C{x1},{y1 + GAP_Y} {x2},{y2 - GAP_Y} {x2},{y2}"
        shapes.append(f'<path d="{curve}" fill="none" stroke="#789" stroke-width="1.5" marker-end="url(#arrow)"/>')
    for name, (x, y) in tops.items():
        shapes.append(
            f'<rect x="{x - BOX_WIDTH / 2}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
            f'fill="#eef3f8" stroke="#567"/><text x="{x}" y="{y + 22}" text-anchor="middle">{_label(name)}</text>'
        )
    arrow = (
        '<marker id="arrow" markerWidth="8" markerHeight="8" refX="5" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#789"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="14" fill="#123"><defs>{arrow}</defs>{"".join(shapes)}</svg>'
    )


def _label(name: str) -> str:
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return f"{name}@MODEL" if "foreach" in content[name] else name
