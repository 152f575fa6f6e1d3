"""What the operators' forms share: inputs with remembered values, checks and messages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import types

from promerge_fo.dataset.database import is_patches

T = TypeVar("T")

Choices: TypeAlias = "Collection[str] | Mapping[str, str] | Mapping[str, tuple[str, str]]"
"""Values; or values with what they mean; or values with a label and what they mean."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class CannotRunError(Exception):
    """Why an operator cannot run here, whatever is put into its form."""


class Form:
    """The inputs of an operator while they are put together.

    Args:
        ctx: FiftyOne's execution context.
        heading: what stands above the form.
        button: what the button says that runs the operator.
        last: what was given the last time, which the inputs start from.

    Attributes:
        inputs: FiftyOne's object that takes the inputs.
    """

    def __init__(self, ctx: Any, heading: str, button: str, last: dict[str, Any]) -> None:
        self.ctx = ctx
        self.last = last
        self.inputs = types.Object()
        self._view = types.PromptView(label=heading, submit_button_label=button)
        self._refusals: list[str] = []
        self._missing: list[str] = []  # nothing is wrong yet, but the operator cannot run

    def given(self, name: str, default: Any = None) -> Any:
        """What the user has put in so far, or else the last time, or else the default."""
        return self.ctx.params.get(name, self.last.get(name, default))

    def target(self) -> Any:
        """Which images: a menu, or a note where patches are shown; returns those chosen now."""
        if is_patches(self.ctx.view):
            about = "Patches are shown, and this takes whole images: clear the view to choose some."
            self.note("target", "The images of the whole dataset", about)
        else:
            self.inputs.view_target(self.ctx)
        return target_of(self.ctx)

    def text(
        self,
        name: str,
        label: str,
        description: str = "",
        default: Any = None,
        missing: str | None = None,
        view: types.View | None = None,
    ) -> Any:
        """A line of text; returns what it says now.

        Args:
            name: of the input.
            label: above it.
            description: what it is.
            default: what it says at first.
            missing: what to say where it is empty; without it, it may be.
            view: FiftyOne's view of it.
        """
        said = self._add(self.inputs.str, name, label, description, default, view=view)
        if missing is not None and not said:
            self.miss(name, missing)
        return said

    def count(
        self,
        name: str,
        label: str,
        description: str = "",
        default: int | None = None,
        missing: str | None = None,
        least: int = 1,
    ) -> Any:
        """A whole number; returns what it is now. The arguments are those of :meth:`text`."""
        count = self._add(self.inputs.int, name, label, description, default, min=least)
        if missing is not None and count is None:
            self.miss(name, missing)
        return count

    def share(
        self, name: str, label: str, description: str = "", default: float | None = None
    ) -> Any:
        """A number in [0, 1]; returns what it is now."""
        return self._add(self.inputs.float, name, label, description, default, min=0, max=1)

    def tick(self, name: str, label: str, description: str = "", keep: bool = False) -> bool:
        """A box that is empty at first; returns whether it is ticked.

        Args:
            name: of the input.
            label: beside the box.
            description: what it does.
            keep: whether it is ticked as it was the last time: for settings, not for consent.
        """
        first = keep and bool(self.last.get(name))
        self.inputs.bool(name, default=first, label=label, description=description)
        return bool(self.ctx.params.setdefault(name, first))

    def group(self, name: str, inputs: types.Object) -> None:
        """Inputs under a name of their own, which start from what was given the last time."""
        given = self.last.get(name) or {}
        kept = {key: value for key, value in given.items() if key in inputs.properties}
        for key, value in kept.items():
            inputs.properties[key].default = value
        self.inputs.define_property(name, inputs)
        if kept:
            self.ctx.params[name] = {**kept, **(self.ctx.params.get(name) or {})}

    def choose(
        self,
        name: str,
        choices: Choices,
        label: str,
        description: str = "",
        default: str | None = None,
    ) -> Any:
        """A menu, never without a choice if there is one; returns what is chosen now."""
        known = list(choices)
        candidates = (self.last.get(name), default, *known)
        first = next((value for value in candidates if value in known), None)
        add_menu(self.inputs, name, choices, label, description, first)
        if self.ctx.params.get(name) is None:  # called from Python, or before the App has it
            self.ctx.params[name] = first
        chosen = self.ctx.params.get(name)
        return chosen if chosen in known else first

    def file(self, name: str, label: str, description: str) -> None:
        """The path of a file that is there."""

        def check(path: str) -> None:
            if not Path(path).expanduser().is_file():
                raise ValueError(f"{label}: {path} is no file on the server's machine.")

        self.path(name, label, description, check)

    def folder(self, name: str, label: str, description: str) -> None:
        """The path of a folder that can be written to, or made."""
        self.path(name, label, description, lambda path: require_writable(absolute(path) / "new"))

    def path(
        self,
        name: str,
        label: str,
        description: str,
        check: Callable[[str], Any] | None = None,
        missing: str | None = None,
        default: str | None = None,
    ) -> None:
        """A path on the server's machine.

        Args:
            name: of the input.
            label: above it.
            description: what the path is.
            check: is given the path; see :meth:`attempt`.
            missing: what to say where no path is given; without it, none is needed.
            default: the path to start from.
        """
        # a text, as FiftyOne's explorer of files does not show what was chosen the last time; its
        # values are taken from Python, too
        try:
            for values in (self.last, self.ctx.params):
                if name in values:
                    values[name] = chosen_path(values[name], label)
        except TypeError as error:
            self.refuse(str(error), f"{name}_refused")
            check = None
        where = f"{description}; a path on the machine that the App's server runs on"
        path = self.text(name, label, where, default)
        if path and check is not None:
            self.attempt(name, lambda: check(path))
        elif not path and missing is not None:
            self.miss(name, missing)

    def new_field(self, name: str, default: str) -> None:
        """The name of a new field, or of one whose labels may be replaced (``overwrite``)."""
        field = self.text(name, "Label field", default=default)
        wrong = why_no_name(field, "field")
        if wrong:
            self.refuse(wrong, "field_refused")
        elif self.ctx.dataset.has_field(field):
            replace = f"Replace the labels in '{field}'"
            self.confirm("overwrite", f"There is a field '{field}'", replace, "field")
            self.ask_to_drop()

    def ask_to_drop(self, hands_on: bool = True) -> None:
        """A box (``drop_decisions``) for a field whose labels are about to be replaced.

        Args:
            hands_on: whether what was done to a label goes to the new one that equals it.
        """
        about = (
            "What you did to one goes to the new one that equals it (IoU over 0.9). Where there is "
            "none, nothing is changed, unless this is ticked."
            if hands_on
            else "Where you did something to one, nothing is changed, unless this is ticked: it is "
            "then gone."
        )
        self.tick("drop_decisions", "Replace masks that I worked on, too", about)

    def confirm(self, name: str, warning: str, label: str, instead: str) -> None:
        """A warning, and a box to be ticked before the operator runs.

        Args:
            name: of the box.
            warning: what happens.
            label: of the box.
            instead: what else can be chosen: "field" or "folder".
        """
        self.warn(f"{name}_warning", warning)
        if not self.tick(name, label):
            self.refuse(f"Tick the box, or choose another {instead}.", f"{name}_refused")

    def attempt(self, name: str, work: Callable[[], T]) -> T | None:
        """What a function returns; or None, and the form says what is wrong.

        Args:
            name: of the input, or the group of inputs, that would be at fault.
            work: raises an error that says what is wrong.
        """
        try:
            return work()
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            self.refuse(str(error), f"{name}_refused")
            return None

    def refuse(self, text: str, name: str = "refused") -> None:
        """Say what is wrong; the operator cannot run until it is mended."""
        self.inputs.view(name, types.Error(label="This does not work yet", description=text))
        self._refusals.append(text)

    def miss(self, name: str, text: str) -> None:
        """Say what is not there yet; the operator cannot run until it is.

        FiftyOne's own ``required`` has a form open red.
        """
        self.note(f"{name}_missing", text)
        self._missing.append(text)

    def warn(self, name: str, text: str, description: str = "") -> None:
        """Say what should be known before it is too late."""
        self.inputs.view(name, types.Warning(label=text, description=description))

    def note(self, name: str, text: str, description: str = "") -> None:
        """Say what is good to know."""
        self.inputs.view(name, types.Notice(label=text, description=description))

    def property(self) -> types.Property:
        """What ``resolve_input`` returns."""
        made = types.Property(self.inputs, view=self._view)
        wrong = [*self._refusals, *self._missing]
        made.invalid = bool(wrong)
        if not is_from_app(self.ctx):
            made.error_message = " ".join(wrong) or None
        elif wrong:  # each stands beside its input; without a message, the App makes one up
            made.error_message = "This cannot run yet: see below" if self._refusals else " "
        return made

    def _add(
        self, kind: Any, name: str, label: str, description: str, default: Any, **more: Any
    ) -> Any:
        first = self.last.get(name, default)
        kind(name, label=label, description=description, default=first, **more)
        if first is not None:
            self.ctx.params.setdefault(name, first)
        return self.ctx.params.get(name)


