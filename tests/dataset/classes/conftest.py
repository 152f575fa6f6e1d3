import pytest


@pytest.fixture
def embedded(fo, dataset):
    """Twenty images of three masks with embeddings; see :mod:`tests.dataset.classes.made`."""
    # imported here, as FiftyOne may only be imported when its database is there
    from tests.dataset.classes.made import embed, fill, vectors

    fill(dataset, fo)
    embed(dataset, vectors())
    return dataset
