"""A run after which most images have no masks says why, early and at its end."""

import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.diagnosis import diagnose
from promerge_fo.encoder.texture import TextureEncoder


class Lifted(TextureEncoder):
    """Features with a common component, which lifts all cosines, as other transformers' have."""

    def _encode(self, pixels, with_prompt_scores):
        features, scores = super()._encode(pixels, with_prompt_scores)
        return features + 3, scores


@pytest.fixture
def lifted(fo):
    config = ProMergeConfig(image_size=96)
    return pfo.load_model(encoder=Lifted(device="cpu", image_size=96), config=config)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, None),
        ({"failed": 5}, None),
        ({"ok": 5, "no_cut": 5}, None),
        ({"ok": 4, "no_cut": 5, "failed": 90}, "5 of 9 images have no masks (5 no_cut): no cut"),
        (
            {"ok": 1, "no_background": 2, "all_filtered": 3},
            "5 of 6 images have no masks (3 all_filtered, 2 no_background): all masks were",
        ),
        ({"all_rejected": 1}, "1 of 1 images have no masks (1 all_rejected): refinement changed"),
        ({"background_too_small": 2}, "a lower tau_b or min_background_area"),
    ],
)
def test_words(counts, said):
    diagnosis = diagnose(counts)
    assert diagnosis is None if said is None else said in diagnosis


def test_a_run_without_masks_says_why_while_it_runs_and_at_its_end(
    fo, dataset, lifted, photographs, caplog
):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 10])
    with caplog.at_level("WARNING", "fiftyone.promerge"):
        report = pfo.segment_dataset(dataset, lifted, batch_size=4)
    seen = [record.getMessage() for record in caplog.records]
    early = [text for text in seen if text.startswith("promerge: so far, 32 of 32 images have no")]
    assert len(early) == 1
    at_end = "40 of 40 images have no masks (40 all_filtered): all masks were background"
    assert [text for text in seen if at_end in text] == [seen[-1]]
    assert at_end in str(report)
    assert "'promerge explain IMAGE' shows each step" in str(report)
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[-1])
    assert at_end in record["diagnosis"]


def test_a_run_with_masks_says_nothing(fo, dataset, model, photographs, caplog):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 9])
    report = pfo.segment_dataset(dataset, model, batch_size=4)
    assert not [r for r in caplog.records if "no masks" in r.getMessage()]
    assert "no masks" not in str(report)
    assert "diagnosis" not in pfo.load_run(dataset, pfo.list_runs(dataset)[-1])
