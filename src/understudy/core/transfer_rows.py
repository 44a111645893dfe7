"""Results of dense transfer as rows: what training writes and a comparison reads.

A `transfer_report.json` holds `{"format", "version", "facts", "rows"}`; `curves.csv` beside it has
the same rows for spreadsheets.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json, write_text

FORMAT = "understudy-transfer"
VERSION = 1
REPORT, CURVES = "transfer_report.json", "curves.csv"

METRICS = {
    "seg": ("miou", "macc", "pixel_acc"),
    "depth": ("rmse_pixels", "rmse_images", "absrel", "delta1", "delta2", "delta3"),
    "det": ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"),
}
"""Metrics of each task, the main one first."""
LOWER_IS_BETTER = ("rmse_pixels", "rmse_images", "absrel")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferRow:
    """One fine-tuned model's score.

    Attributes:
        arm: name of the pretraining.
        tower: kind and sizes of the image tower, as a hash and a name.
        task: seg, depth or det.
        head: its kind and sizes.
        protocol: hash of all that must be equal for arms to be compared: data, crop, steps, ...
        fraction: share of the labelled rows, in (0, 1].
        labels: labelled rows.
        seed: of subset, head and order.
        metric: what was measured.
        value: how much.
        steps: fine-tuning steps.
        samples_seen: samples of the pretraining; 0 for none, -1 if unknown.
        params: parameters of the dense model.
        flops: floating point operations of one picture's forward pass.
        seconds: wall seconds of fine-tuning, the search for a learning rate not counted.
        lr: learning rate.
        lrs_tried: how many values were tried.
        missing_classes: classes without a pixel in the labelled rows.
    """

    arm: str
    tower: str
    task: str
    head: str
    protocol: str
    fraction: float
    labels: int
    seed: int
    metric: str
    value: float
    steps: int
    samples_seen: int = -1
    params: int = 0
    flops: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    lrs_tried: int = 1
    missing_classes: list[str] = field(default_factory=list)


def write_transfer(
    folder: str | Path, rows: Sequence[TransferRow], facts: dict[str, Any] | None = None
) -> Path:
    """Write `transfer_report.json` and `curves.csv` into a folder; return the first's path."""
    folder = Path(folder)
    write_text(folder / CURVES, curves_csv(rows))
    data = {
        "format": FORMAT,
        "version": VERSION,
        "facts": facts or {},
        "rows": [asdict(row) for row in rows],
    }
    return write_json(folder / REPORT, data)


def curves_csv(rows: Iterable[TransferRow]) -> str:
    """Return rows as CSV, one line each, with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(TransferRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        data = asdict(row)
        writer.writerow({**data, "missing_classes": " ".join(data["missing_classes"])})
    return out.getvalue()


def read_transfer(path: str | Path) -> list[TransferRow]:
    """Return the rows of a report, given its file or its folder.

    Raises:
        DataError: no such file, or a file of another kind or version.
    """
    path = Path(path)
    path = path / REPORT if path.is_dir() else path
    data = read_json(path)
    kind = (data.get("format"), data.get("version")) if isinstance(data, dict) else (None, None)
    if kind != (FORMAT, VERSION):
        raise DataError(
            f"{path}: {kind[0]!r} version {kind[1]!r}, expected {FORMAT!r} version {VERSION}; give "
            "a report that 'understudy evaluate dense' wrote."
        )
    try:
        rows = enumerate(data["rows"])
        return [from_dict(TransferRow, row, f"{path}, row {i}") for i, row in rows]
    except ConfigError as error:
        raise DataError(str(error)) from None
