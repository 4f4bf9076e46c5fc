"""A pytest plugin for applications: a platform for tests alone, two fresh tenants for each, and a search for leaks.

It works where the file that `tenantry_config` names is there, by default the tenantry.toml beside pytest's own
configuration. Every `tenantry.connect` of the process then leads to data and a control database of the tests' own.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

import pytest

from tenantry.context import tenant_context
from tenantry.errors import ConfigError
from tenantry.model import Environment

if TYPE_CHECKING:
    from tenantry.testing.ground import Ground
    from tenantry.testing.interleave import Interleaver

__all__ = ["as_tenant", "other_tenant", "tenant", "tenant_url", "tenantry_platform", "tenants"]

CONFIG: Final = "tenantry_config"
CURRENT: Final = "tenantry_current"

Pair = tuple[Environment, Environment]
AsTenant = Callable[..., AbstractContextManager[Environment]]

PAIR: Final = pytest.StashKey[Pair]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    parser.addini(CONFIG, "tenantry.toml of the application; relative to pytest's own configuration", default=FILE)
    parser.addini(CURRENT, "run every test with its tenant as the current one", type="bool", default=False)
    group = parser.getgroup("tenantry")
    group.addoption(
        "--tenantry-interleave",
        action="store_true",
        help="run each test that has tenants as two of them in turn, and fail it where anything crosses",
    )


FILE: Final = "tenantry.toml"
FOLDER: Final = "tenantry"
NAME: Final = "tenantry-plugin"


class Plugin:
    """What the plugin knows while it is at work."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        """Lead every `connect` elsewhere. The tests' own files, which may import the application, come later."""
        from tenantry import application
        from tenantry.testing.ground import KEY, Ground, Slot

        self.config = config
        self.patch = pytest.MonkeyPatch()
        slot = Slot(_places(config, file))
        self.ground: Ground = Ground(file, slot)
        self.patch.setenv(KEY, slot.key())
        self.patch.delenv("TENANTRY_CONFIG", raising=False)
        application.stand_in(self.ground)
        self.opened = False
        self.interleaver: Interleaver | None = None

    def begin(self) -> None:
        """Take part in this process's tests."""
        if self.config.getoption("--tenantry-interleave"):
            from tenantry.testing.interleave import Interleaver

            self.interleaver = Interleaver(self.ground, self.patch)
        self.config.pluginmanager.register(self, NAME)

    def open(self) -> Ground:
        """The platform, opened when it is first used."""
        if not self.opened:
            self.opened = True
            self.ground.open()
        return self.ground

    def close(self) -> None:
        """Leave nothing but golden templates."""
        from tenantry import application

        application.stand_in(None)
        self.ground.close()
        self.patch.undo()

    # --- hooks --------------------------------------------------------------------------------------------------

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let every test have tenants, where it is wished."""
        if self.config.getini(CURRENT):
            for item in items:
                if isinstance(item, pytest.Function) and "tenants" not in item.fixturenames:
                    item.fixturenames.insert(0, "tenants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test that has tenants as two of them."""
        from tenantry.testing.interleave import ALONE

        with_tenants = "tenants" in getattr(item, "fixturenames", ())
        if self.interleaver is None or not with_tenants or item.get_closest_marker(ALONE):
            return None
        self.open()
        self.interleaver.run(item, nextitem)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Run a test's own code for its tenant, and look what crossed."""
        pair = item.stash.get(PAIR, None)
        if pair is None or not isinstance(item, pytest.Function):
            return (yield)
        original = item.obj
        if inspect.iscoroutinefunction(original):
            item.obj = self._awaited(original, pair)
            return (yield from self._around(item, original))
        with self._current(pair):
            return (yield from self._around(item, original))

    def _around(self, item: pytest.Function, original: Any) -> Iterator[None]:
        try:
            if self.interleaver is None or self.interleaver.turn is None:
                return (yield)
            return (yield from self.interleaver.around(item))
        finally:
            item.obj = original

    def _current(self, pair: Pair) -> AbstractContextManager[Any]:
        return tenant_context(pair[0]) if self.config.getini(CURRENT) else nullcontext()

    def _awaited(self, test: Any, pair: Pair) -> Any:
        """An asynchronous test, whose databases are closed in its own event loop."""

        @wraps(test)
        async def run(*arguments: Any, **options: Any) -> None:
            try:
                with self._current(pair):
                    await test(*arguments, **options)
            finally:
                await self.ground.runtime.databases.forget([environment.tenant.id for environment in pair])
                await self.ground.runtime.databases.leave_loop()

        return run

    def pytest_report_header(self) -> str:
        """Say that the real platform is not touched."""
        more = ", each test as two tenants" if self.interleaver else ""
        return f"tenantry: tests on a platform of their own in {self.ground.slot.path}{more}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Count what was searched."""
        if self.interleaver is not None:
            found = f"{self.interleaver.tests} tests ran as two tenants, {self.interleaver.leaks} of them leaked"
            terminalreporter.write_line(f"tenantry: {found}")


