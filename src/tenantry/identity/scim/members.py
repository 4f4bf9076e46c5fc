"""Changes of groups (RFC 7644 section 3.5.2). Members are told by their ids alone: a group may have very many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scim2_models import Context, PatchOp, PatchOperation
from scim2_models.path import Comparison

from tenantry.identity.scim import wire
from tenantry.scim_refusals import ScimValue

ADD, REMOVE, REPLACE = "add", "remove", "replace"


@dataclass(frozen=True, slots=True)
class Change:
    """What a provider wants of a group."""

    steps: Sequence[tuple[str, set[str] | None]]  # of its members: what to do with whom; None: all
    rest: PatchOp[wire.Group] | None

    @property
    def of_members(self) -> bool:
        """Whether it is about members."""
        return bool(self.steps)

    def members(self, before: set[str]) -> set[str]:
        """Who is in the group afterwards."""
        found = set(before)
        for what, whom in self.steps:
            if what == REPLACE:
                found = set(whom or ())
            elif what == ADD:
                found |= whom or set()
            else:
                found -= found if whom is None else whom
        return found

    def applied(self, group: wire.Group) -> wire.Group:
        """The group without its members afterwards. Raises `ScimRefused`."""
        if self.rest is not None:
            rest = self.rest
            wire.asked(lambda: rest.patch(group, wire.POLICY))
        return group


def read(body: bytes) -> Change:
    """What is wanted. Raises `ScimRefused`."""
    given = wire.content(body)
    context = Context.RESOURCE_PATCH_REQUEST
    asked = wire.asked(lambda: PatchOp[wire.Group].model_validate(given, scim_ctx=context, scim_policy=wire.POLICY))
    steps: list[tuple[str, set[str] | None]] = []
    rest = []
    for operation in asked.operations or ():
        if operation.path is None and isinstance(operation.value, dict):
            own = {key: value for key, value in operation.value.items() if key.lower() == "members"}
            steps += [(operation.op.value, _ids(value)) for value in own.values()]
            operation.value = {key: value for key, value in operation.value.items() if key not in own}
            if operation.value:
                rest.append(operation)
        elif operation.path is not None and _is_members(operation):
            steps.append(_step(operation))
        else:
            rest.append(operation)
    if rest:
        asked.operations = rest
    return Change(steps, asked if rest else None)


def ids_of(members: Sequence[Any]) -> set[str]:
    """Whom a list of members names. Raises `ScimValue`."""
    return _ids([{"value": one.value, "type": one.type} for one in members])


def _is_members(operation: PatchOperation[Any]) -> bool:
    return str(operation.path).rpartition(":")[2].partition("[")[0].partition(".")[0].lower() == "members"


def _step(operation: PatchOperation[Any]) -> tuple[str, set[str] | None]:
    what, chosen = operation.op.value, getattr(operation.path, "value_filter", None)
    if chosen is not None:
        named = isinstance(chosen, Comparison) and (chosen.attr_path.attr.lower(), chosen.op.value) == ("value", "eq")
        if what != REMOVE or not named:
            raise ScimValue(reason=f"members are chosen by members[value eq id] and removed, not by '{operation.path}'")
        return what, {str(chosen.value)}
    if str(operation.path).rpartition(":")[2].lower() != "members":
        raise ScimValue(reason=f"'{operation.path}' cannot be changed by itself")
    if what == REMOVE and operation.value is None:
        return what, None
    return what, _ids(operation.value)


def _ids(value: Any) -> set[str]:
    """The ids of people. Raises `ScimValue`; groups in groups are not kept."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    found = set()
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("value"), str):
            raise ScimValue(reason="a member is told by its value, the id of a user")
        if str(one.get("type") or "User").lower() != "user":
            raise ScimValue(reason="members of groups are users; groups in groups are not kept")
        found.add(one["value"])
    return found
