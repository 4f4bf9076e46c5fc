"""`tenantry config`: check, show and explain the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common
from tenantry.errors import SecretKeyError, UnknownSetting

app = App(name="config", help="Check, show and explain the settings.")


def _options() -> Mapping[str, Any]:
    from tenantry.resources import options

    return options()


@app.command
def check(*, common: Common = COMMON) -> int:
    """Name every fault of tenantry.toml, .env and the environment, each with its line and remedy."""
    from tenantry.config import Fault, faults, secret_keys

    found = faults(common.config, kinds=_options())
    try:
        secret_keys(common.config.parent)
    except SecretKeyError as error:
        found.append(Fault("environment", None, "TENANTRY_SECRET_KEY", None, error.message, error.hint))
    wrong = [fault for fault in found if not fault.warning]
    if common.json:
        common.out.data({"file": str(common.config), "ok": not wrong, "faults": found})
        return 2 if wrong else 0
    for fault in found:
        common.out.line(f"{'warning' if fault.warning else 'fault'}: {fault}", "yellow" if fault.warning else "red")
    if wrong:
        common.out.line(f"{common.config}: {len(wrong)} {'fault' if len(wrong) == 1 else 'faults'}.")
        return 2
    common.out.line(f"{common.config} is correct.", "green")
    return 0


@app.command
def show(
    key: Annotated[str | None, Parameter(help="A section or setting, such as blueprints.site.")] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Print all settings as they are in force, or those below one KEY; secrets are hidden."""
    from tenantry.config import load
    from tenantry.config.shown import flat, shown

    settings: Any = shown(load(common.config, kinds=_options()))
    for part in key.split(".") if key else ():
        if not isinstance(settings, dict) or part not in settings:
            raise UnknownSetting(key=key)
        settings = settings[part]
    if common.json:
        common.out.data(settings)
    else:
        for parts, value in flat(settings, tuple(key.split(".")) if key else ()):
            common.out.line(f"{'.'.join(parts)} = {value}")


@app.command
def explain(
    key: Annotated[str | None, Parameter(help="A setting or section, such as platform.domain.")] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Tell what a setting does, its default, and the variable that sets it; without KEY, all of them."""
    from tenantry.config.example import Entry, entries
    from tenantry.config.example import explain as find
    from tenantry.config.shown import flat

    if key is None:
        rows = [{"key": ".".join(map(str, entry.key)), "help": entry.help} for entry in entries().values()]
        common.out.table(("key", "help"), rows)
        return
    entry: Entry | None = find(key)
    if entry is None:
        raise UnknownSetting(key=key)
    variable = "TENANTRY_" + key.upper().replace("-", "_").replace(".", "__")
    about = {"key": key, "help": entry.help, "example": entry.value, "variable": variable}
    if common.json:
        common.out.data(about)
        return
    common.out.line(entry.help)
    for parts, value in flat(entry.value, (key,)) if entry.value is not None else ():
        common.out.line(f"  {'.'.join(parts)} = {value}")
    common.out.line(f"  {variable}=…")


@app.command
def schema() -> None:
    """Print the JSON Schema of tenantry.toml, with which editors complete and check it."""
    import json

    from tenantry.config.example import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
