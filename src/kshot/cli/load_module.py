"""A model of the user's own, found by the name of its file or package."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ["load_module"]


def load_module(place: str) -> nn.Module:
    """Return what ``path/to/file.py:name`` or ``package.module:name`` names: a module, its class, or a function for one.

    Raises:
        ValueError: the place has another form, there is nothing of that name, or it gives no ``nn.Module``.
        FileNotFoundError: there is no such file.
        ImportError: there is no such package.

    >>> load_module("torch.nn:Identity")
    Identity()
    """
    source, colon, name = place.rpartition(":")
    if not colon or not source or not name:
        raise ValueError(f"MODEL must be path/to/file.py:name or package.module:name; found {place!r}.")
    namespace = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    if not hasattr(namespace, name):
        there = [key for key, value in vars(namespace).items() if _may_give_a_module(key, value, namespace)]
        raise ValueError(f"{source} has no {name!r}; it has {', '.join(there) or 'no module, class or function'}.")
    found: Any = getattr(namespace, name)
    model = found if isinstance(found, nn.Module) or not callable(found) else found()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{place} must be or return an nn.Module; found {type(model).__name__}.")
    return model


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. MODEL is path/to/file.py:name or package.module:name.")
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbours, as python does for a script
    spec = importlib.util.spec_from_file_location("kshot_model", path)  # a name that hides no other module
    assert spec is not None
    assert spec.loader is not None
    namespace = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = namespace  # where classes look for the module that they are in
    spec.loader.exec_module(namespace)
    return namespace


def _from_package(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _may_give_a_module(key: str, value: Any, namespace: ModuleType) -> bool:
    own = getattr(value, "__module__", None) == namespace.__name__
    return not key.startswith("_") and (isinstance(value, nn.Module) or (own and callable(value)))
