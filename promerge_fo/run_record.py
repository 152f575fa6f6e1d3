"""The record of a run: what decided its masks, when and where it ran, and its results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from promerge_fo.diagnosis import diagnose
from promerge_fo.machine import package_versions

__all__ = ["RunClock", "RunRecord"]

_DERIVED = ("images", "images_per_second", "diagnosis")


@dataclass(frozen=True)
class RunRecord:
    """The record of one run, as datasets and shards store it.

    Attributes:
        run_hash: 16 hexadecimal digits, a hash of everything that decides the masks.
        label_field: the field with the labels; None in a shard, which belongs to no dataset.
        identity: the values that are hashed: ``method``, ``config`` and ``encoder``; for an
            import, the ``method`` "import", the ``sha256`` of the file and the ``settings``.
        counts: the number of images by status.
        instances: the number of masks stored.
        started: when the run started, UTC, ISO 8601.
        finished: when it ended, UTC, ISO 8601.
        seconds: the duration of the run.
        interrupted: whether it was stopped before its end.
        versions: the versions of packages and Python.
        device: the device that computed the masks.
        batch_size: the number of images encoded together.
        engine: "ray", or None for a run on this machine.
        shards: the folder with the shards of a run on Ray.
        host: the machine that wrote a shard.
        file: the name of an imported file.
        error: what ended the run before its end, in words.
        cosines: 5, 25, 50, 75 and 95 % percentiles of the affinities of the first images.
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
    error: str | None = None
    cosines: Sequence[float] | None = None

    @property
    def images(self) -> int:
        """The number of images that the run has done, failed ones included."""
        return sum(self.counts.values())

    @property
    def images_per_second(self) -> float:
        """The mean rate of the run; 0 if it took no time."""
        return round(self.images / self.seconds, 3) if self.seconds else 0.0

    @property
    def diagnosis(self) -> str | None:
        """Why most images have no masks, in words; None if most have some."""
        config = self.identity.get("config") or {}
        return diagnose(self.counts, self.cosines, config.get("tau_b"))

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON, with the entries of the identity at its top and without None."""
        names = [f.name for f in fields(self) if f.name != "identity"] + list(_DERIVED)
        values = {name: getattr(self, name) for name in names}
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
        return {**self.identity, **{k: v for k, v in plain.items() if v is not None}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RunRecord:
        """The inverse of :meth:`to_dict`; entries that older versions lack get their defaults.

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
    """Measures the duration of a run, from the creation of the clock, and makes its record."""

    def __init__(self) -> None:
        self._started = datetime.now(timezone.utc)
        self._clock = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The time since the start, in seconds."""
        return time.perf_counter() - self._clock

    def record(self, run_hash: str, **values: Any) -> RunRecord:
        """The record of a run that ends now.

        Args:
            run_hash: the run hash.
            values: the other attributes of :class:`RunRecord`, without the times.
        """
        return RunRecord(
            run_hash,
            started=self._started.isoformat(timespec="seconds"),
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(self.seconds, 3),
            **values,
        )
