"""Whether arguments fit a tool's JSON Schema. References never leave the schema."""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from agent.call.clean import clean

_LONGEST_PROBLEM_CHARS = 200


class ArgumentCheck:
    """A schema, ready to be compared with arguments."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile a schema.

        Raises:
            ValueError: It is no JSON Schema of an object.
        """
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"parameters: {clean(error.message)}") from None
        if schema.get("type") != "object":
            raise ValueError('parameters: the type must be "object"')
        # An empty registry: the library would otherwise fetch what a $ref names.
        self._validator = Draft202012Validator(schema, registry=Registry())

    def problem(self, values: object) -> str:
        """Say in a few words what does not fit; '' if everything does."""
        try:
            error = best_match(self._validator.iter_errors(values))
        except Unresolvable as unresolvable:
            return clean(f"the schema refers to {unresolvable.ref}", _LONGEST_PROBLEM_CHARS)
        except RecursionError:
            return "too deeply nested"
        if error is None:
            return ""
        where = error.json_path.removeprefix("$").removeprefix(".")
        return clean(
            f"{where}: {error.message}" if where else error.message, _LONGEST_PROBLEM_CHARS
        )
