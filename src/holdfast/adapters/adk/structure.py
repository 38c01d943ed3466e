"""Which agents and nodes an app is made of, and how they are nested, as a fingerprint."""

from __future__ import annotations

from collections.abc import Iterator

from google.adk.workflow import BaseNode

from holdfast import codec

_LENGTH = 4  # bytes, as digits


def fingerprint_of(root: BaseNode) -> str:
    """Changes with the type, the name and the nesting of agents and nodes, and with the edges of graphs."""
    return codec.fingerprint("\n".join(_lines(root, "", set())).encode())[:_LENGTH].hex()


def _lines(node: BaseNode, indent: str, above: set[int]) -> Iterator[str]:
    yield f"{indent}{type(node).__qualname__} {node.name}"
    if id(node) in above:
        return
    graph = getattr(node, "graph", None)
    for edge in graph.edges if graph is not None else ():
        yield f"{indent} {edge.from_node.name} -> {edge.to_node.name} {edge.route!r}"
    for inner in node._iter_static_children():
        yield from _lines(inner, indent + "  ", above | {id(node)})
