"""What all operators of this plugin have in common: their look, their form, calls from Python."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.core.media import MediaTypeError
from fiftyone.operators import types
from fiftyone.operators.executor import ExecutionContext

from promerge_fo.dataset.database import root_dataset, stages_of
from promerge_fo.dataset.samples import require_images

from .forms import CannotRunError, Form, is_from_app
from .jobs import Job, Outcome, submit
from .memory import keep_settings, last_settings
from .places import RUNS_PANEL, open_panel

logger = logging.getLogger("fiftyone.promerge")


class BaseOperator(foo.Operator):  # type: ignore[misc]  # FiftyOne has no types
    """An operator whose name is that of its file.

    Subclasses ask for what they need in :meth:`ask`, and do it in :meth:`work`.

    Attributes:
        label: what the App calls it.
        description: what the App's list of operators says of it.
        icon: of Google's Material icons.
        heading: of the form; the label by default.
        button: what the form's button says.
        place: where the App has a button that opens the form; None for nowhere.
        place_label: what that button says; the label by default.
        dynamic: whether the form reacts to what is put in.
        delegable: whether it can be scheduled for ``fiftyone delegated launch``.
        needs_images: whether it is refused where the current view has no images.
    """

    label: ClassVar[str]
    description: ClassVar[str]
    icon: ClassVar[str]
    heading: ClassVar[str] = ""
    button: ClassVar[str] = "Execute"
    place: ClassVar[types.Places | None] = None
    place_label: ClassVar[str] = ""
    dynamic: ClassVar[bool] = True
    delegable: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=type(self).__module__.rpartition(".")[2],
            label=self.label,
            description=self.description,
            icon=self.icon,
            dynamic=self.dynamic,
            allow_delegated_execution=self.delegable,
            default_choice_to_delegated=self.delegable,  # where the App can schedule at all
        )

    def resolve_placement(self, ctx: Any) -> types.Placement | None:
        if self.place is None:
            return None
        label = self.place_label or self.label
        return types.Placement(self.place, types.Button(label=label, icon=self.icon, prompt=True))

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, self.heading or self.label, self.button, self.last(ctx))
        try:
            if self.needs_images:
                self.require(ctx.view)
            self.ask(form)
        except (CannotRunError, MediaTypeError) as error:
            form.refuse(str(error))
        return form.property()

    def last(self, ctx: Any) -> dict[str, Any]:
        """What the form starts from."""
        return last_settings(ctx, ctx.operator_uri)

    def require(self, view: Any) -> None:
        """Refuse a view that the operator is not for.

        Raises:
            fiftyone.core.media.MediaTypeError: it does not hold images.
        """
        require_images(view)

    def ask(self, form: Form) -> None:
        """Put the form together; nothing is asked by default.

        Raises:
            CannotRunError: the operator cannot run here.
        """

    def work(self, ctx: Any) -> Any:
        """Do what the form says."""
        raise NotImplementedError

    def done(self, ctx: Any) -> None:
        """What follows once the work has succeeded."""

    def execute(self, ctx: Any) -> Any:
        try:
            result = self.work(ctx)
        except Exception:
            logger.exception("%s failed", self.label)
            raise
        self.done(ctx)
        return result


class Operator(BaseOperator):
    """An operator that remembers what it was given, and takes the same by name from Python.

    Attributes:
        shows_groups: the box of the form that shows its groups of inputs.
    """

    shows_groups: ClassVar[str] = "show_parameters"

    def __call__(self, samples: Any, delegate: bool = False, **params: Any) -> Any:
        """Run the operator from Python.

        Args:
            samples: a dataset or a view.
            delegate: schedule it for ``fiftyone delegated launch`` instead.
            params: what the form asks for, by the names there; what is left out takes the form's
                default. What the form has in groups, as all parameters of a method, is given by
                its own name, too.

        Returns:
            FiftyOne's ``ExecutionResult``, whose ``result`` says what was done; or an
            ``asyncio.Task`` of it in a notebook.

        Raises:
            TypeError: a parameter that the form does not have.
            fiftyone.operators.ExecutionError: a value that the form refuses, or a failed run.
        """
        view, groups = samples.view(), self.groups(params)
        request = {
            "dataset_name": root_dataset(view).name,
            "view": stages_of(view),
            "params": _grouped(params, groups, self.shows_groups),
        }
        ctx = ExecutionContext(operator_uri=self.uri, request_params=request)
        ctx.from_python = True
        form, known = _fill(self, ctx)
        unknown = sorted(ctx.params.keys() - known)
        if unknown and not form.invalid:  # a form that refuses may show none of its inputs
            known = known.union(*groups.values()).difference(groups)
            takes = ", ".join(sorted(known)) or "nothing"
            raise TypeError(f"{self.name} takes no {', '.join(unknown)}; it takes {takes}")
        return foo.execute_operator(
            self.uri, {"view": view, "params": ctx.params}, request_delegation=delegate
        )

    def groups(self, params: Mapping[str, Any]) -> dict[str, Collection[str]]:
        """The groups of the form's inputs, each with the names of its inputs; none by default."""
        return {}

    def done(self, ctx: Any) -> None:
        """Remember what worked, for the next form: what Python gave is Python's own."""
        if is_from_app(ctx):
            keep_settings(ctx)


