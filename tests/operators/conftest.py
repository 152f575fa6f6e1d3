"""The plugin, installed where FiftyOne looks for it."""

import sys
import time

import pytest

#: What a page of the App sends with each request, and Python does not.
PAGE = {"selected": [], "selected_labels": [], "query_performance": True}


@pytest.fixture(scope="session")
def operator(fo):
    """An operator of the plugin by its name."""
    import fiftyone.operators as foo

    from promerge_fo.install.plugin import install_plugin

    install_plugin()
    return lambda name: foo.get_operator(f"@promerge/promerge/{name}")


@pytest.fixture
def form():
    """What an operator asks for on a dataset: ``form(operator, dataset, **params)``."""
    from fiftyone.operators.executor import ExecutionContext

    def resolve(operator, samples, **params):
        view = samples.view()
        request = {
            "dataset_name": view._root_dataset.name,
            "view": view._serialize(),
            "params": params,
        }
        ctx = ExecutionContext(operator_uri=operator.uri, request_params=request)
        return operator.resolve_input(ctx)

    return resolve


@pytest.fixture
def from_app():
    """Runs an operator as a page of the App does: ``from_app(operator, samples, **params)``.

    Returns the record of its job once it has ended; with ``wait=False``, at once.
    """
    from fiftyone.operators.executor import ExecutionContext, Executor

    def run(operator, samples, wait=True, **params):
        view = samples.view()
        request = {
            "dataset_name": view._root_dataset.name,
            "view": view._serialize(),
            "params": params,
            **PAGE,
        }
        ctx = ExecutionContext(
            operator_uri=operator.uri, request_params=request, executor=Executor()
        )
        jobs = sys.modules[operator.execute.__module__.rpartition(".")[0] + ".jobs"]
        before = {record.id for record in jobs.jobs_of(ctx.dataset)}
        assert operator.execute(ctx) == {}
        *run.told, opened = ctx.executor._requests
        assert opened.params["name"] == "promerge_runs"

        (new,) = {record.id for record in jobs.jobs_of(ctx.dataset)} - before

        def record():
            return next(record for record in jobs.jobs_of(ctx.dataset) if record.id == new)

        until = time.monotonic() + 120
        while wait and record().is_open:
            assert time.monotonic() < until
            time.sleep(0.05)
        return record if not wait else record()

    return run


@pytest.fixture
def context():
    """What the App sends with a request: ``context(view, params, selected=...)``."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    def make(samples, params=None, **request):
        return ExecutionContext(
            request_params={
                "dataset_name": samples._root_dataset.name,
                "view": samples.view()._serialize(),
                "params": params or {},
                **request,
            },
            executor=Executor(),
        )

    return make


@pytest.fixture
def panel(operator, context):
    """Calls a method of a panel as the App does, and keeps the panel's state in between."""
    state = {}

    def call(name, method, samples, params=None, **request):
        params = {"panel_id": "p", "panel_state": state, "__method__": method, **(params or {})}
        ctx = context(samples, params, **request)
        operator(name).execute(ctx)
        state.update(ctx.panel_state)
        return ctx

    call.state = state
    return call


@pytest.fixture
def launch():
    """Does what was scheduled, as ``fiftyone delegated launch`` would: ``launch(result)``."""
    from fiftyone.operators.delegated import DelegatedOperationService

    def do(result):
        service = DelegatedOperationService()
        scheduled = service.get(result.result["id"])
        done = service.execute_operation(scheduled)
        assert done is None or done.error is None, done.error
        assert service.get(scheduled.id).run_state == "completed"

    return do


@pytest.fixture(scope="session")
def made(fo, photographs):
    """What ``segmented`` copies."""
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    for field, config in (("promerge", {}), ("unfiltered", {"filtering": "none"})):
        model = load_model(config=ProMergeConfig(image_size=96, **config), encoder="texture")
        segment_dataset(dataset, model, field)
    dataset.clone_sample_field("promerge", "ground_truth")
    return dataset


@pytest.fixture
def segmented(made, copy_of):
    """Photographs with masks of two settings and a ground truth, which is one of them."""
    return copy_of(made)
