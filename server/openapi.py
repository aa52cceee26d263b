"""Builds the OpenAPI 3.1 document from operations whose bodies are msgspec structs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Body = type[msgspec.Struct] | str
"""A JSON body by its struct, or another body by its media type."""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter in the path, or in the query string; those in the path are always required."""

    name: str
    description: str
    place: Literal["path", "query", "header"] = "path"
    required: bool = True


class Answer(msgspec.Struct, frozen=True):
    """One way in which an operation answers: status, meaning and body (several: the client chooses by `Accept`)."""

    status: int
    description: str
    body: Body | tuple[Body, ...] | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. `bodies` are the request's, in order of preference."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str = ""
    bodies: tuple[Body, ...] = ()
    multipart: type[msgspec.Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    answers: tuple[Answer, ...] = ()
    bearer: bool = False


def build_document(title: str, version: str, description: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document."""
    structs = list(dict.fromkeys(_structs(operations)))
    schemas, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    references = dict(zip(structs, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _structs(operations: Sequence[Operation]) -> list[type[msgspec.Struct]]:
    found: list[Body] = []
    for operation in operations:
        found += operation.bodies
        if operation.multipart is not None:
            found.append(operation.multipart)
        for answer in operation.answers:
            found += _bodies(answer)
    return [body for body in found if not isinstance(body, str)]


def _bodies(answer: Answer) -> tuple[Body, ...]:
    if answer.body is None:
        return ()
    return answer.body if isinstance(answer.body, tuple) else (answer.body,)


def _operation(operation: Operation, references: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {str(answer.status): _answer(answer, references) for answer in operation.answers},
    }
    if operation.description:
        entry["description"] = operation.description
    if operation.parameters:
        entry["parameters"] = [
            {
                "name": p.name,
                "in": p.place,
                "required": p.required,
                "description": p.description,
                "schema": {"type": "string"},
            }
            for p in operation.parameters
        ]
    content = _content(operation.bodies, references)
    if operation.multipart is not None:
        content["multipart/form-data"] = {"schema": references[operation.multipart]}
    if content:
        entry["requestBody"] = {"required": True, "content": content}
    if operation.bearer:
        entry["security"] = [{"bearer": []}]
    return entry


def _answer(answer: Answer, references: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": answer.description}
    content = _content(_bodies(answer), references)
    if content:
        entry["content"] = content
    return entry


def _content(bodies: Sequence[Body], references: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for body in bodies:
        if isinstance(body, str):
            text = body.startswith("text/") or body == "application/x-ndjson"
            content[body] = {"schema": {"type": "string"} if text else {"type": "string", "format": "binary"}}
        elif "application/json" in content:
            known = content["application/json"]["schema"]
            content["application/json"] = {"schema": {"anyOf": [*known.get("anyOf", [known]), references[body]]}}
        else:
            content["application/json"] = {"schema": references[body]}
    return content