def result(name: str) -> types.Property:
    """A form that shows a text of an operator's results."""
    outputs = types.Object()
    outputs.str(name, label="Result")
    return types.Property(outputs)


def is_from_app(ctx: Any) -> bool:
    """Whether a page of the App asks, and waits: it sends what is selected, which Python does not.

    A scheduled run has what the page sent, but nobody waits for it.
    """
    sent = {"selected", "selected_labels", "query_performance"}
    return not ctx.delegated and sent <= ctx.request_params.keys()


def menu(view: types.Choices, choices: Choices) -> types.Choices:
    """Give a view of FiftyOne's its choices."""
    described = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
    for value, meaning in described.items():
        label, text = meaning if isinstance(meaning, tuple) else (value, meaning)
        view.add_choice(value, label=label, description=text)
    return view


def add_menu(
    inputs: types.Object,
    name: str,
    choices: Choices,
    label: str,
    description: str = "",
    default: str | None = None,
    **more: Any,
) -> None:
    """Add a menu to a form or a panel; ``default`` is chosen first if it is one of the choices."""
    known = list(choices)
    inputs.enum(
        name,
        known,
        default=default if default in known else None,
        label=label,
        description=description,
        view=menu(types.DropdownView(), choices),
        **more,
    )


def add_parameter(
    group: types.Object, record: Mapping[str, Any], description: str, default: Any
) -> None:
    """Add the input of a parameter, as a configuration's ``describe()`` has it."""
    name = record["name"]
    shared = {"default": default, "label": name, "description": description}
    if record["choices"]:
        group.enum(name, record["choices"], **shared)
    elif record["type"] == "bool":
        group.bool(name, **shared)
    else:
        add = group.int if record["type"] == "int" else group.float
        add(name, min=record["low"], max=record["high"], **shared)


