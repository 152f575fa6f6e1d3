"""What all operators of this plugin have in common: their look, their form, calls from Python."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextvars import ContextVar
from inspect import isgeneratorfunction
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.core.media import MediaTypeError
from fiftyone.operators import types
from fiftyone.operators.executor import ExecutionContext

from promerge_fo.dataset.database import root_dataset, stages_of
from promerge_fo.dataset.samples import require_images

from .forms import CannotRunError, Form
from .memory import keep_settings, last_settings
from .progress import failure

logger = logging.getLogger("fiftyone.promerge")

_FROM_PYTHON: ContextVar[bool] = ContextVar("from_python", default=False)


class BaseOperator(foo.Operator):  # type: ignore[misc]  # FiftyOne has no types
    """An operator whose name is that of its file.

    Subclasses ask for what they need in :meth:`ask`, and do it in :meth:`work`. Where that is a
    generator, it shows its progress in the App.

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
            execute_as_generator=isgeneratorfunction(self.work),
            allow_delegated_execution=self.delegable,
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
                require_images(ctx.view)
            self.ask(form)
        except (CannotRunError, MediaTypeError) as error:
            form.refuse(str(error))
        return form.property()

    def last(self, ctx: Any) -> dict[str, Any]:
        """What the form starts from."""
        return last_settings(ctx, ctx.operator_uri)

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
        if isgeneratorfunction(self.work):
            return self._steps(ctx)
        try:
            result = self.work(ctx)
        except Exception:
            logger.exception("%s failed", self.label)
            raise
        self.done(ctx)
        return result

    def _steps(self, ctx: Any) -> Generator[Any, None, None]:
        """The work step by step. The App shows no error of a generator: it is shown here."""
        try:
            yield from self.work(ctx)
        except Exception as error:
            logger.exception("%s failed", self.label)
            if not ctx.delegated:
                yield failure(ctx, error)
            raise
        self.done(ctx)


class Operator(BaseOperator):
    """An operator that remembers what it was given, and takes the same by name from Python."""

    def __call__(self, samples: Any, delegate: bool = False, **params: Any) -> Any:
        """Run the operator from Python.

        Args:
            samples: a dataset or a view.
            delegate: schedule it for ``fiftyone delegated launch`` instead.
            params: what the form asks for, by the names there; what is left out takes the form's
                default.

        Returns:
            FiftyOne's ``ExecutionResult``, or an ``asyncio.Task`` of it in a notebook.

        Raises:
            TypeError: a parameter that the form does not have.
            fiftyone.operators.ExecutionError: a value that the form refuses, or a failed run.
        """
        view = samples.view()
        request = {
            "dataset_name": root_dataset(view).name,
            "view": stages_of(view),
            "params": dict(params),
        }
        ctx = ExecutionContext(operator_uri=self.uri, request_params=request)
        ctx.from_python = True
        known = _fill(self, ctx)
        unknown = sorted(set(params) - known)
        if unknown:
            raise TypeError(
                f"{self.name} takes no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
            )
        token = _FROM_PYTHON.set(True)  # asyncio's tasks begin with a copy
        try:
            return foo.execute_operator(
                self.uri, {"view": view, "params": ctx.params}, request_delegation=delegate
            )
        finally:
            _FROM_PYTHON.reset(token)

    def done(self, ctx: Any) -> None:
        """Remember what worked, for the next form: what Python gave is Python's own."""
        if not ctx.delegated and not _FROM_PYTHON.get():
            keep_settings(ctx)


def _fill(operator: Operator, ctx: Any) -> set[str]:
    """Give the context the form's defaults; returns the names of all of its inputs."""
    while True:
        form = operator.resolve_input(ctx)
        before = repr(ctx.params)
        names = _fill_object(form.type, ctx.params)
        if repr(ctx.params) == before:
            return names


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
