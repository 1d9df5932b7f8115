"""Packages that register with BasicSR: plugins."""

from importlib.metadata import entry_points

from bidiffsr_arch.errors import InputError

PLUGIN_GROUP = "basicsr.plugins"


def load_plugins() -> None:
    """Import every package that lists itself in the entry-point group `basicsr.plugins`; importing registers.

    Raises:
        InputError: a plugin cannot be imported; it is named.
    """
    for plugin in entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()
        except Exception as error:  # whatever another package's import may raise
            package = f" of package {plugin.dist.name}" if plugin.dist else ""
            raise InputError(
                f"plugin {plugin.name!r}{package} cannot be imported ({type(error).__name__}: {error}); "
                "repair or uninstall it"
            ) from error
