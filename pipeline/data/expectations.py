"""Validate tables with Great Expectations against the suites in `expectations/`.

The suites are files in Great Expectations' own format: copied into the folder `expectations/` of a `gx` context, they
are suites of that context. Great Expectations reads and runs them. Lectern adds what it lacks: it drops an expectation
whose type it does not know and only logs that, its data docs need a network, and its results carry ids and times, so
that the same data gives other bytes.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_suite import ExpectationSuiteSchema
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context import AbstractDataContext
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.render.renderer.inline_renderer import InlineRenderer
from jinja2 import Environment, PackageLoader, StrictUndefined
from marshmallow import ValidationError

from pipeline.errors import Rejected, UsageError
from pipeline.files import folder_aside, write_json, write_text

_KEPT_VALUES = 20  # unexpected values in the result, for each expectation
_QUOTED_VALUES = 3  # unexpected values in a message
_LOG_LEVELS = {"warning": logging.WARNING, "info": logging.INFO}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnexpectedValue:
    """A value that does not meet an expectation, and its row in the workbook if that is known."""

    value: Any
    row: int | None


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation."""

    type: str
    columns: list[str]  # empty for an expectation about the whole table
    severity: str
    success: bool
    expected: str
    why: str
    found: str
    unexpected_count: int
    unexpected: list[UnexpectedValue]


@dataclass(frozen=True)
class TableResult:
    """The results of one table's suite."""

    table: str
    suite: str
    about: str
    rows: int
    outcomes: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of the expectations that are not met."""
        return [outcome for outcome in self.outcomes if not outcome.success]


def require_valid(
    tables: Mapping[str, pd.DataFrame], suites: Mapping[str, Path], result: Path, docs: Path | None = None
) -> None:
    """Validate each table against the suite of the same name, and write the results.

    The same data gives the same bytes. Both outputs are written whether the tables are valid or not.

    Args:
        tables: tables by name. The column `row` of a table, if it has one, holds each row's number in the workbook.
        suites: the path of each table's suite.
        result: the file for the results as JSON.
        docs: the folder for the results as a web page.

    Raises:
        UsageError: a suite is missing, is not valid JSON, or holds an invalid expectation.
        Rejected: a critical expectation is not met. Warnings and infos are logged and counted.
    """
    read = {name: _read_suite(name, suites[name]) for name in tables}  # all suites before the first validation
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    results = [
        TableResult(
            table=name,
            suite=str(suites[name]),
            about=_as_text(read[name].notes),
            rows=len(table),
            outcomes=_validate(context, name, table, read[name]),
        )
        for name, table in tables.items()
    ]
    critical = [(table, outcome) for table in results for outcome in table.failed if outcome.severity == "critical"]
    write_json(
        result,
        {
            "success": not critical,
            "failed": dict(Counter(outcome.severity for table in results for outcome in table.failed)),
            "tables": [asdict(table) for table in results],
        },
        durable=False,
    )
    if docs is not None:
        _write_docs(results, docs)

    for table in results:
        for outcome in table.failed:
            if outcome.severity != "critical":
                log.log(_LOG_LEVELS[outcome.severity], _describe(table, outcome))
    if critical:
        outputs = f"{docs / 'index.html'} and {result}" if docs is not None else f"{result}"
        files = ", ".join(dict.fromkeys(table.suite for table, _ in critical))
        raise Rejected(
            f"The data is not valid: {len(critical)} critical expectation(s) failed.\n"
            + "".join(f"  {_describe(table, outcome)}\n" for table, outcome in critical)
            + f"All expectations and more of the unexpected values: {outputs}.\n"
            f"Correct the data and try again. If an expectation is too strict, change it in {files}."
        )


def _read_suite(name: str, path: Path) -> gx.ExpectationSuite:
    try:
        content = ExpectationSuiteSchema().loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}, the suite of {name}, is missing. Restore it from version control.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not valid JSON: {error}. Correct it, or restore it from version control."
        ) from None
    except ValidationError as error:
        raise UsageError(f"{path} is not a suite of Great Expectations: {error}. Correct it.") from None
    if content.get("name") != name:
        raise UsageError(f"{path} is the suite of {content.get('name')}, not of {name}. Set its name to {name}.")
    if not content.get("expectations"):
        raise UsageError(f"{path} holds no expectations. Add one, or restore the file from version control.")
    expectations = [_build(entry, f"{path}, expectations[{n}]") for n, entry in enumerate(content["expectations"])]
    return gx.ExpectationSuite(name=name, expectations=expectations, notes=content.get("notes"))


def _build(expectation: ExpectationConfiguration, place: str) -> Expectation:
    """Build one expectation of a suite, for which a context then makes a new id."""
    try:
        built = expectation.to_domain_obj()
    except (GreatExpectationsError, TypeError, ValueError) as error:
        raise UsageError(
            f"{place}, {expectation.type}, is not an expectation of Great Expectations {gx.__version__}: {error}. "
            "Correct it."
        ) from None
    built.id = None
    return built


def _validate(
    context: AbstractDataContext, name: str, table: pd.DataFrame, suite: gx.ExpectationSuite
) -> list[Outcome]:
    """Run a suite on a table; return the outcomes in the order of the suite."""
    # Great Expectations reports the index of a value quickly, but takes minutes to report another column.
    by_row = table.set_axis(table["row"].to_numpy(), axis="index") if "row" in table else table
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = gx.ValidationDefinition(
        name=name, data=asset.add_batch_definition_whole_dataframe(name), suite=context.suites.add(suite)
    )
    results = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": by_row},
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": _KEPT_VALUES},
    )
    by_id = {result.expectation_config.id: result for result in results.results}
    return [_outcome(by_id[expectation.id], table) for expectation in suite.expectations]


def _outcome(result: ExpectationValidationResult, table: pd.DataFrame) -> Outcome:
    expectation = result.expectation_config
    kwargs = expectation.kwargs
    columns = [kwargs["column"]] if "column" in kwargs else list(kwargs.get("column_list", []))
    missing = [column for column in columns if column not in table]
    details = result.to_json_dict()["result"]
    return Outcome(
        type=expectation.type,
        columns=columns,
        severity=str(expectation.severity.value),
        success=bool(result.success),
        expected=expectation.description or _default_description(result),
        why=_as_text(expectation.notes),
        found=f"there is no column {', '.join(missing)}" if missing else _found(result, details),
        unexpected_count=details.get("unexpected_count", 0),
        unexpected=_unexpected_values(details, has_rows="row" in table),
    )


def _as_text(notes: str | list[str] | None) -> str:
    """Join notes, which a suite may hold as one text or as a list."""
    return " ".join([notes] if isinstance(notes, str) else notes or [])


def _found(result: ExpectationValidationResult, details: dict[str, Any]) -> str:
    info = result.exception_info or {}
    errors = [info] if "raised_exception" in info else info.values()
    if messages := sorted({error["exception_message"] for error in errors if error["raised_exception"]}):
        return f"the expectation cannot be evaluated ({' '.join(messages)})"
    if "unexpected_count" in details:
        count, total = details["unexpected_count"], details["element_count"]
        return f"{count:,} of {total:,} unexpected" if count else f"all {total:,} as expected"
    observed = details.get("observed_value")
    return ", ".join(observed) or "nothing" if isinstance(observed, list) else _format_value(observed)


def _default_description(result: ExpectationValidationResult) -> str:
    """Render Great Expectations' own sentence about an expectation, without markup."""
    block = next(block for block in InlineRenderer(result).get_rendered_content() if ".prescriptive." in block.name)
    values = {name: _format_value(param["value"]) for name, param in (block.value.params or {}).items()}
    return Template(block.value.template).safe_substitute(values)


