"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, with the interface of Hugging Face's libraries."""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Network = TypeVar("Network", bound="Pretrained")


def _files() -> ModuleType:
    """The module that reads and writes files. It imports the architectures, and therefore is imported on first use."""
    return import_module("bidiffsr_arch.pretrained")


class Pretrained:
    """A network that stores its constructor arguments and the options it was trained with.

    Attributes:
        arguments: arguments of the constructor, defaults included.
        trained: ``scale``, ``beta_schedule`` and the other options that sampling needs; empty if unknown.
    """

    arguments: dict[str, Any]
    trained: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Store the arguments, which are also passed to the constructor."""
        network = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(network, *args, **kwargs)
        except TypeError:  # wrong arguments, which the constructor reports, or a copy, whose attributes are set later
            return network
        bound.apply_defaults()
        _, *given = bound.arguments.items()
        network.__dict__.update(arguments=dict(given), trained={})
        return network

    @classmethod
    def from_pretrained(cls: type[Network], name_or_folder: str | Path, *, revision: str | None = None) -> Network:
        """Load a network from a folder written by `save_pretrained`, or from the Hub.

        Args:
            name_or_folder: the folder, ``OWNER/NAME`` or ``hf://OWNER/NAME``.
            revision: branch, tag or commit of the repository.
        Returns:
            The network in eval mode; its `trained` has the options that sampling needs.
        Raises:
            InputError: no such folder or repository, or weights of another network.
        """
        return _files().network_from(cls, name_or_folder, revision)

    def save_pretrained(
        self, folder: str | Path, *, about: dict[str, Any] | None = None, overwrite: bool = False, **trained: Any
    ) -> None:
        """Write config.json, model.safetensors and a model card.

        Args:
            about: further entries of the card: ``title``, ``license``, ``author``, ``date``, ``data``, and ``results``,
                a dictionary of numbers by data set.
            overwrite: replace existing files.
            trained: top-level options, such as ``scale=2, beta_schedule={…}``, in addition to those in `trained`.
        Raises:
            InputError: the scale is unknown, or such files exist.
        """
        _files().save_pretrained(self, folder, self._options(trained), about, overwrite)

    def push_to_hub(
        self,
        name: str,
        *,
        about: dict[str, Any] | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload network",
        **trained: Any,
    ) -> str:
        """Upload the files of `save_pretrained` to the repository ``OWNER/NAME``, which is created if it does not
        exist.

        Returns:
            URL of the commit.
        Raises:
            InputError: as `save_pretrained`, or the Hub refuses it.
        """
        further = dict(private=private, token=token, commit_message=commit_message)
        return _files().push_to_hub(self, name, self._options(trained), about, **further)

    def _options(self, trained: dict[str, Any]) -> dict[str, Any]:
        return self.trained | trained | {"network_g": {"type": type(self).__name__, **self.arguments}}