PLUGIN: Final = pytest.StashKey[Plugin]()


def _places(config: pytest.Config, file: Path) -> Path:
    """Where the tests' platforms lie: beside pytest's cache, so that golden templates outlive a run."""
    try:
        cache = config.rootpath / str(config.getini("cache_dir"))
    except ValueError:  # pytest was told to have none
        return Path(gettempdir()) / f"tenantry-tests-{os.getuid()}" / file.parent.name
    if not cache.is_dir():  # pytest would make it, and keep it out of git, only later
        cache.mkdir(parents=True)
        (cache / ".gitignore").write_text("*\n")
    return cache / FOLDER


def _file(config: pytest.Config) -> Path:
    return (config.inipath.parent if config.inipath else config.rootpath) / str(config.getini(CONFIG))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin, where there is a platform, before any file of the application's is loaded."""
    file = _file(early_config)
    if file.is_file():
        early_config.stash[PLUGIN] = Plugin(early_config, file)


def pytest_configure(config: pytest.Config) -> None:
    """Take part, in the processes that run tests."""
    config.addinivalue_line("markers", "tenantry_alone: --tenantry-interleave runs this test as one tenant only")
    plugin = config.stash.get(PLUGIN, None)
    if plugin is not None and not _leads_workers(config):
        plugin.begin()
    elif plugin is None and config.getoption("--tenantry-interleave"):
        raise pytest.UsageError(f"--tenantry-interleave: there is no '{_file(config)}'. Name it with `{CONFIG}`.")


def _leads_workers(config: pytest.Config) -> bool:
    """Whether this process hands all tests to others (pytest-xdist)."""
    return bool(getattr(config.option, "dist", "no") != "no") and not hasattr(config, "workerinput")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it."""
    plugin = config.stash.get(PLUGIN, None)
    if plugin is not None:
        config.pluginmanager.unregister(name=NAME)
        plugin.close()


def _plugin(request: pytest.FixtureRequest) -> Plugin:
    found = request.config.pluginmanager.get_plugin(NAME)
    if not isinstance(found, Plugin):
        name = request.config.getini(CONFIG)
        raise ConfigError(f"There is no '{name}' to make tenants from.", remedy=f"Name it with the option `{CONFIG}`.")
    return found


@pytest.fixture(scope="session")
def tenantry_platform(request: pytest.FixtureRequest) -> Ground:
    """The application's platform: `.runtime`, `.config`, and `.create("slug", plan="pro")` for more tenants."""
    return _plugin(request).open()


@pytest.fixture
def tenants(request: pytest.FixtureRequest, tenantry_platform: Ground) -> Iterator[Pair]:
    """Two tenants that nobody else has, of the first blueprint, at its newest schema and with its seed."""
    interleaver = _plugin(request).interleaver
    turn = interleaver.turn if interleaver else None
    pair = turn.pair if turn else tenantry_platform.pair()
    request.node.stash[PAIR] = pair
    yield pair
    del request.node.stash[PAIR]
    if not turn:
        tenantry_platform.remove(pair)


@pytest.fixture
def tenant(tenants: Pair) -> Environment:
    """The first of the two: `tenant.tenant.slug`, `tenant.hostnames[0]`."""
    return tenants[0]


@pytest.fixture
def other_tenant(tenants: Pair) -> Environment:
    """The second of the two."""
    return tenants[1]


@pytest.fixture
def tenant_url(tenant: Environment) -> str:
    """Where the first tenant is served, for a client's `base_url`: "http://<hostname>"."""
    return f"http://{tenant.hostnames[0]}"


@pytest.fixture
def as_tenant(request: pytest.FixtureRequest, tenants: Pair) -> AsTenant:
    """`with as_tenant():` works for the first tenant, `with as_tenant(other_tenant):` for another one."""
    interleaver = _plugin(request).interleaver

    @contextmanager
    def work(environment: Environment = tenants[0]) -> Iterator[Environment]:
        if interleaver is not None and interleaver.turn is not None:
            interleaver.turn.visited.add(environment.id)
        with tenant_context(environment) as current:
            yield current

    return work
