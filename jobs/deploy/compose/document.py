"""Reads YAML without trust, and keeps the line of every part.

Invariant: nothing is built before nesting, size and aliases were found to be bounded; a document that is
accepted has string keys, each once, and no part of it contains itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from jobs.deploy.compose.findings import ComposeError, Finding

__all__ = ["Part", "read_document"]

MAX_DEPTH = 32
MAX_EVENTS = 20_000
MAX_PARTS = 20_000
"""Counted with every alias carried out: what a few aliases of aliases make of a small text."""
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_TAGS = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:timestamp": str,
}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "nothing",
    dict: "a mapping",
    list: "a list",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a document: a mapping, a list or a single value."""

    line: int
    path: str
    kind: type
    text: str = ""
    """Of a single value, as it is written."""
    entries: Mapping[str, "Part"] | None = None
    items: tuple["Part", ...] | None = None

    @property
    def word(self) -> str:
        """What it is, for people."""
        return _WORDS[self.kind]

    @property
    def is_true(self) -> bool:
        """Whether it is the value true, in any of YAML's spellings."""
        return self.kind is bool and self.text.lower() in ("true", "yes", "on")

    def finding(self, message: str) -> Finding:
        """Return that something is wrong with this part."""
        return Finding(line=self.line, path=self.path, message=message)

    def values(self) -> Iterator["Part"]:
        """Yield every single value in it."""
        for part in (self.entries or {}).values():
            yield from part.values()
        for part in self.items or ():
            yield from part.values()
        if self.entries is None and self.items is None:
            yield self


def read_document(text: str) -> Part:
    """Return the one document of a YAML text, whose root is a mapping.

    Raises:
        ComposeError: it is no YAML, holds other than one document, or is larger or deeper than is accepted.
    """
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _refused(_said(error, text), mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(f"the text is no YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(root, yaml.MappingNode):
        raise _refused("expected a mapping with the key services")
    return _Reader().read(root, "", 0)


def _refused(message: str, line: int = 0, path: str = "") -> ComposeError:
    return ComposeError((Finding(line=line, path=path, message=message),))


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    if mark is not None:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in line[: mark.column + 1]:
            return "a tab, where YAML accepts spaces only"
    return f"the text is no YAML: {error.problem or error.context}"


def _check_events(text: str) -> None:
    """Go through the text without building anything, and bound what building it would take."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels", line)
        if count > MAX_EVENTS:
            raise _refused(f"more than {MAX_EVENTS} parts", line)
        if documents > 1:
            raise _refused("a second document begins; expected one", line)


class _Reader:
    """Makes parts of nodes; every alias is carried out, and counted."""

    def __init__(self) -> None:
        self._count = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Part:
        line = node.start_mark.line + 1
        self._add(line, path)
        if depth > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels, or containing itself", line, path)
        if node.tag not in _TAGS and node.tag not in _COLLECTIONS:
            raise _refused(f"the tag {node.tag[:60]} is not accepted", line, path)
        if isinstance(node, yaml.MappingNode):
            return Part(line=line, path=path, kind=dict, entries=self._entries(node, path, depth))
        if isinstance(node, yaml.SequenceNode):
            items = (self.read(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value))
            return Part(line=line, path=path, kind=list, items=tuple(items))
        return Part(line=line, path=path, kind=_TAGS.get(node.tag, str), text=node.value)

    def _add(self, line: int, path: str) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise _refused(f"aliases make more than {MAX_PARTS} parts of it", line, path)

    def _entries(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Part]:
        entries: dict[str, Part] = {}
        merged: list[dict[str, Part]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged += self._merged(value, path, depth)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be text", line, path)
            name = key.value
            if name in entries:
                raise _refused(f"the key {name[:60]!r} comes twice", line, path)
            entries[name] = self.read(value, f"{path}.{name}" if path else name, depth + 1)
        for other in merged:  # the first that has a key wins, and what stands here before all
            entries = {**other, **entries}
        return entries

    def _merged(self, value: yaml.Node, path: str, depth: int) -> list[dict[str, Part]]:
        nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
        found = []
        for node in nodes:
            self._add(node.start_mark.line + 1, path)
            if not isinstance(node, yaml.MappingNode):
                raise _refused("`<<` takes a mapping", node.start_mark.line + 1, path)
            if depth > MAX_DEPTH:
                raise _refused("a mapping that is merged into itself", node.start_mark.line + 1, path)
            found.append(self._entries(node, path, depth + 1))
        return found
