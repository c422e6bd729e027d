"""Whether data is fit: tables against the Great Expectations suites that stand in `expectations/` as JSON."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.registry import get_expectation_impl
from great_expectations.render.renderer.inline_renderer import InlineRenderer
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field

from pipeline.errors import Rejected, UsageError
from pipeline.files import folder_aside, write_json, write_text
from pipeline.settings import Settings, check

SHOWN = 20  # unexpected values that are kept of one expectation, and that Great Expectations hands out
NAMED = 3  # of these, how many stand in a message
LEVELS = {"warning": logging.WARNING, "info": logging.INFO}

log = logging.getLogger(__name__)


class Entry(Settings):
    """One expectation as it stands in a suite."""

    type: str  # as Great Expectations names it: expect_column_values_to_not_be_null
    kwargs: dict[str, Any]
    severity: Literal["critical", "warning", "info"]  # critical ones stop the pipeline
    description: str | None = None  # what is expected, where Great Expectations' own words are clumsy
    notes: str  # why it is expected, in plain words


class Suite(Settings):
    """A file in `expectations/`."""

    name: str  # the table that it describes
    notes: str
    expectations: list[Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Unexpected:
    """A value that does not meet an expectation, and its row in the workbook where that is known."""

    value: Any
    row: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation."""

    type: str
    columns: list[str]  # none: the table as a whole
    severity: str
    success: bool
    expected: str
    why: str
    found: str
    unexpected_count: int
    unexpected: list[Unexpected]


@dataclass(frozen=True)
class Verdict:
    """What became of one table's suite."""

    table: str
    suite: str
    about: str
    rows: int
    outcomes: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.success]


def require_fit(
    tables: dict[str, pd.DataFrame], suites: dict[str, Path], result: Path, docs: Path | None = None
) -> None:
    """Checks each table against the suite of the same name, and writes down what became of every expectation.

    `result` is JSON for programs and `docs` a folder with a page for people. Both are written whatever comes out, and
    the same data gives the same bytes. A table's column `row`, if it has one, says where its rows are in the workbook.

    Raises:
        UsageError: a suite is missing, is not valid JSON, or holds an expectation that there is not.
        Rejected: a critical expectation is not met. Others are only shown and counted.
    """
    expectations = {name: _read_suite(name, suites[name]) for name in tables}
    verdicts = [_validate(name, tables[name], suites[name], *expectations[name]) for name in tables]
    critical = [(v, o) for v in verdicts for o in v.failed if o.severity == "critical"]

    write_json(
        result,
        {
            "success": not critical,
            "failed": dict(Counter(outcome.severity for verdict in verdicts for outcome in verdict.failed)),
            "tables": [asdict(verdict) for verdict in verdicts],
        },
        durable=False,
    )
    if docs is not None:
        _write_docs(verdicts, docs)

    for verdict in verdicts:
        for outcome in verdict.failed:
            if outcome.severity != "critical":
                log.log(LEVELS[outcome.severity], _in_words(verdict, outcome))
    if critical:
        shown = f"{docs / 'index.html'} and {result}" if docs is not None else f"{result}"
        files = ", ".join(dict.fromkeys(verdict.suite for verdict, _ in critical))
        raise Rejected(
            f"The data is not fit: {len(critical)} critical expectation(s) are not met.\n"
            + "".join(f"  {_in_words(verdict, outcome)}\n" for verdict, outcome in critical)
            + f"Every expectation and more of the values: {shown}.\n"
            f"Correct the data and run this again; if an expectation asks too much, change it in {files}."
        )


def _read_suite(name: str, path: Path) -> tuple[Suite, list[Expectation]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}, the suite of {name}, is not here. Take it back from version control.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not valid JSON: {error}. Correct it, or take it back from version control."
        ) from None
    suite = check(Suite, content, at=name, params=path)
    if suite.name != name:
        raise UsageError(f"{path} is the suite of {suite.name}, and {name} are to be checked. Set its name to {name}.")
    expectations = []
    for place, entry in enumerate(suite.expectations):
        try:
            kind = get_expectation_impl(entry.type)
            words = {"severity": entry.severity, "description": entry.description, "notes": entry.notes}
            expectations.append(kind(**entry.kwargs, **words, meta={"place": place}))
        except (GreatExpectationsError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path}: {name}.expectations.{place}, {entry.type}, is not one that Great Expectations "
                f"{gx.__version__} understands: {error}"
            ) from None
    return suite, expectations


