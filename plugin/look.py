"""How panels look: rows that fill them, and plots of one style."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


def column(gap: int = 2) -> types.GridView:
    """The view of a panel: rows as wide as the panel, which plots follow when it gets narrower."""
    fill = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)"}}}
    return types.GridView(orientation="vertical", gap=gap, pad=1, componentsProps=fill)


def layout(title: str, height: int = 260, lines: int = 0, **more: Any) -> dict[str, Any]:
    """Plotly's layout of a plot: the title, a legend of so many lines, then the plot's height."""
    above = 20 * lines
    return {
        "title": {
            "text": title,
            "font": {"size": 14},
            "x": 0,
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 8},
        },
        "height": height + above,
        "margin": {"l": 40, "r": 10, "t": 35 + above, "b": 30},
        "showlegend": lines > 0,
        "legend": {"x": 0, "y": 1, "yanchor": "bottom"},
        **more,
    }
