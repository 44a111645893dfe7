"""What trying out an update on a user's items comes to, before anything is done."""

from __future__ import annotations

from understudy.data.store import Store
from understudy.evaluate.plans import Plan
from understudy.update.source import open_source
from understudy.update.source_config import SourceConfig, chosen_rows


def count_source(config: SourceConfig, recipe: str, maps: int) -> Plan:
    """Return the counts of a run on a user's items.

    Args:
        config: which items, and who embeds them.
        recipe: its name.
        maps: how many networks are fitted.
    """
    made = Plan(recipe=recipe, scale="run")
    if config.is_file:
        source = open_source(config, config.store)
        sizes = len(source.train), len(source.test)
        embedded = {}
    else:
        store = Store.open(config.store)
        sizes = tuple(len(rows) for rows in chosen_rows(store, config))
        embedded = config.lines()
    made.add("items to learn from", sizes[0], "items")
    made.add("items to search", sizes[1], "items", formula="queries and gallery")
    for part, line in embedded.items():
        made.add(f"{part} embedder", line, formula="read" if line.startswith("embed.") else "run")
    epochs, batch = config.fit.epochs, min(config.fit.batch_size, sizes[0])
    made.add("maps", maps, "", formula=f"{epochs} epochs in batches of {batch:,}, and closed forms")
    made.add("distances", 2 * sizes[1] ** 2, "", formula="old and new, items squared")
    return made
