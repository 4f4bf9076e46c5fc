"""Filters (RFC 7644 section 3.4.2.2) made into what the control database can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from scim2_models.path import AttrPath, Comparison, FilterNode, LogicalExpr, LogicalOperator, Not, Present, ValuePath

from tenantry.registry.wishes import Among, Compare, Field, Joined, Unless, Wish
from tenantry.scim_refusals import ScimFilter

PARTS: Final = 50
"""Comparisons of a filter."""

DEPTH: Final = 20


class Reader:
    """Reads one filter on attributes that are known, and on who is in what."""

    def __init__(self, fields: Mapping[str, Field], among: str) -> None:
        self._fields = fields
        self._among = among  # "members" of a group, "groups" of a person
        self._parts = 0

    def read(self, node: FilterNode) -> Wish:
        """What is asked for. Raises `ScimFilter`."""
        return self._wish(node, 0)

    def _wish(self, node: FilterNode, depth: int) -> Wish:
        self._parts += 1
        if depth > DEPTH or self._parts > PARTS:
            raise ScimFilter(reason="it has too many parts")
        if isinstance(node, Not):
            return Unless(self._wish(node.expr, depth + 1))
        if isinstance(node, LogicalExpr):
            return Joined(node.op is LogicalOperator.and_, tuple(self._wish(one, depth + 1) for one in node.terms))
        if isinstance(node, Present):
            name = _name(node.attr_path)
            self._field(name, "pr")
            return Compare(name, "pr")
        if isinstance(node, Comparison):
            return self._compared(node)
        if isinstance(node, ValuePath) and _name(node.attr_path) == self._among:
            return self._one_of(node.val_filter)
        raise ScimFilter(reason=f"'{str(node)[:100]}' is not supported")

    def _compared(self, node: Comparison) -> Wish:
        name = _name(node.attr_path)
        if name in (self._among, f"{self._among}.value"):
            return self._one_of(Comparison(AttrPath("value"), node.op, node.value))
        field = self._field(name, node.op.value)
        return Compare(name, node.op.value, _value(field, node.value))

    def _one_of(self, node: Any) -> Wish:
        asks = isinstance(node, Comparison) and (_name(node.attr_path), node.op.value) == ("value", "eq")
        if asks and isinstance(node.value, str):
            return Among(self._among, node.value)
        raise ScimFilter(reason=f"{self._among} are compared by eq with an id")

    def _field(self, name: str, operator: str) -> Field:
        field = self._fields.get(name)
        if field is None:
            known = ", ".join(sorted(self._fields))
            raise ScimFilter(reason=f"by '{name[:60]}' nobody is found, but by {known}, {self._among}")
        if operator != "pr" and operator not in field.operators:
            raise ScimFilter(reason=f"'{name}' is not compared by {operator}")
        return field


def _name(path: AttrPath) -> str:
    """An attribute in small letters, as names of attributes are not told apart by capitals."""
    return f"{path.attr}.{path.sub_attr}".lower() if path.sub_attr else path.attr.lower()


def _value(field: Field, given: Any) -> Any:
    """A value as the database compares it. Raises `ScimFilter`."""
    if given is None:
        return None
    if field.kind is bool:
        found = {"true": True, "false": False}.get(str(given).lower())
        if found is None:
            raise ScimFilter(reason=f"'{str(given)[:60]}' is neither true nor false")
        return found
    if field.kind is str:
        return str(given)
    try:
        moment = datetime.fromisoformat(str(given))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ScimFilter(reason=f"'{str(given)[:60]}' is no moment") from error
