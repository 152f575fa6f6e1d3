"""What is on record of a run: what decided its masks, where and when it ran, what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from promerge_fo.versions import package_versions

__all__ = ["RunClock", "RunRecord"]

_DERIVED = ("images", "images_per_second")


@dataclass(frozen=True)
class RunRecord:
    """The record of one run, as datasets and shards keep it.

    Attributes:
        run_hash: 16 hexadecimal digits that name everything that decides the masks.
        label_field: the field that has the labels; None in a shard, which is of no dataset.
        identity: what the hash is made of: ``method``, ``config`` and ``encoder``; of an import,
            the ``method`` "import", the file's ``sha256`` and the ``settings``.
        counts: images by status.
        instances: masks that were stored.
        started: UTC, ISO 8601.
        finished: UTC, ISO 8601.
        seconds: that the run took.
        interrupted: whether it was stopped before its end.
        versions: of packages and Python.
        device: what the masks were calculated on.
        batch_size: images that were encoded together.
        engine: "ray", or None for a run on this machine.
        shards: the folder of a run on Ray.
        host: the machine that made a shard.
        file: the name of an imported file.
    """

    run_hash: str
    label_field: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    instances: int = 0
    started: str = ""
    finished: str = ""
    seconds: float = 0.0
    interrupted: bool = False
    versions: Mapping[str, str] = field(default_factory=package_versions)
    device: str | None = None
    batch_size: int | None = None
    engine: str | None = None
    shards: str | None = None
    host: str | None = None
    file: str | None = None

    @property
    def images(self) -> int:
        """Images that the run has done, failed ones included."""
        return sum(self.counts.values())

    @property
    def images_per_second(self) -> float:
        """Over all of the run; 0 where it took no time."""
        return round(self.images / self.seconds, 3) if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, the identity's entries among the others; nothing that is None."""
        names = [f.name for f in fields(self) if f.name != "identity"] + list(_DERIVED)
        values = {name: getattr(self, name) for name in names}
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
        return {**self.identity, **{k: v for k, v in plain.items() if v is not None}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RunRecord:
        """The inverse of :meth:`to_dict`; what older versions left out takes its default.

        Examples:
            >>> old = {"run_hash": "0123456789abcdef", "method": "maskcut", "counts": {"ok": 3}}
            >>> record = RunRecord.from_dict(old)
            >>> record.images, record.identity
            (3, {'method': 'maskcut'})
        """
        known = {f.name for f in fields(cls)} - {"identity"}
        given = {name: value for name, value in record.items() if name in known}
        rest = {k: v for k, v in record.items() if k not in known and k not in _DERIVED}
        return cls(identity=rest, **{"versions": {}, **given})


class RunClock:
    """Times a run from when it is made, and writes its record."""

    def __init__(self) -> None:
        self._started = datetime.now(timezone.utc)
        self._clock = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._clock

    def record(self, run_hash: str, **values: Any) -> RunRecord:
        """The record of a run that ends now.

        Args:
            run_hash: of the run.
            values: :class:`RunRecord`'s other attributes, without the times.
        """
        return RunRecord(
            run_hash,
            started=self._started.isoformat(timespec="seconds"),
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(self.seconds, 3),
            **values,
        )
