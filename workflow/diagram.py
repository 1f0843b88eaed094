"""The picture of a workflow: its graph as Mermaid text, which many viewers and sites render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .graph import Graph


def diagram(graph: Graph, notes: Mapping[tuple[int, int], Sequence[str]] | None = None) -> str:
    """A Mermaid state diagram. `notes` label edges, as with the function that takes them."""
    lines = ["stateDiagram-v2", f"    [*] --> {_id(graph, graph.start)}"]
    for origin, destinations in graph.edges.items():
        for destination in sorted(destinations):
            label = ", ".join((notes or {}).get((origin, destination), ()))
            told = f": {label}" if label else ""
            lines.append(f"    {_id(graph, origin)} --> {_id(graph, destination)}{told}")
    lines.extend(f"    {_id(graph, status)} --> [*]" for status in sorted(graph.terminals))
    return "\n".join(lines) + "\n"


def _id(graph: Graph, status: int) -> str:
    """The status's name as Mermaid takes it: letters, digits and underscores."""
    name = "".join(character if character.isalnum() else "_" for character in graph.name(status))
    return f"s{name}" if name[:1].isdigit() else name
