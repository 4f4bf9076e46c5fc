"""Whether a tenant's schema is what the application's code wants."""

from __future__ import annotations

from tenantry.errors import SchemaBehind
from tenantry.model import Environment, Place
from tenantry.runtime.settings import Settings


def behind(settings: Settings, environment: Environment, place: Place) -> SchemaBehind | None:
    """The refusal of a resource whose schema is older than the wanted one; None where it is new enough.

    A schema the code does not know came with newer files than its own, and is served: a fleet is migrated first, and
    new code is started after.
    """
    name = (environment.tenant.blueprint, place.name)
    needs = settings.needs.get(name)
    if needs is None or not _older(place.version, needs, settings.versions.get(name, ())):
        return None
    return SchemaBehind(slug=environment.tenant.slug, has=place.version or "none", needs=needs)


def any_behind(settings: Settings, environment: Environment) -> SchemaBehind | None:
    """The refusal of the first resource that is behind."""
    if not settings.needs:
        return None
    return next((error for place in environment.places if (error := behind(settings, environment, place))), None)


def _older(has: str | None, needs: str, order: tuple[str, ...]) -> bool:
    if has is None or needs not in order:
        return True
    if has in order:
        return order.index(has) < order.index(needs)
    numbers = [version.partition("_")[0] for version in (has, needs)]
    return all(number.isdecimal() for number in numbers) and int(numbers[0]) < int(numbers[1])
