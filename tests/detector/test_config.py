"""The paper's settings, and what becomes of them."""

import pytest

from promerge_fo.detector import DetectorConfig


def test_the_papers_settings():
    config = DetectorConfig()
    assert (config.iterations, config.batch_size, config.learning_rate) == (160_000, 16, 0.005)
    assert config.learning_rate * config.drop_factor == pytest.approx(0.001)
    assert config.iterations * config.drop_at == 80_000
    assert (config.momentum, config.weight_decay, config.drop_loss_iou) == (0.9, 5e-5, 0.01)
    assert (config.copy_paste, config.paste_scale_low, config.paste_scale_high) == (1.0, 0.3, 1.0)
    assert DetectorConfig.from_json(config.to_json()) == config


def test_scaling_keeps_the_number_of_images():
    small = DetectorConfig().scaled(4)
    assert (small.batch_size, small.iterations, small.learning_rate) == (4, 640_000, 0.00125)
    assert small.drop_at == 0.5  # shares of the iterations stay
    assert small.scaled(16) == DetectorConfig()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"drop_loss_iou is 2\.0, but must lie in \[0, 1\]"):
        DetectorConfig(drop_loss_iou=2)
    with pytest.raises(ValueError, match="short_side_low is 900, but must not be above"):
        DetectorConfig(short_side_low=900, short_side_high=800)
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        DetectorConfig().replace(learning_rat=1)


def test_as_detectron2_has_them(detectron2):
    from promerge_fo.detector.config import Layout, detectron2_config

    cfg = detectron2_config(DetectorConfig(), "cpu")
    assert cfg.SOLVER.MAX_ITER == 160_000
    assert cfg.SOLVER.STEPS == (80_000,)
    assert cfg.SOLVER.GAMMA == 0.2
    assert cfg.SOLVER.WARMUP_ITERS == 1000
    assert cfg.SOLVER.CLIP_GRADIENTS.ENABLED
    assert cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE == 1.0
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MASK_FORMAT) == ("RGB", "bitmask")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN == 4000
    assert cfg.MODEL.RESNETS.NORM == "BN"
    assert detectron2_config(DetectorConfig(), "cuda", processes=8).MODEL.RESNETS.NORM == "SyncBN"
    plain = detectron2_config(DetectorConfig(), "cpu", Layout(pyramid_norm=False))
    assert plain.MODEL.FPN.NORM == ""
    known = detectron2.config.get_cfg()
    known.MODEL.ROI_HEADS.DROP_LOSS = cfg.MODEL.ROI_HEADS.DROP_LOSS
    known.merge_from_other_cfg(cfg)  # which refuses names that detectron2 does not have


def test_the_learning_rate_rises_and_falls(detectron2):
    import torch
    from detectron2.solver import build_lr_scheduler, build_optimizer

    from promerge_fo.detector.config import detectron2_config

    config = DetectorConfig(iterations=100, learning_rate=0.005, warmup=0.1)
    cfg = detectron2_config(config, "cpu")
    optimizer = build_optimizer(cfg, torch.nn.Linear(2, 2))
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.005 / 1000)
    assert rates[5] == pytest.approx(0.0025, rel=0.01)
    assert rates[10:50] == pytest.approx([0.005] * 40)
    assert rates[50:] == pytest.approx([0.001] * 50)
    assert optimizer.param_groups[0]["weight_decay"] == 5e-5
    assert optimizer.param_groups[0]["momentum"] == 0.9
