"""Check the calls of the page's functions before Gradio gets them.

Gradio by itself reads any file and fetches any address that a call names. Therefore each argument must have the type of
its field on the page, and a file must be one that the caller has uploaded.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import gradio as gr
from gradio.blocks import BlockFunction
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from pipeline.server.visitors import VisitorFiles

MOST_FILES = 20
"""Most files in an upload."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Session = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Table(BaseModel):
    headers: list[str]
    data: list[list[str | bool | int | _Finite | None]]


class _File(BaseModel):
    path: str
    meta: Annotated[dict[Literal["_type"], Literal["gradio.FileData"]], Field(min_length=1)]


class _FieldType(NamedTuple):
    """The values that a field of the page can hold, and their description in messages."""

    values: TypeAdapter[Any]
    expected: str


_FIELD_TYPES = {
    gr.Textbox: _FieldType(TypeAdapter(str | None), "text"),
    gr.Number: _FieldType(TypeAdapter(Annotated[_Finite, Field(ge=0)] | None), "a number of at least 0"),
    gr.Dropdown: _FieldType(TypeAdapter(str | None), "the text of one of its choices"),
    gr.Radio: _FieldType(TypeAdapter(str | None), "the text of one of its choices"),
    gr.Checkbox: _FieldType(TypeAdapter(bool), "true or false"),
    gr.CheckboxGroup: _FieldType(TypeAdapter(list[str]), "a list of the texts of its choices"),
    gr.Dataframe: _FieldType(TypeAdapter(_Table), "a table: {'headers': [text, ...], 'data': [[cell, ...], ...]}"),
    gr.File: _FieldType(
        TypeAdapter(Annotated[list[_File], Field(min_length=1, max_length=MOST_FILES)]),
        f"a list of up to {MOST_FILES} uploaded files: [{{'path': a path that /gradio_api/upload returned, 'meta': "
        "{'_type': 'gradio.FileData'}}]",
    ),
}
_UNKNOWN_FILE = (
    "This visitor has uploaded no such file. Upload it with POST /gradio_api/upload, then call with the path and the "
    "cookie of the answer. A file can be read once."
)


class InvalidCall(Exception):
    """A call that the page does not accept. `status` is the HTTP status of the answer."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


class _Body(BaseModel):
    """The body of a call, as Gradio's pages and clients send it. Other fields are dropped."""

    model_config = ConfigDict(extra="ignore")

    data: list[Any]
    session_hash: _Session | None = None
    fn_index: int | None = None


@dataclass(frozen=True)
class _Function:
    """A function of the page.

    name: its name in the API.
    inputs: the fields whose values it takes.
    names: the name of the argument for each of `inputs`.
    """

    index: int
    name: str
    inputs: list[gr.blocks.Block]
    names: list[str]

    @property
    def arguments(self) -> list[tuple[str, gr.blocks.Block]]:
        """The arguments that a caller gives. The other inputs are kept on the server."""
        return [(name, block) for name, block in zip(self.names, self.inputs, strict=True) if not _is_state(block)]


