"""Backbones by name, from every library that the catalogue names."""

from pkgutil import resolve_name
from typing import Any

from torch import nn

from finetune.model.libraries.protocol import SOURCE_CLASSES, Backbone, Library
from finetune.recipe import catalog


def find_backbone(name: str) -> Backbone:
    """Find the backbone that a recipe calls ``name``, such as ``resnet18`` or ``timm:resnet10t``.

    Raises:
        UserError: an unknown name, or one that the installed library does not have.
        MissingExtraError: its library is not installed.
    """
    prefix, _ = catalog.split_name(name)
    libraries: list[Library] = [resolve_name(path)() for path in catalog.LIBRARIES[prefix]]
    *first, last = libraries
    return next((each for each in first if name in each.names()), last).backbone(name)


def create(name: str, num_classes: int = SOURCE_CLASSES, **options: Any) -> nn.Module:
    """Create a backbone with random weights; see :meth:`Backbone.create`."""
    return find_backbone(name).create(num_classes, **options)


def blueprint(name: str, num_classes: int = SOURCE_CLASSES, **options: Any) -> nn.Module:
    """Create a backbone on the meta device; see :meth:`Backbone.blueprint`."""
    return find_backbone(name).blueprint(num_classes, **options)