class LongOperator(Operator):
    """An operator whose work takes long: in the App it is a job, which the App does not wait for.

    The panel "ProMerge: runs" shows how far it is, what it has done or what went wrong, and stops
    it. From Python, and where it was scheduled, it is done before :meth:`execute` returns.

    Attributes:
        makes_masks: whether the dataset gets masks, which the App is to tell apart by colour.
    """

    delegable = True
    makes_masks: ClassVar[bool] = False

    def about(self, ctx: Any) -> str:
        """What the work is done to, for the panel."""
        return str(ctx.params.get("label_field", ""))

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        """Do what the form says, and show how far it is."""
        raise NotImplementedError

    def execute(self, ctx: Any) -> dict[str, Any]:
        tell = ctx.set_progress if ctx.delegated else None
        in_app = is_from_app(ctx)
        job = Job(ctx.dataset, self.label, self.about(ctx), tell, not in_app and not ctx.delegated)

        def run() -> dict[str, Any]:
            outcome = job.run(lambda job: self.work(ctx, job))
            self.done(ctx)
            return {"outcome": outcome.text, **outcome.result}

        if not in_app:
            return run()
        from promerge_fo.dataset.labels import colour_by_instance

        if self.makes_masks and colour_by_instance(ctx.dataset):
            ctx.trigger("set_color_scheme", {"color_by": "instance"})  # of the page that is open
        submit(run)
        open_panel(ctx, RUNS_PANEL)
        return {}


def _grouped(
    params: Mapping[str, Any], groups: Mapping[str, Collection[str]], shows_groups: str
) -> dict[str, Any]:
    """Parameters as the form has them: those of groups in their groups, lists with commas."""
    made = dict(params)
    for group, names in groups.items():
        inner = {name: made.pop(name) for name in list(made) if name in names}
        if inner:
            texts = {
                name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
                for name, value in inner.items()
            }
            made[group] = {**(made.get(group) or {}), **texts}
            made.setdefault(shows_groups, True)
    return made


def _fill(operator: Operator, ctx: Any) -> tuple[types.Property, set[str]]:
    """Give the context the form's defaults; returns the form, and the names of all its inputs."""
    while True:
        form = operator.resolve_input(ctx)
        before = repr(ctx.params)
        names = _fill_object(form.type, ctx.params)
        if repr(ctx.params) == before:
            return form, names


def _fill_object(made: types.Object, params: dict[str, Any]) -> set[str]:
    names = set()
    for name, prop in made.properties.items():
        if isinstance(prop.type, types.Void):
            continue
        names.add(name)
        if isinstance(prop.type, types.Object):
            _fill_object(prop.type, params.setdefault(name, {}))
        elif name not in params and prop.default is not None:
            params[name] = prop.default
    return names