def _validate(name: str, table: pd.DataFrame, path: Path, suite: Suite, expectations: list[Expectation]) -> Verdict:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    # Great Expectations tells where a value stands by the table's index; asked for a column it takes minutes.
    by_row = table.set_axis(table["row"].to_numpy(), axis="index") if "row" in table else table
    batch = context.data_sources.add_pandas("lectern").read_dataframe(by_row, asset_name=name)
    results = batch.validate(
        gx.ExpectationSuite(name=name, expectations=expectations),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": SHOWN},
    )
    in_order = sorted(results.results, key=lambda result: result.expectation_config.meta["place"])
    outcomes = [_outcome(entry, result, table) for entry, result in zip(suite.expectations, in_order, strict=True)]
    return Verdict(name, str(path), suite.notes, len(table), outcomes)


def _outcome(entry: Entry, result: ExpectationValidationResult, table: pd.DataFrame) -> Outcome:
    columns = [entry.kwargs["column"]] if "column" in entry.kwargs else entry.kwargs.get("column_list", [])
    missing = [column for column in columns if column not in table]
    found = result.to_json_dict()["result"]
    return Outcome(
        type=entry.type,
        columns=columns,
        severity=entry.severity,
        success=result.success,
        expected=entry.description or _in_words_of_gx(result),
        why=entry.notes,
        found=f"there is no column {', '.join(missing)}" if missing else _found(result, found),
        unexpected_count=found.get("unexpected_count", 0),
        unexpected=_unexpected(found, has_rows="row" in table),
    )


def _found(result: ExpectationValidationResult, found: dict[str, Any]) -> str:
    info = result.exception_info or {}
    errors = [info] if "raised_exception" in info else info.values()
    if messages := sorted({error["exception_message"] for error in errors if error["raised_exception"]}):
        return f"it cannot be evaluated ({' '.join(messages)})"
    if "unexpected_count" in found:
        count, total = found["unexpected_count"], found["element_count"]
        return f"{count:,} of {total:,} not so" if count else f"all {total:,}"
    observed = found.get("observed_value")
    return ", ".join(observed) or "nothing" if isinstance(observed, list) else _plain(observed)


def _in_words_of_gx(result: ExpectationValidationResult) -> str:
    """Great Expectations' sentence on what is expected, without its markup."""
    block = next(block for block in InlineRenderer(result).get_rendered_content() if ".prescriptive." in block.name)
    values = {name: param["value"] for name, param in (block.value.params or {}).items()}
    return Template(block.value.template).safe_substitute({name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _unexpected(found: dict[str, Any], *, has_rows: bool) -> list[Unexpected]:
    values = found.get("partial_unexpected_list", [])
    values = [list(value.values()) if isinstance(value, dict) else value for value in values]
    rows = found["partial_unexpected_index_list"] if values and has_rows else [None] * len(values)
    return [Unexpected(value, row) for value, row in zip(values, rows, strict=True)]


def _in_words(verdict: Verdict, outcome: Outcome) -> str:
    named = "".join(f", {_named(unexpected)}" for unexpected in outcome.unexpected[:NAMED])
    return f"{verdict.table}: {outcome.expected} Found: {outcome.found}{named}. {outcome.why}"


def _named(unexpected: Unexpected) -> str:
    value = json.dumps(unexpected.value, ensure_ascii=False)
    value = value if len(value) <= 60 else f"{value[:57]}..."
    return f"{value} in row {unexpected.row}" if unexpected.row is not None else value


def _write_docs(verdicts: list[Verdict], docs: Path) -> None:
    """One page that asks nothing of a network: Great Expectations' own pages are blank without the scripts they fetch,
    and carry the time of day."""
    environment = Environment(
        loader=PackageLoader("pipeline.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("data_docs.html.j2").render(verdicts=verdicts, version=gx.__version__)
    with folder_aside(docs, durable=False) as aside:
        write_text(aside / "index.html", page, durable=False)
