"""Settings chosen on labelled images: the choice, and what it says about itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from promerge_fo.config import MaskCutConfig, ProMergeConfig, TokenCutConfig
from promerge_fo.dataset import tune
from promerge_fo.dataset.evaluation.coco_metrics import ImageRecords, evaluate
from promerge_fo.dataset.experiments.settings import SEARCH, grid, search_space
from promerge_fo.dataset.experiments.tuning import assign_folds, cross_validate
from promerge_fo.dataset.experiments.tuning_result import mean_interval
from promerge_fo.dataset.runs.model import load_model
from promerge_fo.dataset.runs.segment import segment_dataset
from promerge_fo.encoder import load_encoder

SMALL = {"image_size": 96, "min_refined_iou": 0}
BASE = ProMergeConfig(**SMALL)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("texture", image_size=96)


@pytest.fixture
def labelled(fo, dataset, photographs, tmp_path, encoder):
    """Parts of the photographs, ten of twelve with objects: what the setting tau_b=0.4 finds."""
    for path in photographs:
        with Image.open(path) as image:
            w, h = image.size
            for i, left in enumerate((0, w // 6, w // 3)):
                part = tmp_path / f"{i}-{path.split('/')[-1]}"
                image.crop((left, 0, left + 2 * w // 3, h)).save(part)
                dataset.add_sample(fo.Sample(filepath=str(part)))
    model = load_model(config=BASE.replace(tau_b=0.4), encoder=encoder)
    segment_dataset(dataset, model, "ground_truth")
    assert [len(d) > 0 for d in dataset.values("ground_truth.detections")].count(True) == 10
    return dataset


def test_a_better_setting_is_found_and_told(labelled, encoder, tmp_path):
    settings = search_space(BASE, tau_b=[0.1, 0.2, 0.4], stride=[4])
    assert list(settings) == ["as given", "tau_b=0.1, stride=4", "tau_b=0.4, stride=4"]
    tuning = tune(labelled, settings, encoder=encoder, folder=tmp_path, folds=3, repeats=5)
    assert tuning.best == tuning.choice == "tau_b=0.4, stride=4"
    assert tuning.decided
    assert tuning.config == BASE.replace(tau_b=0.4)
    assert tuning.changes == {"tau_b": 0.4}
    assert tuning.picks == {"as given": 0, "tau_b=0.1, stride=4": 0, tuning.best: 1}
    assert tuning.worth == (100, 100, 100)  # the ground truth against itself
    gain = tuning.worth.mean - tuning.before.mean
    assert tuning.gain.mean == pytest.approx(gain)
    assert 0 < tuning.gain.low < gain < tuning.gain.high
    assert tuning.alike == []
    page = tuning.report(tmp_path / "report").read_text()
    assert "Take 'tau_b=0.4, stride=4'. Chosen by all images but a fold" in page
    assert "| | AP, all images | over 'as given' |" in page
    assert "| tau_b=0.4, stride=4 | 100.00 [100.00, 100.00] |" in page
    assert (tmp_path / "report" / "results.csv").is_file()
    tuning.write_settings(tmp_path / "t.json")
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["tuned"]["config"] == tuning.config.to_dict()
    assert written["tuned"]["encoder"]["name"] == "texture"
    again = tune(labelled, settings, encoder=encoder, folder=tmp_path, folds=3, repeats=5)
    assert str(again) == str(tuning)


def test_a_mean_over_folds_is_not_taken_for_the_figure_of_all_images(labelled, encoder, tmp_path):
    settings = search_space(BASE, tau_b=[0.1, 0.2], stride=[4])
    tuning = tune(labelled, settings, encoder=encoder, folder=tmp_path, folds=3, repeats=5)
    whole = tuning.ablation.metrics()["as given"]["segm"]["AP"]
    assert tuning.before.mean > whole + 1
    words, row = tuning.verdict(), tuning.table().splitlines()[2]
    assert f"has a mean of {tuning.worth.mean:.2f}, where 'as given' has " in words
    assert f"has {tuning.before.mean:.2f}: a gain of {tuning.gain} (95% interval)" in words
    assert words.count("[") == 1  # the gain alone has an interval, as the figures of the table do
    assert row.startswith(f"| as given | {whole:.2f} [")
    assert "The table has AP on all images together" in str(tuning)


def test_settings_that_the_images_cannot_tell_apart_are_not_chosen(labelled, encoder, tmp_path):
    # the seed of random prompts is no setting that could be better
    random = BASE.replace(prompting="random")
    settings = grid(random, seed=range(6))
    tuning = tune(labelled, settings, encoder=encoder, folder=tmp_path, folds=3, repeats=5)
    assert not tuning.decided
    assert tuning.best != tuning.choice == "seed=0"
    assert tuning.config == random
    assert tuning.changes == {}
    assert tuning.gain.low < 0 < tuning.gain.high
    assert len(tuning.alike) >= 3
    said = str(tuning)
    assert said.startswith(f"These images cannot tell '{tuning.best}', which has the highest AP,")
    assert "keep 'seed=0', or label more images" in said
    assert f"{len(tuning.alike)} of the other 5 settings cannot be told from it" in said


def test_the_first_setting_stays_where_it_is_the_best(labelled, encoder, tmp_path):
    settings = grid(BASE, tau_b=[0.4, 0.1])
    tuning = tune(labelled, settings, encoder=encoder, folder=tmp_path, folds=2, repeats=3)
    assert tuning.choice == tuning.best == "tau_b=0.4"
    assert not tuning.decided
    assert tuning.gain == (0, 0, 0)
    assert str(tuning).startswith("Keep 'tau_b=0.4': no other setting has a higher AP")


def one(area_at: int) -> dict:
    """An object of 40 x 40 pixels, as boxes have it."""
    return {"iscrowd": 0, "area": 1600, "bbox": [area_at, 0, 40, 40]}


def test_cross_validation_by_hand():
    """Four images with an object each; A finds those of the first three, B that of the last."""

    def found(*images: int):
        records = [
            ImageRecords(n, [one(0)], [{**one(0 if n in images else 200), "score": 1.0}])
            for n in range(4)
        ]
        return evaluate(records, "bbox").ranked

    each_out = np.eye(4, dtype=np.int64)
    picks, worth, before = cross_validate([found(3), found(0, 1, 2)], each_out, "AR100")
    # without one of the first three, A finds 2 of 3 and B 1; without the last, A all and B none
    assert picks.tolist() == [1, 1, 1, 1]
    assert worth.tolist() == [100, 100, 100, 0]
    assert before.tolist() == [0, 0, 0, 100]
    # C finds the first two, so that without one of them it is as good as B: the first of equals
    picks, worth, _ = cross_validate([found(2, 3), found(0, 1)], each_out, "AR100")
    assert picks.tolist() == [0, 0, 1, 1]
    assert worth.tolist() == [0, 0, 0, 0]
    # a fold of the first two images: C finds both, and B, which is chosen without them, none
    pairs = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    picks, worth, before = cross_validate([found(2, 3), found(0, 1)], pairs, "AR100")
    assert picks.tolist() == [0, 1]
    assert (worth.tolist(), before.tolist()) == ([0, 0], [0, 100])
    # small objects are on none of the images
    assert [len(x) for x in cross_validate([found(0)], pairs, "APs")] == [0, 0, 0]


def test_intervals_are_those_of_the_corrected_t_test():
    # variance 5/3, times 1/4 + 1/(2 - 1): 2.0833; its root 1.4434; t of 3 degrees 3.1824
    found = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]), 2, 0.95)
    assert found == pytest.approx((2.5, 2.5 - 4.5935, 2.5 + 4.5935), abs=1e-4)
    assert str(found) == "2.50 [-2.09, 7.09]"
    assert str(found._replace(low=-0.001)) == "2.50 [0.00, 7.09]"
    assert mean_interval(np.array([7.0]), 2, 0.95) == (7, -np.inf, np.inf)


def test_images_are_dealt_evenly():
    objects = np.arange(23) % 3 > 0  # 15 of 23
    dealt = assign_folds(objects, 5, 4, seed=2)
    assert dealt.shape == (20, 23)
    assert (dealt.reshape(4, 5, 23).sum(axis=1) == 1).all()
    assert set(dealt.sum(axis=1)) == {4, 5}
    assert set(dealt[:, objects].sum(axis=1)) == {3}
    assert not np.array_equal(dealt[:5], dealt[5:10])
    np.testing.assert_array_equal(dealt, assign_folds(objects, 5, 4, seed=2))


def test_search_spaces():
    for config in (ProMergeConfig.preset("paper"), MaskCutConfig(), TokenCutConfig()):
        space = search_space(config)
        assert space.pop("as given") == config
        assert config not in space.values()
        assert len(space) == np.prod([len(v) for v in SEARCH[type(config)].values()]) - 1


def test_what_cannot_be_tuned_is_refused_before_work(labelled, encoder, tmp_path):
    run = {"encoder": encoder, "folder": tmp_path}
    two = grid(BASE, stride=[2, 4])
    with pytest.raises(ValueError, match="no metric 'mAP'; the metrics are: AP, AP50"):
        tune(labelled, two, metric="mAP", **run)
    with pytest.raises(ValueError, match="two settings or more"):
        tune(labelled, grid(BASE), **run)
    with pytest.raises(ValueError, match="10 images have objects in ground_truth.*wants 12"):
        tune(labelled, two, folds=6, **run)
    with pytest.raises(ValueError, match="2 folds and 1 repeat at least, got 1 and 20"):
        tune(labelled, two, folds=1, **run)
    with pytest.raises(ValueError, match="no_such_field"):
        tune(labelled, two, "no_such_field", **run)
    assert not (tmp_path / "features").exists()
