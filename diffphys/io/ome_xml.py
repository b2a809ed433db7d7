"""OME-XML as a tree, from a file that nobody vouches for: bounded in size, no document type, no entities.

Format: the Open Microscopy Environment's schema 2016-06 (element and attribute names are those of older ones too). A document
type is what entity expansion and outside references need; OME-XML has none, so its mere presence is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

MOST_CHARACTERS = 64 << 20  # a header names each plane: 1e5 planes are about 2e7 characters and 5e5 tags
MOST_TAGS = 2_000_000  # what a tree of small elements may take: some 300 MB


class ForeignXml(ValueError):
    """A header that is not read; one line."""


def check(text: str, *, name: str) -> None:
    """Refuse what must not reach any XML parser; `name` is what the message calls the file."""
    if len(text) > MOST_CHARACTERS:
        raise ForeignXml(f"the OME-XML of {name} has {len(text)} characters; expected at most {MOST_CHARACTERS}: save it anew")
    if text.count("<") > MOST_TAGS:
        raise ForeignXml(f"the OME-XML of {name} has {text.count('<')} tags; expected at most {MOST_TAGS}: save it anew")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ForeignXml(f"the OME-XML of {name} declares a document type or entities; OME-XML has none: save it anew")


def parse(text: str, *, name: str) -> Element:
    """The root element; `ForeignXml` if it is refused or not well-formed."""
    check(text, name=name)
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ForeignXml(f"the OME-XML of {name} is damaged ({error}); save it anew") from None


def local(element: Element) -> str:
    """The element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def children(element: Element | None, name: str) -> list[Element]:
    """The direct children of that name, whatever the schema's version."""
    return [] if element is None else [e for e in element if local(e) == name]


def child(element: Element | None, name: str) -> Element | None:
    """The first direct child of that name."""
    return next(iter(children(element, name)), None)


def descendants(element: Element, name: str) -> Iterator[Element]:
    """All elements of that name below, in the file's order."""
    return (e for e in element.iter() if local(e) == name)
