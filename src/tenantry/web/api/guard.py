"""The door of the API: whose token it is, and how many requests that is, before anything of a request is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from fastapi.security.utils import get_authorization_scheme_param
from starlette.responses import Response

from tenantry.identity import Principal, throttle
from tenantry.refusals import MediaUnknown, SignInNeeded
from tenantry.web.house import opened
from tenantry.web.rates import Rates

JSON = "application/json"


class Guarded(APIRoute):
    """A route that lets in the bearers of tokens, so many requests of each."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()
        takes_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            request.state.principal = await _admit(request)
            if takes_body:
                refuse_media(request)
            response = await answer(request)
            response.headers.update(request.state.rate)
            return response

        return guarded


def admitted(request: Request) -> Principal:
    """Who sent a request that the guard let in."""
    principal: Principal = request.state.principal
    return principal


def count_stranger(request: Request) -> None:
    """Count a request without a valid token for the address it comes from. Raises `TooManyRequests`."""
    rates: Rates = request.app.state.rates
    address = throttle.network(request.client.host if request.client else "")
    request.state.rate = rates.addresses.count(address)


async def _admit(request: Request) -> Principal:
    """Who sends it. Raises `SignInNeeded` and `TooManyRequests`.

    A token is looked at first: strangers at its owner's address use up nothing of hers.
    """
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    try:
        if scheme.lower() != "bearer" or not token:
            raise SignInNeeded
        principal = await (await opened(request)).sign_in.by_token(token)
    except SignInNeeded:
        count_stranger(request)
        raise
    request.app.state.house.tally.add()
    rates: Rates = request.app.state.rates
    request.state.rate = rates.tokens.count(f"{principal.admin_id}/{principal.token}")
    return principal


def refuse_media(request: Request) -> None:
    """Raise `MediaUnknown` for a body that is no JSON."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != JSON and not (given.startswith("application/") and given.endswith("+json")):
        raise MediaUnknown(given=given[:100] or "nothing")