def target_of(ctx: Any) -> Any:
    """The images that the form's menu names; where patches are shown, those of the dataset."""
    return ctx.dataset if is_patches(ctx.view) else ctx.target_view()


def detection_fields(samples: Any) -> list[str]:
    """The fields of a collection of images that hold detections, those that runs made first.

    Of other collections, none.
    """
    if samples.media_type != fom.IMAGE:
        return []
    kind = {"ftype": fo.EmbeddedDocumentField, "embedded_doc_type": fo.Detections}
    fields = samples.get_field_schema(**kind)
    return sorted(fields, key=lambda field: not samples.has_field(f"{field}.run"))


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


def absolute(path: str) -> Path:
    """The path, with ``~`` as the home folder.

    Raises:
        ValueError: it does not say where it starts.
    """
    full = Path(path).expanduser()
    if not full.is_absolute():
        raise ValueError(f"{path!r} is no absolute path, such as /data/{path}.")
    return full


def require_writable(path: Path) -> None:
    """Check that a file or a folder can be made, or written to if it is there.

    Raises:
        OSError: it cannot; the message says what is in the way.
    """
    there = next(each for each in (path, *path.parents) if each.exists())
    if there != path and not there.is_dir():
        raise OSError(f"{path} cannot be written: {there} is no folder. Choose another place.")
    if not os.access(there, os.W_OK):
        raise OSError(
            f"{path} cannot be written: the App's server may not write to {there}. Choose another "
            "place, or change the permissions."
        )


def chosen_path(value: Any, what: str = "The path") -> str | None:
    """The path that was given, or None.

    Args:
        value: a text or another path from Python, or what a file explorer gives.
        what: what the path is of, for the error.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, dict):
        value = value.get("absolute_path")
    if value is None or value == "":
        return None
    if not isinstance(value, str | os.PathLike):
        kind = type(value).__name__
        raise TypeError(f"{what}: {value!r} ({kind}) is no path: give a text, such as '/data/x'.")
    return os.fspath(value)


def filled(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the parameters that have a value: the function that takes them has defaults."""
    return {name: params[name] for name in names if params.get(name) is not None}
