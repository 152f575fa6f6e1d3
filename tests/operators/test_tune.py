"""The operator that chooses settings, and the preset that it leaves."""

import re

import pytest


@pytest.fixture
def labelled(fo, dataset, photographs):
    """Each photograph twice, with masks of the setting tau_b=0.4 as ground truth."""
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset.add_samples([fo.Sample(filepath=path) for path in (*photographs, *photographs)])
    model = load_model(config=ProMergeConfig(tau_b=0.4), encoder="texture")
    segment_dataset(dataset, model, "ground_truth")
    return dataset


def values(**changes):
    """Only what is named is varied, by two folds."""
    others = {"stride": "", "tau_b": "", "tau_f_merge": ""}
    return {"encoder": "texture", "folds": 2, "values_promerge": {**others, **changes}}


def test_the_choice_is_a_preset_of_the_segmenting_form(operator, form, labelled, tmp_path):
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.provenance import list_runs, load_run

    tune, segment = operator("tune"), operator("segment_instances")
    with pytest.raises(Exception, match="preset. Reason: Invalid enum value"):
        segment(labelled, preset="tuned", encoder="texture")
    ran = tune(labelled, **values(tau_b="0.1, 0.4"), folder={"absolute_path": str(tmp_path)})
    assert ran.error is None
    page = (tmp_path / f"tuning {labelled.slug}" / "tuning.md").read_text()
    assert "Take 'tau_b=0.4'." in page

    made = form(segment, labelled, preset="tuned", show_parameters=True)
    meaning = {c.value: c.description for c in made.type.properties["preset"].view.choices}
    assert re.fullmatch(r"on 8 images, AP gains \d+\.\d\d \[.*\]", meaning["tuned"])
    group = made.type.properties["promerge_tuned"].type.properties
    assert group["tau_b"].default == 0.4
    assert (
        "tuned"
        not in form(segment, labelled, method="maskcut").type.properties["preset"].type.values
    )
    changes = {"show_parameters": True, "promerge_tuned": {"fill_holes": False}}
    segment(labelled, preset="tuned", label_field="fine", **changes)
    record = load_run(labelled, list_runs(labelled)[-1])
    expected = ProMergeConfig(tau_b=0.4, fill_holes=False).to_dict()
    assert record["config"] == expected
    assert record["encoder"]["name"] == "texture"

    # where nothing is decided, there is no such preset any more
    tune(labelled, **values(tau_b="0.2", seed="1, 2"), folder={"absolute_path": str(tmp_path)})
    assert "Keep 'as given'" in (tmp_path / f"tuning {labelled.slug}" / "tuning.md").read_text()
    assert "tuned" not in form(segment, labelled).type.properties["preset"].type.values


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (values(tau_b="0.1; 0.2"), "tau_b: '0.1; 0.2' is not a number"),
        (values(tau_b="0.1, 3"), "tau_b is 3.0, but must lie in"),
        (values(), "Give a parameter two values or more"),
        (values(tau_b="0.2"), "Give a parameter two values or more"),  # the preset's own
        ({"folds": 5}, "4 images have objects in 'ground_truth', but 5 folds want 10"),
    ],
)
def test_wrong_input_is_refused_with_words(operator, form, segmented, params, words):
    tune = operator("tune")
    assert words in form(tune, segmented, **params).error_message
    with pytest.raises(Exception, match=words):
        tune(segmented, **{"encoder": "texture", **params})


def test_the_form_says_how_much_there_is_to_do(operator, form, labelled, fo):
    from promerge_fo.dataset.experiments.settings import SEARCH, search_space

    tune = operator("tune")
    for kind, searched in SEARCH.items():
        made = form(tune, labelled, method=kind.method, folds=2)
        assert not made.invalid
        properties = made.type.properties
        asked = {
            n: p.default for n, p in properties[f"values_{kind.method}"].type.properties.items()
        }
        assert asked == {name: ", ".join(map(str, some)) for name, some in searched.items()}
        count = len(search_space(kind()))
        assert properties["cost"].view.label == f"{count} settings on 8 images with objects"
    made = form(tune, labelled, folds=2, show_parameters=True)
    shown = made.type.properties["values_promerge"].type.properties
    assert {n: p.default for n, p in shown.items() if n in ("filtering", "seed")} == {
        "filtering": "",
        "seed": "",
    }
    labelled.delete_sample_field("ground_truth")
    assert "A field of detections is needed" in form(tune, labelled).error_message


def test_tuning_is_delegated(operator, form, launch, labelled, tmp_path):
    folder = {"absolute_path": str(tmp_path)}
    launch(operator("tune")(labelled, delegate=True, **values(tau_b="0.4"), folder=folder))
    assert (tmp_path / f"tuning {labelled.slug}" / "tuning.md").is_file()
    preset = form(operator("segment_instances"), labelled).type.properties["preset"]
    assert "tuned" in preset.type.values
