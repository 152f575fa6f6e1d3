"""The plugin, installed where FiftyOne looks for it."""

import pytest


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


@pytest.fixture
def segmented(fo, dataset, photographs):
    """Photographs with masks of two settings and a ground truth, which is one of them."""
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    for field, config in (("promerge", {}), ("unfiltered", {"filtering": "none"})):
        model = load_model(config=ProMergeConfig(image_size=96, **config), encoder="texture")
        segment_dataset(dataset, model, field)
    dataset.clone_sample_field("promerge", "ground_truth")
    return dataset
