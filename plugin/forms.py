"""What the operators' forms share: choices of fields, refusals, remembered settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import types

STORE = "@promerge/promerge"
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Form:
    """The inputs of an operator while they are put together.

    Args:
        ctx: FiftyOne's execution context.
        label: the form's heading.
        button: what the button says that runs the operator.

    Attributes:
        inputs: FiftyOne's object that takes the properties.
        last: what this operator was given the last time on this dataset.
    """

    def __init__(self, ctx: Any, label: str, button: str | None = None) -> None:
        self.ctx = ctx
        self.inputs = types.Object()
        self.last = last_settings(ctx, ctx.operator_uri)
        self._view = types.PromptView(label=label, submit_button_label=button or "Execute")
        self._refusals: list[str] = []

    def given(self, name: str, default: Any = None) -> Any:
        """What the user has put in so far, or else the last time, or else the default."""
        return self.ctx.params.get(name, self.last.get(name, default))

    def choose(
        self,
        name: str,
        choices: Iterable[str] | Mapping[str, str],
        label: str,
        description: str = "",
        default: str | None = None,
        required: bool = True,
    ) -> str | None:
        """A menu; what is chosen now is returned."""
        view = types.DropdownView()
        described = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
        for value, meaning in described.items():
            view.add_choice(value, label=value, description=meaning)
        known = list(described)
        first = self.last.get(name, default)
        if first not in known:
            first = default if default in known else known[0] if known and required else None
        self.inputs.enum(
            name, known, default=first, required=required, label=label,
            description=description, view=view,
        )  # fmt: skip
        chosen = self.ctx.params.get(name, first)
        return chosen if chosen in known else first

    def ask_file(self, name: str, label: str, description: str, required: bool = False) -> None:
        """A file that is there, on the server's machine."""
        self.ask_path(name, label, description, required)
        path = self.given(name)
        if path and not Path(path).expanduser().is_file():
            self.refuse(f"There is no file {path}.", f"{name}_refused")
        elif required and not path:
            self.refuse("Say which file.", f"{name}_refused")

    def ask_path(
        self,
        name: str,
        label: str,
        description: str,
        required: bool = False,
        default: str | None = None,
    ) -> None:
        """A path, on the server's machine."""
        self.inputs.str(
            name,
            required=required,
            default=self.last.get(name, default),
            label=label,
            description=f"{description}; a path on the machine that the App's server runs on",
        )

    def ask_free_field(self, name: str, default: str) -> None:
        """The name of a new field, or of one whose labels may be replaced (``overwrite``)."""
        self.inputs.str(
            name, required=True, default=self.last.get(name, default), label="Label field"
        )
        field = self.given(name, default)
        wrong = why_no_name(field, "field")
        if wrong:
            self.refuse(wrong, "field_refused")
        elif self.ctx.dataset.has_field(field):
            self.warn("replaces", f"There is a field '{field}'")
            self.inputs.bool("overwrite", default=False, label=f"Replace the labels in '{field}'")
            if not self.ctx.params.get("overwrite"):
                self.refuse("Tick the box, or choose another field.", "overwrite_refused")

    def refuse_without_images(self) -> bool:
        """Refuse a view of video, 3D or groups, with what to select; returns whether it is one."""
        from promerge_fo.dataset.samples import require_images

        try:
            require_images(self.ctx.view)
        except fom.MediaTypeError as error:
            self.refuse(str(error))
            return True
        return False

    def refuse(self, text: str, name: str = "refused") -> None:
        """Say what is wrong; the operator cannot run until it is mended."""
        self.inputs.view(name, types.Error(label="This does not work yet", description=text))
        self._refusals.append(text)

    def warn(self, name: str, text: str, description: str = "") -> None:
        """Say what is to be known before it is too late."""
        self.inputs.view(name, types.Warning(label=text, description=description))

    def note(self, name: str, text: str, description: str = "") -> None:
        """Say what is good to know."""
        self.inputs.view(name, types.Notice(label=text, description=description))

    def property(self) -> types.Property:
        """What ``resolve_input`` returns."""
        made = types.Property(self.inputs, view=self._view)
        made.invalid = bool(self._refusals)
        made.error_message = " ".join(self._refusals) or None
        return made


def detection_fields(samples: Any) -> list[str]:
    """The fields of a collection of images that hold detections; of others, none."""
    if samples.media_type != fom.IMAGE:
        return []
    return list(
        samples.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    )


def choose_field(
    inputs: types.Object,
    name: str,
    fields: list[str],
    *,
    label: str,
    description: str | None = None,
    default: str | None = None,
    **kwargs: Any,
) -> None:
    """Let one of these fields be chosen, the default if it is among them."""
    view = types.DropdownView()
    for field in fields:
        view.add_choice(field, label=field)
    inputs.enum(
        name,
        fields,
        required=True,
        default=default if default in fields else None,
        label=label,
        description=description,
        view=view,
        **kwargs,
    )


def refused(title: str, reason: str) -> types.Property:
    """A form that says why nothing can be done, and cannot be executed."""
    inputs = types.Object()
    inputs.view("refused", types.Error(label=title, description=reason))
    form = types.Property(inputs)
    form.invalid = True
    form.error_message = reason
    return form


def why_no_name(name: str, what: str) -> str | None:
    """What is wrong with a name for a field or a run, or None."""
    if not name:
        return f"The {what} has no name yet."
    if not _IDENTIFIER.fullmatch(name):
        return (
            f"{name!r} is no name for a {what}: take letters, digits and underscores, with a "
            "letter first."
        )
    return None


def last_settings(ctx: Any, operator: str) -> dict[str, Any]:
    """What an operator was given the last time on this dataset."""
    if ctx.dataset is None or getattr(ctx, "has_no_memory", False):
        return {}
    return dict(ctx.store(STORE).get(f"settings {operator}") or {})


def remember(ctx: Any) -> None:
    """Keep what the operator was given, for the next time."""
    ctx.store(STORE).set(f"settings {ctx.operator_uri}", dict(ctx.params))


def chosen_path(value: Any) -> str | None:
    """The path that a file explorer or a text input gave."""
    if isinstance(value, dict):
        value = value.get("absolute_path")
    return value or None
