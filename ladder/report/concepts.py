"""The quality of concept vectors as one self-contained page: how well each layer tells them apart, which are alike,
which heads and neurons carry them; and a text token by token, as each of them is read in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ladder.report.drawing import LINES, Chart, Dot, Layer, Tick, template, up
from ladder.system.files import save_text

_LINE = "#2f6fb5"


def write(found: Mapping[str, Any], name: str, path: Path) -> None:
    """Write the page of a quality report.

    Args:
        found: as ``Quality.to_dict`` has it.
        name: of the vectors.
    """
    concepts = sorted(found["concepts"], key=lambda one: one["name"])
    names = [one["name"] for one in found["concepts"]]
    order = _alike_together(found["cosines"])
    page = template("concepts.html.jinja").render(
        name=name,
        found=found,
        concepts=concepts,
        names=[names[place] for place in order],
        cosines=[[found["cosines"][row][column] for column in order] for row in order],
        separation=separation_chart(found) if found["splits"] else None,
        clustering=clustering_chart(found["clustering"]) if found["clustering"] else None,
        heads={one["name"]: _shares(one["heads"]) for one in concepts},
    )
    save_text(path, page)


def _alike_together(cosines: Sequence[Sequence[float]]) -> list[int]:
    """Places in an order that puts alike ones side by side: each is followed by the nearest one that is left."""
    left = set(range(1, len(cosines)))
    order = [0] if cosines else []
    while left:
        nearest = max(left, key=lambda place: cosines[order[-1]][place])
        order.append(nearest)
        left.remove(nearest)
    return order


def _shares(heads: Sequence[Sequence[float]]) -> list[tuple[str, float, float]]:
    """Layer and head, the norm of the largest as 1, and the selectivity."""
    largest = max((norm for _, _, norm, _ in heads), default=1.0) or 1.0
    return [(f"{layer:.0f}.{head:.0f}", norm / largest, selectivity) for layer, head, norm, selectivity in heads]


def separation_chart(found: Mapping[str, Any]) -> Chart:
    """Accuracy on each held-out setting by layer, with chance and the bag of words as level lines."""
    layers, splits = found["layers"], found["splits"]
    left = _lefts(layers)
    n = sum(one["n"] for one in splits)
    told = {layer: sum(one["n"] * _at(one["by_layer"], layer) for one in splits) / n for layer in layers}
    lines = [(f"vectors, at best {max(told.values()):.1%}", list(told.values()))]
    lines += [(f"bag of words {found['words']:.1%}", [found["words"]] * len(layers))]
    lines += [(f"chance {found['chance']:.1%}", [found["chance"]] * len(layers))]
    drawn = [
        Layer(" ".join(f"{x},{98 - 96 * value:.2f}" for x, value in zip(left, values, strict=True)), LINES[place], text)
        for place, (text, values) in enumerate(lines)
    ]
    return Chart("Held-out texts told rightly", "layer", drawn, _ticks(layers, left), up([0.0, 0.5, 1.0]))


def clustering_chart(clustering: Sequence[Mapping[str, Any]]) -> Chart:
    """How far families of concepts are apart, by layer."""
    layers, gaps = [one["layer"] for one in clustering], [one["gap"] for one in clustering]
    left = _lefts(layers)
    low, high = min(-0.5, *gaps), max(1.0, *gaps)
    tops = [round(98 - 96 * (gap - low) / (high - low), 2) for gap in gaps]
    dots = [
        Dot(
            x,
            y,
            "PROMOTED" if one["p_value"] <= 0.05 else "PASSED",
            f"layer {one['layer']}: {one['gap']:+.3f}, p {one['p_value']:.3f}",
        )
        for x, y, one in zip(left, tops, clustering, strict=True)
    ]
    line = Layer(" ".join(f"{x},{y}" for x, y in zip(left, tops, strict=True)), _LINE, "families")
    return Chart(
        "Cosine within families less that between them",
        "layer",
        [line],
        _ticks(layers, left),
        up([low, high]),
        dots=dots,
    )


def _at(by_layer: Mapping[Any, float], layer: int) -> float:
    """JSON has texts as keys."""
    return by_layer[layer] if layer in by_layer else by_layer[str(layer)]


def _lefts(layers: Sequence[int]) -> list[float]:
    first, last = layers[0], layers[-1]
    return [round(2 + 96 * (layer - first) / max(1, last - first), 2) for layer in layers]


def _ticks(layers: Sequence[int], left: Sequence[float]) -> list[Tick]:
    return [Tick(x, str(layer)) for x, layer in zip(left, layers, strict=True)]


def write_heat(told: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write texts token by token, a row for each concept: redder where it is read above the corpus, bluer below.

    Args:
        told: as ``ladder sample --readout`` answers with ``--json``.
    """
    save_text(path, template("heat.html.jinja").render(answers=told))
