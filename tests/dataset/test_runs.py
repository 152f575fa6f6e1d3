from __future__ import annotations

import json
import sys
from datetime import datetime, timezone

import pytest
from bson import DBRef, ObjectId

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import load_encoder


def test_the_record_says_what_made_the_labels(filled, model):
    (key,) = pfo.list_runs(filled)
    assert key == f"promerge_{model.hash[:8]}"
    record = pfo.load_run(filled, key)
    assert json.loads(json.dumps(record)) == record
    assert record["run_hash"] == model.hash == filled.first().promerge.run
    assert record["label_field"] == "promerge"
    assert record["method"] == "promerge"
    assert record["config"] == model.config.to_dict()
    assert ProMergeConfig.from_dict(record["config"]) == model.config
    assert record["encoder"] == model.pipeline.encoder.identity()
    assert {"promerge_fo", "torch", "timm", "numpy", "fiftyone"} <= set(record["versions"])
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["device"].startswith(str(model.pipeline.encoder.device))
    assert record["counts"] == {"ok": 4} and record["images"] == 4
    assert record["instances"] == filled.count("promerge.detections")
    assert record["batch_size"] == 4 and record["interrupted"] is False
    assert record["images_per_second"] == pytest.approx(4 / record["seconds"], rel=0.1)
    started, finished = (datetime.fromisoformat(record[k]) for k in ("started", "finished"))
    assert started <= finished <= datetime.now(timezone.utc)


def test_the_same_configuration_replaces_its_record(filled, model):
    filled.apply_model(model, label_field="promerge", batch_size=1, num_workers=0)
    (key,) = pfo.list_runs(filled)
    assert pfo.load_run(filled, key)["batch_size"] == 1


def test_a_record_that_was_replaced_while_the_dataset_was_read_is_found(filled, model):
    (key,) = pfo.list_runs(filled)
    filled._doc.runs[key] = DBRef("runs", ObjectId())  # what FiftyOne read between the two writes
    assert pfo.list_runs(filled) == [key]
    assert pfo.load_run(filled, key)["run_hash"] == model.hash


def test_other_configurations_and_fields_have_their_own_records(fo, filled, model):
    other = pfo.load_model(encoder="texture", config=model.config.replace(tau_b=0.3))
    filled.apply_model(model, label_field="second", batch_size=4, num_workers=0)
    filled.apply_model(other, label_field="promerge", batch_size=4, num_workers=0)
    filled.register_run("something_else", filled.init_run(method="other"))
    keys = pfo.list_runs(filled)
    fields = [pfo.load_run(filled, key)["label_field"] for key in keys]
    assert fields == ["promerge", "second", "promerge"]
    assert filled.distinct("promerge.run") == [other.hash]
    with pytest.raises(ValueError, match="no ProMerge run 'something_else'; its runs are: 'prom"):
        pfo.load_run(filled, "something_else")


def test_the_field_is_found_among_others(fo, filled, model):
    """Even among fields that hold labels of the very same run."""
    filled.clone_sample_field("promerge", "a_copy")
    filled.add_sample_field("unused", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    filled.apply_model(model, label_field="zz", batch_size=2, num_workers=0)
    filled.select_fields("a_copy").apply_model(model, "yy", batch_size=2, num_workers=0)
    fields = {pfo.load_run(filled, key)["label_field"] for key in pfo.list_runs(filled)}
    assert fields == {"promerge", "zz", "yy"}


def test_the_hash_names_what_decides_the_masks_and_nothing_else(fo, tmp_path):
    import timm
    import torch

    name = "vit_tiny_patch16_224"
    hashes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        checkpoint = tmp_path / f"{seed}.pth"
        torch.save(timm.create_model(name, pretrained=False).state_dict(), checkpoint)

    def run_hash(checkpoint="0.pth", **kwargs) -> str:
        encoder = load_encoder(name, checkpoint=tmp_path / checkpoint, device="cpu", **kwargs)
        config = ProMergeConfig(image_size=encoder.image_size)
        return pfo.load_model(config=config, encoder=encoder).hash

    assert run_hash() == run_hash()
    texture = pfo.load_model(encoder="texture")
    changed = pfo.load_model(encoder="texture", config=ProMergeConfig(tau_b=0.3))
    hashes = [
        run_hash(),
        run_hash(checkpoint="1.pth"),
        run_hash(precision="bf16"),
        run_hash(image_size=240),
        run_hash(resize="aspect"),
        run_hash(facet="query"),
        texture.hash,
        changed.hash,
    ]
    assert len(set(hashes)) == len(hashes)


def test_what_ended_a_run_stands_in_its_record(fo, dataset, photographs):
    from promerge_fo import dataset as pfo

    class Bar:
        def __init__(self, total):
            self.done = 0

        def update(self, n):
            self.done += n
            if self.done > 4:
                raise RuntimeError("the disk is on fire")

        def close(self):
            pass

    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 4])
    model = pfo.load_model(encoder="texture", image_size=96)
    with pytest.raises(RuntimeError, match="on fire"):
        pfo.segment_dataset(dataset, model, batch_size=1, progress=Bar)
    (key,) = pfo.list_runs(dataset)
    record = pfo.load_run(dataset, key)
    assert record["interrupted"]
    assert record["error"] == "the disk is on fire"
    assert 0 < record["images"] < 16
    pfo.segment_dataset(dataset, model)
    record = pfo.load_run(dataset, key)
    assert "error" not in record
    assert (record["images"], record["instances"]) == (16, dataset.count("promerge.detections"))
