"""What goes over the wire: people and groups as they are kept here, and what this service says of itself.

Attributes that are not kept (titles, telephone numbers, roles, passwords, extensions) are taken and let fall.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    Context,
    Error,
    ETag,
    Filter,
    GroupMembership,
    ListResponse,
    Meta,
    Mutability,
    Pagination,
    Patch,
    PatchOp,
    Reference,
    Required,
    Resource,
    ResourceType,
    ResponseParameters,
    SCIMException,
    ScimPolicy,
    SearchRequest,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

from tenantry.registry.directory import GroupRow, PersonRow
from tenantry.scim_refusals import ScimFilter, ScimRefused, ScimSyntax, ScimValue

T = TypeVar("T")

PAGE: Final = 200
"""The most people or groups of one answer."""

LONGEST: Final = 4000
"""Characters of a filter that are looked at."""

ADDRESSES: Final = 20
"""Mail addresses of one person that are kept."""

LIST: Final = str(ListResponse.__schema__)
"""The schema of many at once."""

POLICY: Final = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
"""What Entra ID and Okta send and RFC 7644 does not know is understood."""


class Naming(ComplexAttribute):
    """What somebody is called, in parts."""

    formatted: str | None = None
    family_name: str | None = None
    given_name: str | None = None


class Address(ComplexAttribute):
    """A mail address."""

    value: str | None = None
    type: str | None = None
    primary: bool | None = None


class User(Resource[Any]):
    """Somebody of an organization."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    name: Naming | None = None
    display_name: str | None = None
    active: bool | None = None
    emails: list[Address] | None = None
    groups: Annotated[list[GroupMembership] | None, Mutability.read_only] = None


class Member(ComplexAttribute):
    """Somebody who is in a group, told by her id."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])


class Group(Resource[Any]):
    """People who belong together."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    members: list[Member] | None = None


# --- what comes in ------------------------------------------------------------------------------------------------


