"""What all panels have in common: rows that fill them, rows of buttons, plots of one style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


class Panel(foo.Panel):  # type: ignore[misc]  # FiftyOne has no types
    """A panel, which subclasses fill in :meth:`draw`.

    Attributes:
        name: FiftyOne's name of it, in ``fiftyone.yml`` too.
        label: on its tab.
        icon: of Google's Material icons.
        help: what a question mark beside the tab says, as Markdown.
        surfaces: ``"grid"`` or ``"modal"``, where it can be opened.
        gap: between two rows.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    icon: ClassVar[str]
    help: ClassVar[str]
    surfaces: ClassVar[str] = "grid"
    gap: ClassVar[int] = 2

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name=self.name,
            label=self.label,
            icon=self.icon,
            help_markdown=self.help,
            surfaces=self.surfaces,
        )

    def render(self, ctx: Any) -> types.Property:
        panel = types.Object()
        self.draw(ctx, panel)
        # rows as wide as the panel, which plots follow when it gets narrower
        fill = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)"}}}
        view = types.GridView(orientation="vertical", gap=self.gap, pad=1, componentsProps=fill)
        return types.Property(panel, view=view)

    def draw(self, ctx: Any, panel: types.Object) -> None:
        """Fill the panel."""
        raise NotImplementedError


def add_button(
    row: types.Object,
    name: str,
    label: str,
    icon: str,
    click: Callable[[Any], None],
    params: dict[str, Any] | None = None,
) -> None:
    """Add a button to a row; a click calls ``click`` with ``params`` in the context."""
    row.btn(f"{name}_button", label, icon, "outlined", on_click=click, params=params)


def add_plot(
    panel: types.Object, name: str, data: list[dict[str, Any]], style: dict[str, Any], **more: Any
) -> None:
    """Add a plot, over which the wheel scrolls the panel."""
    panel.plot(name, data=data, layout=style, config={"scrollZoom": False}, **more)


def bars(name: str, x: list[Any], y: list[Any], colour: Any, **more: Any) -> dict[str, Any]:
    """Plotly's data of bars, of one colour or of one each."""
    return {"type": "bar", "name": name, "x": x, "y": y, "marker": {"color": colour}, **more}


def line(name: str, x: list[Any], y: list[Any], number: int) -> dict[str, Any]:
    """Plotly's data of a curve, in the colour with this number."""
    colour = {"color": COLOURS[number % len(COLOURS)]}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": colour}


def layout(title: str, height: int = 260, lines: int = 0, **more: Any) -> dict[str, Any]:
    """Plotly's layout of a plot: the title, a legend of so many lines, then the plot's height."""
    above = 20 * lines
    place = {"x": 0, "y": 1, "yanchor": "top", "pad": {"t": 8}}
    return {
        "title": {"text": title, "font": {"size": 14}, **place},
        "height": height + above,
        "margin": {"l": 40, "r": 10, "t": 35 + above, "b": 30},
        "showlegend": lines > 0,
        "legend": {"x": 0, "y": 1, "yanchor": "bottom"},
        **more,
    }
