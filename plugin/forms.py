"""Inputs that several forms share."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import types


def detection_fields(samples: Any) -> list[str]:
    """The fields of a collection of images that hold detections; of others, none."""
    if samples.media_type != fom.IMAGE:
        return []
    return list(
        samples.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    )


def choose_field(
    inputs: types.Object,
    name: str,
    fields: list[str],
    *,
    label: str,
    description: str | None = None,
    default: str | None = None,
    **kwargs: Any,
) -> None:
    """Let one of these fields be chosen, the default if it is among them."""
    view = types.DropdownView()
    for field in fields:
        view.add_choice(field, label=field)
    inputs.enum(
        name,
        fields,
        required=True,
        default=default if default in fields else None,
        label=label,
        description=description,
        view=view,
        **kwargs,
    )


def refused(title: str, reason: str) -> types.Property:
    """A form that says why nothing can be done, and cannot be executed."""
    inputs = types.Object()
    inputs.view("refused", types.Error(label=title, description=reason))
    form = types.Property(inputs)
    form.invalid = True
    form.error_message = reason
    return form
