"""How the detector is trained: every setting once, and as detectron2 wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from promerge_fo.parameters import Parameters, parameter

__all__ = ["DetectorConfig", "Layout", "detectron2_config"]

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB: what DINO's ResNet-50 was trained with
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class DetectorConfig(Parameters):
    """Settings of ProMerge+; frozen, checked when made, written to and read from JSON.

    A class-agnostic Cascade Mask R-CNN with ResNet-50 and a feature pyramid. The defaults are those
    of the paper (Sec. 4.1, App. B); where it is silent, those of CutLER, whose protocol it follows;
    and detectron2's own for the rest. With MaskCut's labels in place of ProMerge's, the same
    settings give CutLER's first round as the paper has trained it to compare with.

    Examples:
        >>> DetectorConfig().scaled(4).iterations
        640000
        >>> DetectorConfig().scaled(4).learning_rate
        0.00125

    Raises:
        TypeError: an unknown setting, or a value of the wrong type.
        ValueError: a value out of its range.
    """

    method: ClassVar[str] = "cascade_mask_rcnn"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    iterations: int = parameter(160_000, "batches to train on", "Sec. 4.1", 1, 10**8)
    batch_size: int = parameter(16, "images a batch, on all GPUs together", "Sec. 4.1", 1, 4096)
    learning_rate: float = parameter(0.005, "learning rate of SGD", "Sec. 4.1", 1e-9, 10)
    drop_at: float = parameter(
        0.5, "share of the iterations after which the learning rate falls", "App. B", 0, 1
    )
    drop_factor: float = parameter(0.2, "factor by which it falls", "App. B", 1e-6, 1)
    warmup: float = parameter(
        1 / 160,
        "share of the iterations in which the learning rate rises from 0",
        "detectron2",
        0,
        1,
    )
    momentum: float = parameter(0.9, "momentum of SGD", "Sec. 4.1", 0, 1)
    weight_decay: float = parameter(5e-5, "weight decay", "App. B", 0, 1)
    max_gradient_norm: float = parameter(
        1.0, "norm that each parameter's gradient is clipped to", "CutLER", 1e-6, 1e6
    )
    drop_loss_iou: float = parameter(
        0.01,
        "regions whose IoU with every label is less are ignored (DropLoss); 0 ignores none",
        "CutLER",
        0,
        1,
    )
    copy_paste: float = parameter(
        1.0, "share of the images that objects of another are pasted into", "CutLER", 0, 1
    )
    paste_scale_low: float = parameter(
        0.3, "smallest factor that pasted objects are scaled by", "CutLER", 0.01, 10
    )
    paste_scale_high: float = parameter(1.0, "largest factor", "CutLER", 0.01, 10)
    short_side_low: int = parameter(
        240, "least length of an image's shorter side, drawn anew each time", "CutLER", 16, 8192
    )
    short_side_high: int = parameter(1024, "largest length", "CutLER", 16, 8192)
    long_side: int = parameter(
        1333, "most pixels of an image's longer side", "detectron2", 16, 16384
    )
    test_short_side: int = parameter(
        800, "length of the shorter side in prediction", "detectron2", 16, 8192
    )
    rpn_nms: float = parameter(
        0.65, "IoU above which a better proposal suppresses another", "CutLER", 0, 1
    )
    proposals: int = parameter(
        4000, "proposals an image that training goes on with", "CutLER", 1, 100_000
    )
    regions: int = parameter(
        512, "regions an image that the heads are trained on", "detectron2", 1, 10_000
    )
    detections: int = parameter(100, "most predictions an image", "CutLER", 1, 10_000)
    precise_norm: int = parameter(
        200,
        "batches from which statistics of batch normalisation are taken at the end",
        "CutLER",
        0,
        100_000,
    )
    mixed_precision: bool = parameter(
        True, "train in half precision where the device is a GPU that can", "CutLER"
    )
    confident: float = parameter(
        0.7, "score from which predictions become labels of the next round", "CutLER", 0, 1
    )
    same_object_iou: float = parameter(
        0.5, "IoU with such a prediction above which a label makes way for it", "CutLER", 0, 1
    )
    seed: int = parameter(0, "of the order of images, of augmentation and sampling", "-", 0, 2**31)

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in (
            ("paste_scale_low", "paste_scale_high"),
            ("short_side_low", "short_side_high"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} is {getattr(self, low)}, but must not be above {high}, "
                    f"which is {getattr(self, high)}"
                )

    def scaled(self, batch_size: int) -> DetectorConfig:
        """The same training with batches of another size, by the linear scaling rule.

        The learning rate grows with the batch (Goyal et al. 2017) and the number of batches falls,
        so that the same number of images is seen. Warm-up and the fall of the learning rate are
        shares of the iterations and move along.

        Args:
            batch_size: images a batch, on all GPUs together.
        """
        ratio = batch_size / self.batch_size
        return self.replace(
            batch_size=batch_size,
            learning_rate=self.learning_rate * ratio,
            iterations=max(1, round(self.iterations / ratio)),
        )


@dataclass(frozen=True)
class Layout:
    """What of the network differs between detectors of this kind; the defaults are CutLER's.

    Attributes:
        pyramid_norm: whether the feature pyramid's convolutions are followed by normalisation.
        box_convolutions: convolutions of each box head, each followed by normalisation.
        box_layers: fully connected layers of each box head.
        mask_norm: whether the mask head's convolutions are followed by normalisation.
        classes: how many classes are told apart.
    """

    pyramid_norm: bool = True
    box_convolutions: int = 0
    box_layers: int = 2
    mask_norm: bool = False
    classes: int = 1


def detectron2_config(
    config: DetectorConfig, device: str, layout: Layout | None = None, processes: int = 1
) -> Any:
    """The settings as detectron2 wants them: its own Cascade Mask R-CNN, and what differs from it.

    Args:
        config: the settings.
        device: "cuda" or "cpu".
        layout: of the network; None is that of training.
        processes: over which batch normalisation takes its statistics together.

    Returns:
        A ``detectron2.config.CfgNode``.

    Raises:
        ImportError: detectron2 cannot be imported.
    """
    from promerge_fo.detector.requirement import require_detectron2

    require_detectron2()
    from detectron2 import model_zoo
    from detectron2.config import CfgNode

    layout = layout or Layout()
    norm = "SyncBN" if processes > 1 and device == "cuda" else "BN"
    cfg = model_zoo.get_config("Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml")
    cfg.SEED = config.seed
    cfg.INPUT.update(FORMAT="RGB", MASK_FORMAT="bitmask")
    cfg.TEST.DETECTIONS_PER_IMAGE = config.detections

    model = cfg.MODEL
    model.update(DEVICE=device, WEIGHTS="")
    model.PIXEL_MEAN, model.PIXEL_STD = list(IMAGENET_MEAN), list(IMAGENET_STD)
    model.BACKBONE.FREEZE_AT = 0
    # the stride of a block is in its 3x3 convolution, where torchvision, and so DINO, has it
    model.RESNETS.update(NORM=norm, STRIDE_IN_1X1=False)
    model.FPN.NORM = norm if layout.pyramid_norm else ""
    model.RPN.update(NMS_THRESH=config.rpn_nms, POST_NMS_TOPK_TRAIN=config.proposals)
    model.ROI_HEADS.update(
        NAME="DropLossCascadeROIHeads",
        NUM_CLASSES=layout.classes,
        BATCH_SIZE_PER_IMAGE=config.regions,
        SCORE_THRESH_TEST=0.0,
        DROP_LOSS=CfgNode({"IOU": config.drop_loss_iou}),
    )
    model.ROI_BOX_HEAD.update(
        NUM_CONV=layout.box_convolutions,
        NUM_FC=layout.box_layers,
        NORM=norm if layout.box_convolutions else "",
    )
    model.ROI_MASK_HEAD.NORM = norm if layout.mask_norm else ""

    steps = int(config.iterations * config.drop_at)
    cfg.SOLVER.update(
        IMS_PER_BATCH=config.batch_size,
        MAX_ITER=config.iterations,
        BASE_LR=config.learning_rate,
        STEPS=(steps,) if 0 < steps < config.iterations else (),
        GAMMA=config.drop_factor,
        WARMUP_ITERS=int(config.iterations * config.warmup),
        MOMENTUM=config.momentum,
        WEIGHT_DECAY=config.weight_decay,
    )
    cfg.SOLVER.CLIP_GRADIENTS.update(
        ENABLED=True, CLIP_TYPE="norm", CLIP_VALUE=config.max_gradient_norm, NORM_TYPE=2.0
    )
    return cfg
