"""The network, and its DropLoss: regions that overlap no pseudo-label are not learned from.

Pseudo-labels miss objects. A region that overlaps none of them may be such an object, and must not
be learned as background. So CutLER's loss (Sec. 3.3 there) of a region r is 1(IoU_max(r) > tau) x
the usual one, where IoU_max is the largest IoU with a label and tau is 0.01.

Importing this module imports detectron2, and makes the heads known to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import cat
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers
from detectron2.structures import pairwise_iou

__all__ = ["DropLossCascadeROIHeads", "DropLossOutputLayers", "build", "drop_loss"]


def build(cfg: Any) -> torch.nn.Module:
    """A detector with random weights, on its device.

    Args:
        cfg: what :func:`~promerge_fo.detector.config.detectron2_config` gives.
    """
    model: torch.nn.Module = build_model(cfg)
    return model


def drop_loss(
    logits: torch.Tensor, classes: torch.Tensor, overlaps: torch.Tensor, min_iou: float
) -> torch.Tensor:
    """Cross-entropy that ignores regions which overlap no label.

    Args:
        logits: (R, K + 1) scores of the classes and of the background.
        classes: (R,) int64, K for background.
        overlaps: (R,) largest IoU of each region with a label; 0 where the image has none.
        min_iou: regions with less are ignored.

    Returns:
        The sum over regions that are not ignored, divided by the number of all regions: the
        others keep the weight that they would have without DropLoss. 0 for no regions.
    """
    if len(logits) == 0:
        return logits.sum() * 0.0
    each = F.cross_entropy(logits, classes, reduction="none")
    return (each * (overlaps >= min_iou)).mean()


class DropLossOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]
    """The class and box predictor of one stage, whose class loss is :func:`drop_loss`."""

    min_iou: float

    def losses(self, predictions: Any, proposals: list[Any]) -> dict[str, torch.Tensor]:
        """The losses of one stage.

        Args:
            predictions: of ``forward``.
            proposals: an ``Instances`` for each image, with ``overlaps`` beside the usual fields.

        Returns:
            ``loss_cls`` and ``loss_box_reg``, as detectron2 names them. Regions that are ignored
            are background, which has no box loss anyway.
        """
        losses: dict[str, torch.Tensor] = super().losses(predictions, proposals)
        losses["loss_cls"] = self.loss_weight.get("loss_cls", 1.0) * drop_loss(
            predictions[0],
            cat([p.gt_classes for p in proposals]),
            cat([p.overlaps for p in proposals]),
            self.min_iou,
        )
        return losses


@ROI_HEADS_REGISTRY.register()
class DropLossCascadeROIHeads(CascadeROIHeads):  # type: ignore[misc]
    """Cascade heads whose every stage has DropLoss; ``MODEL.ROI_HEADS.DROP_LOSS.IOU`` is tau."""

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: Any) -> dict[str, Any]:
        made: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        for predictor in made["box_predictors"]:
            predictor.__class__ = DropLossOutputLayers  # the same layers, another loss
            predictor.min_iou = cfg.MODEL.ROI_HEADS.DROP_LOSS.IOU
        return made

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Any], targets: list[Any]) -> list[Any]:
        """The first stage's regions, with their ``overlaps``."""
        return _with_overlaps(super().label_and_sample_proposals(proposals, targets), targets)

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Any], stage: int, targets: list[Any]
    ) -> list[Any]:
        """A later stage's regions, with their ``overlaps``."""
        matched = super()._match_and_label_boxes(proposals, stage, targets)
        return _with_overlaps(matched, targets)


def _with_overlaps(proposals: list[Any], targets: list[Any]) -> list[Any]:
    """Give each image's regions their largest IoU with a label of that image."""
    for regions, labels in zip(proposals, targets, strict=True):
        ious = pairwise_iou(labels.gt_boxes, regions.proposal_boxes)
        regions.overlaps = ious.amax(dim=0) if len(labels) else ious.new_zeros(len(regions))
    return proposals