def content(body: bytes) -> dict[str, Any]:
    """A body. Raises `ScimSyntax`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ScimSyntax(reason="it is no JSON") from error
    if not isinstance(found, dict):
        raise ScimSyntax(reason="it is no JSON object")
    return found


def user(body: bytes, replaces: bool = False) -> User:
    """Somebody as a provider has her. Raises `ScimRefused`."""
    context = Context.RESOURCE_REPLACEMENT_REQUEST if replaces else Context.RESOURCE_CREATION_REQUEST
    given = content(body)
    return asked(lambda: User.model_validate(given, scim_ctx=context, scim_policy=POLICY))


def group(body: bytes, replaces: bool = False) -> Group:
    """A group as a provider has it. Raises `ScimRefused`."""
    context = Context.RESOURCE_REPLACEMENT_REQUEST if replaces else Context.RESOURCE_CREATION_REQUEST
    given = content(body)
    return asked(lambda: Group.model_validate(given, scim_ctx=context, scim_policy=POLICY))


def user_patched(body: bytes, before: User) -> User:
    """Somebody after a change (RFC 7644 section 3.5.2). Raises `ScimRefused`."""
    given = content(body)

    def patched() -> User:
        change = PatchOp[User].model_validate(given, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=POLICY)
        change.patch(before, POLICY)
        if before.active is None:
            raise ScimValue(reason="active is true or false, and cannot be removed")
        return before

    return asked(patched)


def parameters(model: type[Resource[Any]], query: Mapping[str, str]) -> SearchRequest[Any]:
    """What a request asks for: filter, page, attributes. Raises `ScimRefused`."""
    names = ("filter", "startIndex", "count", "attributes", "excludedAttributes")
    given = {name: query[name] for name in names if name in query}
    if len(given.get("filter", "")) > LONGEST:
        raise ScimFilter(reason=f"it is longer than {LONGEST} characters")
    of_model: Any = SearchRequest.__class_getitem__(model)
    found: SearchRequest[Any] = asked(lambda: of_model.model_validate(given))
    return found


def asked(call: Callable[[], T]) -> T:
    """What the library finds wrong, as our own errors."""
    try:
        return call()
    except ValidationError as error:
        raise _refusal(Error.from_validation_errors(error)[0]) from error
    except SCIMException as error:
        raise _refusal(error.to_error()) from error
    except RecursionError as error:
        raise ScimSyntax(reason="it is nested too deeply") from error


def _refusal(error: Error) -> ScimRefused:
    detail = (error.detail or "it is not as RFC 7644 says").splitlines()[0][:300].rstrip(".")
    if error.scim_type == ScimSyntax.keyword:
        return ScimSyntax(reason=detail)
    found = ScimRefused(f"{detail}.")
    found.keyword = error.scim_type or ScimValue.keyword
    return found


# --- what goes out ------------------------------------------------------------------------------------------------


def shown_user(row: PersonRow, where: str, groups: list[GroupRow]) -> User:
    """Somebody as a provider is told of her."""
    details = row.details
    return User(
        id=row.id,
        external_id=row.external_id,
        user_name=row.user_name,
        name=Naming(**details["name"]) if details.get("name") else None,
        display_name=row.display or None,
        active=row.active,
        emails=[Address(**one) for one in details.get("emails", ())] or None,
        groups=[
            GroupMembership(value=one.id, display=one.display, type="direct", ref=Reference(f"{where}/Groups/{one.id}"))
            for one in groups
        ]
        or None,
        meta=_meta("User", row, f"{where}/Users/{row.id}"),
    )


def shown_group(row: GroupRow, where: str, members: list[str]) -> Group:
    """A group as a provider is told of it."""
    return Group(
        id=row.id,
        external_id=row.external_id,
        display_name=row.display,
        members=[Member(value=one, type="User", ref=Reference(f"{where}/Users/{one}")) for one in members] or None,
        meta=_meta("Group", row, f"{where}/Groups/{row.id}"),
    )


def version(number: int) -> str:
    """The entity tag of a version (RFC 7644 section 3.14)."""
    return f'W/"{number}"'


def _meta(kind: str, row: PersonRow | GroupRow, location: str) -> Meta:
    made = {"resourceType": kind, "location": location, "version": version(row.version)}
    return Meta.model_validate({**made, "created": row.created, "lastModified": row.changed})


def answered(found: Resource[Any], context: Context, wanted: ResponseParameters[Any] | None = None) -> dict[str, Any]:
    """One of them as JSON."""
    return found.model_dump(scim_ctx=context, response_parameters=wanted)


def listed(total: int, start: int, found: list[Any], wanted: ResponseParameters[Any] | None = None) -> dict[str, Any]:
    """A page of them as JSON."""
    items = [answered(one, Context.RESOURCE_QUERY_RESPONSE, wanted) for one in found]
    head = {"schemas": [LIST], "totalResults": total, "startIndex": start}
    return {**head, "itemsPerPage": len(items), "Resources": items}


# --- what this service says of itself -----------------------------------------------------------------------------


def config(where: str) -> dict[str, Any]:
    """What is supported (RFC 7643 section 5)."""
    bearer = AuthenticationScheme(
        type=AuthenticationScheme.Type.oauthbearertoken,
        name="Bearer token",
        description="A token of this organization, made in the admin portal.",
        spec_uri=Reference("https://www.rfc-editor.org/rfc/rfc6750"),
        primary=True,
    )
    found = ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=PAGE),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=False),
        etag=ETag(supported=True),
        pagination=Pagination(cursor=False, index=True, default_page_size=PAGE, max_page_size=PAGE),
        authentication_schemes=[bearer],
        meta=Meta(resource_type="ServiceProviderConfig", location=f"{where}/ServiceProviderConfig"),
    )
    return answered(found, Context.RESOURCE_QUERY_RESPONSE)


def resource_types(where: str) -> list[dict[str, Any]]:
    """What there is (RFC 7643 section 6)."""
    found = [ResourceType.from_resource(model) for model in (User, Group)]
    for one in found:
        one.meta = Meta(resource_type="ResourceType", location=f"{where}/ResourceTypes/{one.id}")
    return [answered(one, Context.RESOURCE_QUERY_RESPONSE) for one in found]


def schemas(where: str) -> list[dict[str, Any]]:
    """Of which attributes it is made (RFC 7643 section 7)."""
    found = [model.to_schema() for model in (User, Group)]
    for attribute in found[0].attributes or ():
        if attribute.name == "active":  # it is always there; who joins without it is active
            attribute.required = Required.true
    for one in found:
        one.meta = Meta(resource_type="Schema", location=f"{where}/Schemas/{one.id}")
    return [answered(one, Context.RESOURCE_QUERY_RESPONSE) for one in found]
