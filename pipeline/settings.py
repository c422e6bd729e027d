"""`params.yaml`: a section of it as a typed, checked settings object, and values written back."""

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
"""Training settings for the machine: where a training runs, what it keeps and reports. They decide no weights."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Settings(BaseModel):
    """A part of `params.yaml`: immutable, and without a place for a misspelt knob."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class Section(Settings):
    """A top-level section of `params.yaml`, read by name."""

    section: ClassVar[str]

    @classmethod
    def read(cls, params: Path = PARAMS) -> Self:
        """The section as `params` holds it.

        Raises:
            UsageError: the file or the section is missing, or a value in it is wrong; each wrong value is named.
        """
        return check(cls, read_params(params).get(cls.section), at=cls.section, params=params)


def read_params(params: Path = PARAMS) -> dict[str, Any]:
    """All of `params.yaml`, unchecked but for the names of its models.

    Raises:
        UsageError: the file is missing or is not a YAML mapping, or a model has a name that is none.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{params} is not here. Run this in the project's folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{params} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{params} must hold sections such as 'split:', and holds none.")
    _check_names(content, params)
    return content


def mapping(value: object) -> Mapping[str, Any]:
    """`value`; an empty mapping where it is none: what is wrong with it is for whoever checks it to say."""
    return value if isinstance(value, dict) else {}


def hint_at_catalogue(names: Iterable[object], catalogue: Path = CATALOGUE) -> str:
    """A sentence, after a space, on how to get those models of `names` that the catalogue offers; empty if none."""
    with suppress(UsageError):  # no catalogue, or a damaged one, is not what the user asked about
        offered = [str(name) for name in names if name in mapping(read_params(catalogue).get("models"))]
        if offered:
            them = "them" if len(offered) > 1 else "it"
            return f" `lectern models add {' '.join(offered)}` takes {them} from {catalogue}."
    return ""


def train_settings(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Merge the `train` section with the model's own `train` entry, which takes precedence. The result is unchecked."""
    own = mapping(mapping(params.get("models")).get(model)).get("train")
    return {**mapping(params.get("train")), **mapping(own)}


def generate_settings(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Generation settings of a model: the defaults with its own settings; unchecked."""
    section = mapping(params.get("generate"))
    return {**mapping(section.get("default")), **mapping(mapping(section.get("models")).get(model))}


def read_contestants(params: Path = PARAMS) -> list[str]:
    """The names of the models that take part.

    Raises:
        UsageError: `params` names none, or one twice.
    """
    contestants = read_params(params).get("contestants")
    if not isinstance(contestants, list) or not contestants or not all(isinstance(name, str) for name in contestants):
        raise UsageError(f"{params} names no models under 'contestants'. Switch on at least one.")
    if len(set(contestants)) < len(contestants):
        raise UsageError(f"{params} names a model twice under 'contestants'.")
    return contestants


def _check_names(content: Mapping[str, Any], params: Path) -> None:
    """The graph makes files and a shell's words of the models' names."""
    for section in ("models", "contestants"):
        names = content.get(section)
        for name in names if isinstance(names, dict | list) else ():
            if not _NAME.fullmatch(str(name)):
                raise UsageError(
                    f"{params}, {section}: a model cannot be named {str(name)!r}. Use letters, digits, dashes and "
                    "underscores, and begin with a letter or a digit."
                )


def round_trip() -> YAML:
    """A YAML reader and writer that keeps comments and layout."""
    from ruamel.yaml import YAML  # a registered version only reads settings, and does not install it

    ruamel = YAML()
    ruamel.preserve_quotes = True
    ruamel.width = 4096
    ruamel.indent(mapping=2, sequence=4, offset=2)
    ruamel.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return ruamel


def set_params(section: Sequence[str], values: Mapping[str, Any], params: Path = PARAMS) -> None:
    """Writes `values` into that section of `params` and keeps the rest of it, comments included, as it is.

    Raises:
        UsageError: other sections would change too, since they take theirs from it.
    """
    ruamel = round_trip()
    content = ruamel.load(params.read_text(encoding="utf-8"))
    # ruamel itself would write 1e-05, which YAML 1.1, as others read it, takes for a text.
    written = ruamel.load(yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False))
    # Through JSON, which knows no anchors: nothing in it is at two places at once.
    expected = json.loads(json.dumps(read_params(params)))
    for whole, part in ((content, written), (expected, values)):
        functools.reduce(lambda within, name: within.setdefault(name, {}), section, whole).update(part)
    with file_aside(params) as path:
        with path.open("w", encoding="utf-8") as file:
            ruamel.dump(content, file)
        if read_params(path) != expected:
            raise UsageError(
                f"{params}: others share {'.'.join(section)} through an anchor (&, *, <<), and would change with it. "
                "Write it by hand, apart from theirs."
            )


def check(kind: type[S], value: Any, *, at: str, params: Path = PARAMS) -> S:
    """`value` as settings of `kind`; `at` is its dotted place in `params`.

    Raises:
        UsageError: with one line for every value that is wrong.
    """
    if value is None:
        raise UsageError(f"{params} has no '{at}'. Add it, or take it back from version control.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        lines = [f"{'.'.join([at, *map(str, e['loc'])])}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
        raise UsageError(f"{params} is wrong in {len(lines)} place(s):\n  " + "\n  ".join(lines)) from None
