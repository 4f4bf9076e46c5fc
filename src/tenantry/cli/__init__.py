"""The command line: `tenantry NOUN VERB [NAME] [--options]`, one file for each noun.

Nouns are loaded when they are used, so that help and completion answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from cyclopts import App, CycloptsError, Group, Parameter

from tenantry.errors import TenantryError, UsageError

USAGE: Final = 2
INTERNAL: Final = "This is a fault of Tenantry: run it again with -v to see where, and report it."
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

ELSEWHERE: Final = {"--server": "TENANTRY_SERVER", "--token": "TENANTRY_TOKEN"}
"""Options before the noun, with the variables that stand for them: they lead every command to a platform elsewhere."""

_START, _DAY, _RUN = Group.create_ordered("Begin"), Group.create_ordered("Every day"), Group.create_ordered("Run")

COMMANDS: Final = (
    ("init", "init:init", _START, "Write a platform to begin with: tenantry.toml, a key, a schema, a template."),
    ("config", "config:app", _START, "Check, show and explain the settings."),
    ("secret", "secret:app", _START, "The platform key, which seals every tenant's secrets."),
    ("tenant", "tenant:app", _DAY, "Make tenants and run their whole life."),
    ("hostname", "hostname:app", _DAY, "The names that lead to tenants."),
    ("server", "server:app", _DAY, "The servers that tenants' databases lie on."),
    ("org", "org:app", _DAY, "Organizations: tenants that belong together."),
    ("sso", "sso:app", _DAY, "Organizations' single sign-on by OpenID Connect or SAML 2.0."),
    ("scim", "scim:app", _DAY, "Organizations' directories by SCIM 2.0: who joins, and who leaves."),
    ("operation", "operation:app", _DAY, "What is being done, was done and failed."),
    ("migrate", "migrate:app", _DAY, "Bring the tenants' databases to the newest schema."),
    ("schema", "schema:app", _DAY, "What a PostgreSQL schema needs before tenants can share its tables."),
    ("verify", "verify:verify", _DAY, "Attack the isolation of tenants, and prove reports of it."),
    ("audit", "audit:app", _DAY, "Who did what, and the proof that nobody changed it."),
    ("admin", "admin:app", _DAY, "The people who run the platform."),
    ("token", "token:app", _DAY, "Tokens by which programs call the API."),
    ("mail", "mail:app", _DAY, "Letters: queued, sent, failed and held back; keys that sign them."),
    ("support", "support:app", _DAY, "Look into a tenant, for a while and for a reason, seen by its people."),
    ("signup", "signup:app", _DAY, "Who is signing up, and invitations to do so."),
    ("status", "status:status", _DAY, "How the platform is: tenants, operations, workers, limits."),
    (
        "statistics",
        "status:statistics",
        _DAY,
        "The platform in numbers: tenants, users, storage, requests, operations.",
    ),
    ("settings", "status:settings", _DAY, "The settings in force, and where each comes from."),
    ("why", "status:why", _DAY, "Tell which tenant an address leads to, and by which rule."),
    ("registry", "registry:app", _RUN, "The control database: its schema, and moving it to PostgreSQL."),
    ("worker", "processes:worker", _RUN, "Run operations until told to stop."),
    ("serve", "processes:serve", _RUN, "Serve the application behind the tenants."),
)


def build() -> App:
    """The whole command line; what each noun does is not loaded yet."""
    app = App(
        name="tenantry",
        help="The control plane of a multi-tenant platform that one tenantry.toml describes.",
        help_epilogue=(
            "Before a noun, --server URL and --token TOKEN drive a platform elsewhere by its API.\n\n"
            "Exit status: 0 done, 1 failed, 2 used wrongly, 3 refused, 4 not found."
        ),
        version_flags=["--version"],
        default_parameter=Parameter(negative=""),
        help_format="plaintext",
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    for name, target, group, about in COMMANDS:
        app.command(f"tenantry.cli.{target}", name=name, group=group, help=about)
    app.register_install_completion_command(help="Complete commands in this shell: bash, zsh or fish.")
    return app


def main() -> None:
    """Run the command given to this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit status. Errors are told on stderr, with --json as JSON."""
    as_json = "--json" in arguments
    try:
        result = build()(_addressed(arguments))
    except CycloptsError as error:
        return _tell("usage", str(error).strip(), _usage_remedy(error), USAGE, as_json)
    except TenantryError as error:
        return _tell(error.code, error.message, error.hint, error.exit_code, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if {"-v", "--verbose"} & set(arguments):
            raise
        return _tell("internal", f"{type(error).__name__}: {error}.", INTERNAL, 1, as_json)
    return result if isinstance(result, int) else 0


def _addressed(arguments: list[str]) -> list[str]:
    """The command behind --server and --token, which say where it is to be carried out."""
    while arguments and arguments[0].partition("=")[0] in ELSEWHERE:
        option, equals, value = arguments[0].partition("=")
        rest = arguments[1:]
        if not equals:
            if not rest:
                raise UsageError(given=option, wanted=f"{option} and a value")
            value, rest = rest[0], rest[1:]
        os.environ[ELSEWHERE[option]] = value
        arguments = rest
    return arguments


def _usage_remedy(error: CycloptsError) -> str:
    chain = " ".join(["tenantry", *(error.command_chain or ())])
    return f"`{chain} --help` shows how."


def _tell(code: str, message: str, remedy: str, status: int, as_json: bool) -> int:
    if as_json:
        import json

        print(json.dumps({"code": code, "message": message, "remedy": remedy}, ensure_ascii=False), file=sys.stderr)
    else:
        from tenantry.cli.output import safe

        print(f"error[{code}]: {safe(message)}  {safe(remedy)}".rstrip(), file=sys.stderr)
    return status
