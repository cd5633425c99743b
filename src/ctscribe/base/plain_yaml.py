"""A YAML parser that accepts only names and plain values.

It has a file of its own because importing PyYAML would slow down commands that read no recipe.
"""

from collections.abc import Sequence
from typing import Any

import yaml


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - YAML is what it is
    """Parses plain YAML: each key is a name and stands once; no aliases, no tags.

    Raises:
        UNPARSABLE: Whatever is wrong with it.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError(f"line {event.start_mark.line + 1} holds an alias (*) or a tag (!)")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            _require_names([key for key, _ in node.value])
        return node


def _require_names(keys: Sequence[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        line, name = key.start_mark.line + 1, str(key.value)
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"line {line} holds a key that is no name")
        if name in seen:
            raise ValueError(f"line {line} holds {name[:80]} again")
        seen.add(name)