class PageCalls:
    """Checks the calls of the page's functions.

    Args:
        page: the page.
        files: the uploads of its visitors.
    """

    def __init__(self, page: gr.Blocks, files: VisitorFiles) -> None:
        self._files = files
        self._by_index = {index: _describe_function(index, each) for index, each in page.fns.items() if each.fn}
        self._by_name = {each.name: each for each in self._by_index.values()}

    def check_join(self, content: bytes, visitor: str) -> bytes:
        """Check the body of POST queue/join, which the page sends. Return the body for Gradio."""
        body = _parse_body(content)
        if body.session_hash is None:
            raise InvalidCall("The call has no session_hash. Add one of letters and digits.")
        function = self._by_index.get(body.fn_index if body.fn_index is not None else -1)
        if function is None:
            raise InvalidCall(f"The page has no function {body.fn_index}. /gradio_api/info lists them.", 404)
        return self._check_arguments(function, body, visitor)

    def check_call(self, name: str, content: bytes, visitor: str) -> bytes:
        """Check the body of POST call/NAME, which lists the arguments in order. Return the body for Gradio."""
        return self._check_arguments(self._find_function(name), _parse_body(content), visitor)

    def check_named_call(self, name: str, content: bytes, visitor: str) -> bytes:
        """Check the body of POST call/v2/NAME, which has arguments by name. Return the body of POST call/NAME."""
        function, given = self._find_function(name), _parse_json(content)
        if not isinstance(given, dict):
            raise InvalidCall("The call's body is not a JSON object. Send the arguments by name.")
        given = dict(given)
        session = given.pop("session_hash", None)
        known = [name for name, _ in function.arguments]
        if unknown := sorted({*given} - {*known}):
            raise InvalidCall(
                f"/{name} has no argument {_short(unknown[0])}. It takes {', '.join(known) or 'no arguments'}."
            )
        data = [given.get(argument, getattr(block, "value", None)) for argument, block in function.arguments]
        return self._check_arguments(function, _validate_body({"data": data, "session_hash": session}), visitor)

    def _find_function(self, name: str) -> _Function:
        if name not in self._by_name:
            raise InvalidCall(f"The page has no function {_short(name)}. /gradio_api/info lists them.", 404)
        return self._by_name[name]

    def _check_arguments(self, function: _Function, body: _Body, visitor: str) -> bytes:
        expected = function.arguments
        given = body.data
        if len(given) == len(function.inputs):
            given = [value for value, block in zip(given, function.inputs, strict=True) if not _is_state(block)]
        if len(given) != len(expected):
            names = ", ".join(name for name, _ in expected) or "none"
            raise InvalidCall(
                f"/{function.name} takes {len(expected)} argument(s) but got {len(body.data)}. "
                f"Send these, in this order: {names}."
            )
        checked = iter([self._check_value(value, *each, visitor) for value, each in zip(given, expected, strict=True)])
        data = [None if _is_state(block) else next(checked) for block in function.inputs]
        return json.dumps({"data": data, "session_hash": body.session_hash, "fn_index": function.index}).encode()

    def _check_value(self, value: Any, name: str, block: gr.blocks.Block, visitor: str) -> Any:
        field = _FIELD_TYPES[type(block)]
        try:
            value = field.values.validate_python(value)
        except (ValidationError, OverflowError):
            raise InvalidCall(f"The argument {name} must be {field.expected}.") from None
        match block:
            case gr.File():
                return [self._find_file(file.path, visitor) for file in value]
            case gr.Dataframe():
                return value.model_dump()
            case gr.Textbox():
                return value or ""
        return value

    def _find_file(self, path: str, visitor: str) -> dict[str, Any]:
        found = self._files.find(visitor, path)
        if found is None:
            raise InvalidCall(_UNKNOWN_FILE, 403)
        return {"path": str(found), "orig_name": found.name, "meta": {"_type": "gradio.FileData"}}


def _describe_function(index: int, function: BlockFunction) -> _Function:
    names = list(inspect.signature(function.fn).parameters)[: len(function.inputs)]
    for block in function.inputs:
        if not _is_state(block) and type(block) not in _FIELD_TYPES:
            raise TypeError(
                f"page_calls.py does not know the values of a {type(block).__name__}: add it to _FIELD_TYPES"
            )
    return _Function(index, str(function.api_name), list(function.inputs), names)


def _is_state(block: gr.blocks.Block) -> bool:
    return isinstance(block, gr.State)


def _parse_json(content: bytes) -> Any:
    try:
        parsed = json.loads(content)
        json.dumps(parsed, ensure_ascii=False).encode()
        return parsed
    except UnicodeEncodeError:
        raise InvalidCall("The call's body has half a character (a lone surrogate). Send valid Unicode.") from None
    except (ValueError, RecursionError):
        raise InvalidCall("The call's body is not JSON. Send a JSON object.") from None


def _parse_body(content: bytes) -> _Body:
    return _validate_body(_parse_json(content))


def _validate_body(body: Any) -> _Body:
    if not isinstance(body, dict):
        raise InvalidCall("The call's body is not a JSON object. Send {'data': [the arguments]}.")
    try:
        return _Body.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidCall(
            f"The call's body, {first['loc'][0]}: {first['msg']}. Send {{'data': [the arguments]}}. To continue an "
            "earlier session, add its session_hash of letters and digits."
        ) from None


def _short(name: str) -> str:
    return repr(name[:60]).encode("ascii", "backslashreplace").decode()
