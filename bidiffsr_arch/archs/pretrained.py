"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, as users of the Hugging Face Hub know them."""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Network = TypeVar("Network", bound="Pretrained")


def _files() -> ModuleType:
    """What reads and writes files. It builds on architectures, so it is looked up when it is asked for."""
    return import_module("bidiffsr_arch.pretrained")


class Pretrained:
    """A network that remembers with which arguments it was made, and what it was trained to do.

    Attributes:
        arguments: the constructor's, defaults included.
        trained: ``scale``, ``beta_schedule`` and the other options that sampling needs; empty until they are known.
    """

    arguments: dict[str, Any]
    trained: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep the arguments; the constructor gets them as well."""
        network = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(network, *args, **kwargs)
        except TypeError:  # which the constructor tells better, or a copy that gets its attributes afterwards
            return network
        bound.apply_defaults()
        _, *given = bound.arguments.items()
        network.__dict__.update(arguments=dict(given), trained={})
        return network

    @classmethod
    def from_pretrained(cls: type[Network], name_or_folder: str | Path, *, revision: str | None = None) -> Network:
        """A network from a folder that `save_pretrained` wrote, or from the Hub.

        Args:
            name_or_folder: the folder, ``OWNER/NAME`` or ``hf://OWNER/NAME``.
            revision: branch, tag or commit of the repository.
        Returns:
            The network in eval mode; `trained` says what sampling needs.
        Raises:
            InputError: no such folder or repository, or weights of another network.
        """
        return _files().network_from(cls, name_or_folder, revision)

    def save_pretrained(
        self, folder: str | Path, *, about: dict[str, Any] | None = None, overwrite: bool = False, **trained: Any
    ) -> None:
        """Write config.json, model.safetensors and a model card.

        Args:
            about: what the card says beside: ``title``, ``license``, ``author``, ``date``, ``data``, ``results``.
            overwrite: replace such files.
            trained: ``scale=2, beta_schedule={…}`` and others, as at an option file's top level, beside `trained`.
        Raises:
            InputError: the scale is not known, or the folder holds such files.
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
        """Upload what `save_pretrained` writes to the repository ``OWNER/NAME``, which is made if there is none.

        Returns:
            The commit's address.
        Raises:
            InputError: as `save_pretrained`, or the Hub refuses it.
        """
        further = dict(private=private, token=token, commit_message=commit_message)
        return _files().push_to_hub(self, name, self._options(trained), about, **further)

    def _options(self, trained: dict[str, Any]) -> dict[str, Any]:
        return self.trained | trained | {"network_g": {"type": type(self).__name__, **self.arguments}}
