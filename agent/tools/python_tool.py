"""A tool that is a Python function: its type hints are the schema, its docstring the words.

    async def order_status(number: Annotated[int, Field(ge=1)], call: ToolContext) -> str:
        '''Look up an order by its number.'''

An `Args` section in the docstring describes the parameters. A parameter annotated with `ToolContext` is given the call and not shown to the model.
Plain functions run in a thread of their own, coroutine functions on the event loop.
"""

import asyncio
import importlib
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agent.call.clean import clean
from agent.call.ports import ToolContext, ToolResult, ToolSchema
from agent.tools.settings import PythonToolSettings
from agent.tools.tool import ToolError, ToolProblem, answer, failure

_MOST_THREADS = 16
"""Of one function: a thread that hangs cannot be stopped, only outnumbered."""

_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class PythonTool:
    """Calls one function."""

    def __init__(self, settings: PythonToolSettings) -> None:
        """Import the function and read its schema.

        Raises:
            ToolProblem: There is no such function, or its hints make no schema.
        """
        self._function = _load(settings.function)
        self._context_name, self._model = _model_of(self._function, settings)
        words, _ = _docstring(self._function)
        if not words:
            raise ToolProblem(f"{settings.function} needs a docstring: the model is told its words")
        self.schema = ToolSchema(settings.name, words, _without_titles(self._model))
        self.timeout_s = settings.timeout_s
        self._threads = 0

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Call it; what it returns becomes JSON, a `ToolError` becomes the model's."""
        try:
            read = self._model.model_validate(arguments)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            return failure(problem, f"The arguments were wrong: {problem}.", 0)
        values = {name: getattr(read, name) for name in type(read).model_fields}
        if self._context_name:
            values[self._context_name] = context
        try:
            if inspect.iscoroutinefunction(self._function):
                value = await self._function(**values)
            else:
                value = await self._in_thread(lambda: self._function(**values))
            return (
                ToolResult(value) if isinstance(value, str) else answer(to_jsonable_python(value))
            )
        except ToolError as error:
            return failure(str(error), str(error))
        except PydanticSerializationError as error:
            return failure(f"what it returned is no JSON: {error}", "That did not work.")

    async def _in_thread(self, work: Callable[[], object]) -> object:
        """Run in a thread that keeps nobody waiting: not the loop, and not the process's end."""
        if self._threads >= _MOST_THREADS:
            raise ToolError("That is not possible right now.")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def settle(value: object, error: BaseException | None) -> None:
            self._threads -= 1
            if done.done():
                return
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

        def run() -> None:
            value: object = None
            failed: BaseException | None = None
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 - carried over to whoever waits
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, value, failed)

        self._threads += 1
        threading.Thread(target=run, name=f"tool {self.schema.name}", daemon=True).start()
        return await done


def _load(dotted: str) -> Callable[..., Any]:
    module_name, _, name = dotted.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except AttributeError:
        raise ToolProblem(f"{module_name} has no {name}") from None
    except Exception as error:
        raise ToolProblem(f"{module_name} cannot be imported: {error!r}") from error
    if not inspect.isroutine(function):
        raise ToolProblem(f"{dotted} is no function")
    return function


def _model_of(
    function: Callable[..., Any], settings: PythonToolSettings
) -> tuple[str, type[BaseModel]]:
    _, described = _docstring(function)
    context_name = ""
    fields: dict[str, Any] = {}
    try:
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ToolProblem(f"{settings.function}: *{name} cannot be described to the model")
            if name not in hints:
                raise ToolProblem(f"{settings.function}: {name} has no type hint")
            if hints[name] is ToolContext:
                context_name = name
                continue
            is_required = parameter.default is parameter.empty
            default = ... if is_required else parameter.default
            fields[name] = (hints[name], Field(default, description=described.get(name)))
        model = create_model(
            function.__name__, __config__=ConfigDict(extra="forbid", strict=False), **fields
        )
        model.model_json_schema()
    except (TypeError, NameError, ValueError, PydanticUserError) as error:
        words = clean(str(error).partition("\n")[0])
        raise ToolProblem(f"{settings.function}: its hints make no schema: {words}") from error
    return context_name, model


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a docstring into what the tool does and what each argument is (Google's form)."""
    words: list[str] = []
    arguments: dict[str, str] = {}
    section = current = ""
    for line in (inspect.getdoc(function) or "").splitlines():
        if heading := _SECTION.match(line):
            section = heading.group(1)
        elif section.startswith("Arg"):
            if found := _ARGUMENT.match(line.strip()):
                current = found.group(1)
                arguments[current] = found.group(2).strip()
            elif current and line.strip():
                arguments[current] += f" {line.strip()}"
        elif not section:
            words.append(line.strip())
    return " ".join(" ".join(words).split()), {k: v for k, v in arguments.items() if v}


def _without_titles(model: type[BaseModel]) -> dict[str, Any]:
    """The schema, without the titles pydantic makes of names: they tell the model nothing."""

    def strip(part: object, *, is_schema: bool) -> Any:
        if isinstance(part, dict):
            return {
                key: strip(value, is_schema=not (is_schema and key in ("properties", "$defs")))
                for key, value in part.items()
                if not (is_schema and key == "title")
            }
        if isinstance(part, list):
            return [strip(value, is_schema=is_schema) for value in part]
        return part

    schema: dict[str, Any] = strip(model.model_json_schema(), is_schema=True)
    schema.pop("description", None)
    schema.setdefault("properties", {})
    return schema
