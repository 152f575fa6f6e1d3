"""An evaluation, seen in the App's Model Evaluation panel."""

from promerge_fo import dataset as pfo


def test_figures_stand_in_the_model_evaluation_panel(app, dataset, photographs, fo):
    model = pfo.load_model(encoder="texture", image_size=160)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.apply_model(model, label_field="truth", batch_size=4, num_workers=0)
    dataset.clone_sample_field("truth", "found")
    pfo.evaluate_instances(dataset, "found", "truth", "ours")
    page = app(dataset)
    shown = page.evaluation("ours")
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    for label in ("AP (masks)", "AP50 (boxes)", "AR100 (masks)"):
        assert lines[lines.index(label) + 1] == "100", label  # the field against itself
