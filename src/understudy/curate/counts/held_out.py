"""Held-out documents must not be repeated, not even as near-duplicates."""

from __future__ import annotations

from understudy.core.errors import ConfigError, DataError
from understudy.curate.counts.documents import Documents
from understudy.curate.counts.plan import CountPlan


def check_held_out(plan: CountPlan, documents: Documents, held_out: Documents) -> None:
    """Refuse a plan that repeats near-duplicates of held-out documents.

    Args:
        plan: counts.
        documents: what was counted, with near-duplicate clusters.
        held_out: what losses are measured on, with clusters of the same run.

    Raises:
        ConfigError: clusters are unknown.
        DataError: a held-out document, or one of its cluster, is used.
    """
    if not documents.cluster or not held_out.cluster:
        raise ConfigError("held-out check: both sides need near-duplicate clusters.")
    count = dict(zip(plan.ids, plan.counts.tolist(), strict=True))
    used = {c for i, c in zip(documents.ids, documents.cluster, strict=True) if count.get(i, 0) > 0}
    shared = [i for i, c in zip(held_out.ids, held_out.cluster, strict=True) if c in used]
    if shared:
        names = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
        raise DataError(
            f"held-out check: {len(shared):,} held-out documents ({names}) have near-duplicates in "
            "the repeated set; leave their clusters out."
        )