def _format_value(value: Any) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _unexpected_values(details: dict[str, Any], *, has_rows: bool) -> list[UnexpectedValue]:
    values = details.get("partial_unexpected_list", [])
    values = [list(value.values()) if isinstance(value, dict) else value for value in values]
    rows = details["partial_unexpected_index_list"] if values and has_rows else [None] * len(values)
    return [UnexpectedValue(value, row) for value, row in zip(values, rows, strict=True)]


def _describe(table: TableResult, outcome: Outcome) -> str:
    """Describe a failed expectation in one line: `topics: Every topic has a title. Found: 1 of 3 unexpected, ...`."""
    quoted = "".join(f", {_quote(unexpected)}" for unexpected in outcome.unexpected[:_QUOTED_VALUES])
    return f"{table.table}: {outcome.expected} Found: {outcome.found}{quoted}. {outcome.why}"


def _quote(unexpected: UnexpectedValue) -> str:
    value = json.dumps(unexpected.value, ensure_ascii=False)
    value = value if len(value) <= 60 else f"{value[:57]}..."
    return f"{value} in row {unexpected.row}" if unexpected.row is not None else value


def _write_docs(results: list[TableResult], docs: Path) -> None:
    """Write the results as one page that works offline."""
    environment = Environment(
        loader=PackageLoader("pipeline.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("data_docs.html.j2").render(results=results, version=gx.__version__)
    with folder_aside(docs, durable=False) as aside:
        write_text(aside / "index.html", page, durable=False)
