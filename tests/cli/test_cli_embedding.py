"""``promerge segment --embed`` and ``promerge embed``."""

from __future__ import annotations

from promerge_fo.cli import main
from tests.cli.options import TEXTURE


def test_segment_embeds_and_embed_finds_nothing_left_to_do(fo, folder, capsys):
    from promerge_fo.dataset import read_embeddings

    assert main(["segment", str(folder), "--embed", *TEXTURE]) == 1, "one photograph is broken"
    dataset = fo.load_dataset("photos")
    found = read_embeddings(dataset, "promerge")
    assert len(found) == dataset.count("promerge.detections") >= 3
    capsys.readouterr()
    assert main(["embed", "photos"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 masks of 0 images embedded")
    assert "3 images had theirs" in said
    assert main(["embed", str(folder), "--map", "pca", "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert f"{len(found)} masks of 3 images embedded" in said
    assert f"the map 'promerge_map' has {len(found)} masks: fiftyone app launch photos" in said
    dataset.reload()
    assert dataset.list_brain_runs() == ["promerge_map", "promerge_map_similarity"]


def test_what_embed_cannot_do_is_said(fo, folder, capsys):
    assert main(["segment", str(folder), *TEXTURE]) == 1
    refused = [
        (["embed", "photos", "--label-field", "other"], "the field 'other' does not exist"),
        (["embed", "photos", "--encoder", "texture", "--block", "3"], "'texture' has no blocks"),
        (["embed", "nowhere"], "there is no dataset 'nowhere'"),
        (["segment", "photos", "--embed-block", "3", *TEXTURE], "give --embed, too"),
    ]
    capsys.readouterr()
    for arguments, message in refused:
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert main(["embed", "photos"]) == 0
    assert main(["embed", "photos", "--encoder", "texture"]) == 2
    assert "image_size: 160 and 480" in capsys.readouterr().err
    (folder / "0.png").unlink()
    assert main(["embed", "photos", "--overwrite"]) == 1
    told = capsys.readouterr()
    assert "1 images failed" in told.out
    assert "failed: " in told.err
    assert "0.png" in told.err
