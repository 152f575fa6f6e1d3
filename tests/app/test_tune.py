"""Settings chosen in the App, and used there."""

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from tests.app.page import wait_until


def test_settings_are_tuned_and_become_a_preset(app, dataset, photographs, fo, tmp_path):
    dataset.add_samples([fo.Sample(filepath=path) for path in (*photographs, *photographs)])
    better = ProMergeConfig(tau_b=0.4)
    pfo.segment_dataset(dataset, pfo.load_model(config=better, encoder="texture"), "ground_truth")
    page = app(dataset)

    page.operator("ProMerge: tune settings")
    few = "8 images have objects in 'ground_truth', but 5 folds want 10"
    wait_until(lambda: few in page.form.inner_text(), 30)
    page.fill("Encoder", "texture")
    page.fill("Folds", "2")
    page.fill("stride", "4")
    page.fill("tau_b", "0.1, 0.4")
    page.fill("tau_f_merge", "0.1")
    wait_until(lambda: "3 settings on 8 images with objects" in page.form.inner_text(), 30)
    page.execute("Tune")
    page.page.get_by_text("Chosen by all images but a fold").first.wait_for(timeout=120_000)
    page.picture("tune")
    said = page.finish("Chosen by all images but a fold")
    assert "Take 'stride=4, tau_b=0.4, tau_f_merge=0.1'." in said
    assert "AP has a mean of 100.00, where 'as given' has " in said
    assert "has the choice as its preset 'tuned'" in said

    page.operator("ProMerge: segment instances")
    page.fill("Label field", "fine")
    page.choose("Preset", "tuned")
    page.execute("Segment")
    page.finish("images/s")
    dataset.reload()
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[-1])
    assert record["config"] == better.to_dict()
    assert record["encoder"]["name"] == "texture"
    figures = pfo.evaluate_instances(dataset, "fine").metrics()
    assert figures["segm"]["AP"] == 100
