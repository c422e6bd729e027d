"""Read sections of `params.yaml` as typed, checked settings, and write values back."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UsageError
from pipeline.files import file_aside
from pipeline.paths import CATALOGUE, PARAMS

if TYPE_CHECKING:
    from ruamel.yaml import YAML

MACHINE_SETTINGS = frozenset(
    {"device", "report_to", "micro_batch_tokens", "gradient_checkpointing", "checkpoint_minutes"}
)
"""Training settings that do not affect the weights: where a training runs, what it keeps and what it reports."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Settings(BaseModel):
    """A part of `params.yaml`: immutable, and strict about unknown settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class Section(Settings):
    """A top-level section of `params.yaml`, read by name."""

    section: ClassVar[str]

    @classmethod
    def read(cls, params: Path = PARAMS) -> Self:
        """Read the section from `params`.

        Raises:
            UsageError: the file or the section is missing, or values are wrong; the message names each wrong value.
        """
        return check(cls, read_params(params).get(cls.section), at=cls.section, params=params)


def read_params(params: Path = PARAMS) -> dict[str, Any]:
    """Read all of `params.yaml`. Only the names of models are checked.

    Raises:
        UsageError: the file is missing or is not a YAML mapping, or the name of a model is invalid.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{params} does not exist here. Run this command in the project's folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{params} is not valid YAML. Correct it: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(
            f"{params} has no sections such as 'split:'. Add them, or restore the file from version control."
        )
    _check_names(content, params)
    return content


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one; the later check of the section reports the error."""
    return value if isinstance(value, dict) else {}


def hint_at_catalogue(names: Iterable[object], catalogue: Path = CATALOGUE) -> str:
    """Return a sentence on how to add the models of `names` that the catalogue has; an empty text if it has none."""
    with suppress(UsageError):  # an error in the catalogue is not the error that the user must correct
        offered = [str(name) for name in names if name in mapping(read_params(catalogue).get("models"))]
        if offered:
            them = "them" if len(offered) > 1 else "it"
            return f" `lectern models add {' '.join(offered)}` copies {them} from {catalogue}."
    return ""


def unknown_model(model: str, models: Iterable[str]) -> UsageError:
    """Return the error for a model that has no entry among `models`, the names under `models` in params.yaml."""
    return UsageError(
        f"params.yaml has no model '{model}' under 'models'. Its models are {', '.join(models)}."
        f"{hint_at_catalogue([model])}"
    )


def train_settings(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the training settings of a model, its own before those of the section `train`; unchecked."""
    own = mapping(mapping(params.get("models")).get(model)).get("train")
    return {**mapping(params.get("train")), **mapping(own)}


def generate_settings(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the generation settings of a model, its own before the defaults; unchecked."""
    section = mapping(params.get("generate"))
    return {**mapping(section.get("default")), **mapping(mapping(section.get("models")).get(model))}


def read_contestants(params: Path = PARAMS) -> list[str]:
    """Read the names of the models to train and compare.

    Raises:
        UsageError: `params` names no model, or names one twice.
    """
    contestants = read_params(params).get("contestants")
    if not isinstance(contestants, list) or not contestants or not all(isinstance(name, str) for name in contestants):
        raise UsageError(f"{params} names no models under 'contestants'. Add at least one.")
    if len(set(contestants)) < len(contestants):
        raise UsageError(f"{params} names a model twice under 'contestants'. Remove one of the two.")
    return contestants


def _check_names(content: Mapping[str, Any], params: Path) -> None:
    """Check names of models: the graph uses them in file names and in shell commands."""
    for section in ("models", "contestants"):
        names = content.get(section)
        for name in names if isinstance(names, dict | list) else ():
            if not _NAME.fullmatch(str(name)):
                raise UsageError(
                    f"{params}, {section}: a model cannot be named {str(name)!r}. Start with a letter or a digit, and "
                    "use only letters, digits, dots, dashes and underscores."
                )


def round_trip() -> YAML:
    """Return a YAML reader and writer that keeps comments and layout."""
    from ruamel.yaml import YAML  # imported here: registered versions read settings but do not install ruamel

    ruamel = YAML()
    ruamel.preserve_quotes = True
    ruamel.width = 4096
    ruamel.indent(mapping=2, sequence=4, offset=2)
    ruamel.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return ruamel


def set_params(section: Sequence[str], values: Mapping[str, Any], params: Path = PARAMS) -> None:
    """Write `values` into a section of `params`; keep the rest of the file and all comments.

    Raises:
        UsageError: another section refers to this one through a YAML anchor and would change too.
    """
    ruamel = round_trip()
    content = ruamel.load(params.read_text(encoding="utf-8"))
    # Through PyYAML, because ruamel writes 1e-05, which is a text in YAML 1.1.
    written = ruamel.load(yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False))
    # Through JSON, which copies the values that YAML anchors share.
    expected = json.loads(json.dumps(read_params(params)))
    for whole, part in ((content, written), (expected, values)):
        functools.reduce(lambda within, name: within.setdefault(name, {}), section, whole).update(part)
    with file_aside(params) as path:
        with path.open("w", encoding="utf-8") as file:
            ruamel.dump(content, file)
        if read_params(path) != expected:
            raise UsageError(
                f"{params}: other sections share {'.'.join(section)} through an anchor (&, *, <<) and would change "
                "too. Edit the file by hand and give this section its own values."
            )


def check(kind: type[S], value: Any, *, at: str, params: Path = PARAMS) -> S:
    """Validate `value` as settings of type `kind`.

    Args:
        at: the dotted name of the place of `value` in `params`.

    Raises:
        UsageError: values are wrong; the message has one line for each.
    """
    if value is None:
        raise UsageError(f"{params} has no '{at}'. Add it, or restore it from version control.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        lines = [f"{'.'.join([at, *map(str, e['loc'])])}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
        raise UsageError(f"{params} is wrong in {len(lines)} place(s):\n  " + "\n  ".join(lines)) from None
