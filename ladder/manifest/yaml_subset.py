"""YAML restricted to what JSON can say.

Words are text unless they are ``true``, ``false`` or ``null`` (so ``no`` and ``on`` stay words), ``1e-5`` is a number,
and tags, aliases, keys that are no text and keys written twice are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_TEXT = "tag:yaml.org,2002:str"
_SCALARS = {
    "tag:yaml.org,2002:null": r"(?:~|null|Null|NULL|)",
    "tag:yaml.org,2002:bool": r"(?:true|True|TRUE|false|False|FALSE)",
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9]*)",
    "tag:yaml.org,2002:float": (
        r"(?:[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))"
    ),
}


class JsonLikeLoader(yaml.SafeLoader):
    """A SafeLoader with JSON's data model that stops at ``max_depth`` nested containers."""

    def __init__(self, text: str, max_depth: int) -> None:
        super().__init__(text)
        self._depth_left = max_depth + 1

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            raise _refused("an alias", "write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"the tag {event.tag}", "write the value without a tag", event)
        if self._depth_left == 0:
            raise _refused("nesting that is too deep", "a manifest is at most 20 levels deep", event)
        self._depth_left -= 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth_left += 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise _refused("a key that is no text", "put it in quotes", key)
            if key.value in seen:
                raise _refused(f"the key {key.value!r} a second time", "keep one of them", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


JsonLikeLoader.yaml_implicit_resolvers = {}
for _tag, _pattern in _SCALARS.items():
    JsonLikeLoader.add_implicit_resolver(_tag, re.compile(rf"^{_pattern}$"), None)


def parse_yaml(text: str, max_depth: int) -> Any:
    """The one document in ``text``.

    Raises:
        yaml.YAMLError: syntax, tag, alias, duplicate key, depth; ``problem_mark`` says where.
        ValueError: a number that Python cannot read.
    """
    loader = JsonLikeLoader(text, max_depth)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _refused(what: str, remedy: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(problem=f"found {what}; {remedy}", problem_mark=mark)
