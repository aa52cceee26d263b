"""The values of a plan's parameters for one execution: the request's JSON values and the hidden ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sql.errors import InvalidParameter
from sql.identity import Identity
from sql.plan import JsonKind, Parameter, QueryPlan, Source
from sql.values import Converter, converter


def json_kind(value: object) -> JsonKind:
    """The kind of a parameter's JSON value."""
    if value is None:
        return JsonKind.NULL
    if isinstance(value, bool):
        return JsonKind.BOOLEAN
    if isinstance(value, int):
        return JsonKind.INTEGER
    if isinstance(value, float):
        return JsonKind.NUMBER
    if isinstance(value, str):
        return JsonKind.STRING
    return JsonKind.ARRAY if isinstance(value, list) else JsonKind.OBJECT


def plan_values(plan: QueryPlan, params: Sequence[object], identity: Identity, now_us: int) -> dict[int, object]:
    """The storage value of every parameter by its index. `params` are JSON values, `$1` first."""
    return parameter_values(plan.parameters, params, identity, now_us)


def parameter_values(
    parameters: Sequence[Parameter], params: Sequence[object], identity: Identity, now_us: int
) -> dict[int, object]:
    """As `plan_values`, of some parameters."""
    values: dict[int, object] = {}
    for parameter in parameters:
        match parameter.source:
            case Source.NOW:
                values[parameter.index] = now_us
            case Source.USER:
                values[parameter.index] = identity.user
            case Source.ROLE:
                values[parameter.index] = identity.role.value
            case Source.REQUEST:
                values[parameter.index] = _from_request(parameter, params)
    return values


def _from_request(parameter: Parameter, params: Sequence[object]) -> object:
    if parameter.index > len(params):
        raise InvalidParameter(f"Parameter ${parameter.index} is missing: the request has {len(params)} parameter(s).")
    value = params[parameter.index - 1]
    convert = _converter(parameter)
    if not parameter.is_list or value is None:
        return convert(value)
    if not isinstance(value, list):
        raise InvalidParameter(f"Parameter ${parameter.index} must be an array.")
    return [convert(item) for item in value]


@lru_cache(maxsize=4096)
def _converter(parameter: Parameter) -> Converter:
    return converter(parameter.type, f"${parameter.index}")
