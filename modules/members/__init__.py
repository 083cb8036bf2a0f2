"""Member architectures: one file each; the file's name is its kind."""

from __future__ import annotations

import importlib
import pkgutil

from configs.section import ArchConfig


def kinds() -> list[str]:
    """Every kind in this folder, sorted, without importing any of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def config_class(kind: str) -> type[ArchConfig]:
    """The `Config` of a kind: a file of this folder, or a dotted module path of your own.

    Raises:
        KeyError: no such file here.
        ImportError: the dotted module cannot be imported or has no `Config(ArchConfig)`.
    """
    if "." not in kind and kind not in kinds():
        raise KeyError(kind)
    module = importlib.import_module(kind if "." in kind else f"{__name__}.{kind}")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, ArchConfig)):
        raise ImportError(f"{kind}: the module has no class Config(ArchConfig)")
    return config
