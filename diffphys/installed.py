"""What other installed packages add: the entry points of a group, looked up when a name is not known, loaded when it is used.

A package declares in its pyproject.toml, for a reconstruction method and for a modality,

    [project.entry-points."diffphys.methods"]
    landweber = "my_package.landweber:landweber"

    [project.entry-points."diffphys.modalities"]
    focus_bracket = "my_package.focus_bracket:FOCUS_BRACKET"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

METHODS, MODALITIES = "diffphys.methods", "diffphys.modalities"


def names(group: str) -> list[str]:
    """Names that installed packages offer; nothing is imported."""
    return sorted(entry_points(group=group).names)


def load(group: str, name: str) -> Any:
    """The object behind a name; None if no package offers it.

    Raises:
        ValueError: in one line, where two packages offer the name, or the package cannot be imported.
    """
    found = tuple(entry_points(group=group, name=name))
    if len({entry.value for entry in found}) > 1:
        owners = [entry.dist.name if entry.dist else entry.value for entry in found]
        raise ValueError(f"{name!r} of {group} is offered by several packages: {owners}; uninstall all but one")
    try:
        return found[0].load() if found else None
    except Exception as error:  # whatever a stranger's package does on import
        raise ValueError(f"{name!r} of {group} ({found[0].value}) cannot be loaded: {error}") from error
