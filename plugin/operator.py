"""What all operators of this plugin can do: be called from Python, and remember."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.executor import ExecutionContext

from .forms import remember


class Operator(foo.Operator):
    """An operator with a form, which FiftyOne's App shows and Python can do without.

    Subclasses have ``config`` and ``resolve_input``, and do their work in :meth:`work`.
    """

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
            "dataset_name": view._root_dataset.name,
            "view": view._serialize(),
            "params": dict(params),
        }
        ctx = ExecutionContext(operator_uri=self.uri, request_params=request)
        ctx.has_no_memory = True
        known = _fill(self, ctx)
        unknown = sorted(set(params) - known)
        if unknown:
            raise TypeError(
                f"{self.name} takes no {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
            )
        return foo.execute_operator(
            self.uri, {"view": view, "params": ctx.params}, request_delegation=delegate
        )

    def execute(self, ctx: Any) -> Any:
        """Remember the settings, and do the work."""
        if not ctx.delegated:
            remember(ctx)
        return self.work(ctx)

    def work(self, ctx: Any) -> Any:
        """Do what the form says."""
        raise NotImplementedError


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
