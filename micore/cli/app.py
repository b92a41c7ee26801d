"""What every command is given: the terminal, and the plugins of this process."""

from __future__ import annotations

from micore.cli.terminal import Terminal
from micore.registry import PluginRecord, Registry, strict_by_environment


class App(Terminal):
    """A terminal that also holds the registry, made when it is first asked for."""

    def __init__(
        self, *, verbosity: int = 0, color: str = "auto", progress: bool = True, load_plugins: bool = True
    ) -> None:
        super().__init__(verbosity=verbosity, color=color, progress=progress)
        self._load_plugins = load_plugins
        self._plugins: Registry | None = None

    @property
    def plugins(self) -> Registry:
        """The registry for looking at plugins: broken ones are no error, even in strict mode."""
        if self._plugins is None:
            self._plugins = Registry.discover(no_plugins=not self._load_plugins, strict=False, report=self.warn)
        return self._plugins

    @property
    def registry(self) -> Registry:
        """The registry for using plugins.

        Raises: PluginError in strict mode, when any plugin is broken.
        """
        if strict_by_environment():
            self.plugins.require_sound()
        return self.plugins

    def warn_of(self, records: tuple[PluginRecord, ...]) -> None:
        """Say in one line each why plugins cannot be used; with -v, where they failed."""
        for record in records:
            self.warn(f"plugin {record}")
            if record.trace:
                self.debug(record.trace)

    def plugin_versions(self) -> list[str]:
        """Return a line for each installed package of plugins."""
        return sorted({f"{record.distribution} {record.version}" for record in self.plugins.records})
