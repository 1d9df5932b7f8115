"""Run code around the first import of another package, wherever it is imported."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Hook = Callable[[], AbstractContextManager[None]]


class ImportHooks(MetaPathFinder):
    """A finder that delegates to the other finders and wraps the loader that they return.

    Args:
        hooks: module name -> context manager that is entered before the module is loaded and left after its code has
            run. If the import fails, the hook runs again at the next one; after a successful import it is removed.
        prerequisites: module name -> module with a hook that is imported first. Otherwise a module of this package that
            imports a hooked module, whose hook imports the first one, would be seen half-initialized.
    """

    def __init__(self, hooks: Mapping[str, Hook], prerequisites: Mapping[str, str]) -> None:
        self.hooks, self.prerequisites = dict(hooks), prerequisites

    def install(self) -> None:
        """Run the hooks of modules that are already imported; the others run when their module is imported."""
        for name in [name for name in self.hooks if sys.modules.get(name) is not None]:
            with self.hooks.pop(name)():
                pass
        if self.hooks:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module with a hook, with a loader that runs the hook; None for all other modules."""
        if self.prerequisites.get(fullname) in self.hooks:
            import_module(self.prerequisites[fullname])
        if fullname not in self.hooks:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = HookedLoader(spec.loader, self)
        return spec

    def done(self, name: str) -> None:
        """Remove the hook of an imported module; the finder is removed with the last hook."""
        self.hooks.pop(name, None)
        if not self.hooks and self in sys.meta_path:
            sys.meta_path.remove(self)


class HookedLoader(Loader):
    """Loads a module within its hook; the module keeps its own loader."""

    def __init__(self, loader: Loader, owner: ImportHooks) -> None:
        self.loader, self.owner = loader, owner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Enter the hook and let the module's own loader create the module."""
        with ExitStack() as stack:
            stack.enter_context(self.owner.hooks[spec.name]())
            module = self.loader.create_module(spec)  # loads the libraries of extension modules
            self.context = stack.pop_all()
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code by its own loader, then leave the hook."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        with self.context:
            self.loader.exec_module(module)
        self.owner.done(module.__name__)
