"""Records that cannot be read: stop at the first one, or count them by reason and go on."""

from __future__ import annotations

from collections import Counter

from understudy.core.errors import DataError

EXAMPLES = 3
"""Places that are kept of each unit."""


class Skipped:
    """What was skipped of a unit.

    Args:
        strict: stop at the first bad record.

    Attributes:
        read: good records so far.
        given_ids: records that brought an id of their own.
        place: file and line, row or byte offset of the last good record.
        reasons: bad records by reason.
        examples: the first bad records' places and what is wrong with them.
    """

    def __init__(self, strict: bool) -> None:
        self.strict, self.read, self.given_ids, self.place = strict, 0, 0, ""
        self.reasons: Counter[str] = Counter()
        self.examples: list[str] = []

    def bad(self, where: str, reason: str, detail: str) -> None:
        """Take note of a bad record.

        Args:
            where: file, and line, row or byte offset.
            reason: counted by it.
            detail: what is wrong, without a full stop.

        Raises:
            DataError: in strict mode.
        """
        if self.strict:
            raise DataError(
                f"{where}: {detail}. No record was skipped ({self.read:,} were read before it); "
                "with --lenient such records are skipped and counted by reason."
            )
        self.reasons[reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{where}: {detail}")
