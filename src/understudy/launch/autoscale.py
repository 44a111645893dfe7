"""How many machines the waiting work wants: first-fit decreasing, up at once, down late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from understudy.core.errors import ConfigError

Vector = Mapping[str, float]
SLACK = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeType:
    """Machines of one size.

    Attributes:
        name: for people and engines.
        amounts: what one has, by resource.
        max_nodes: most of them.
        price: for an hour; cheaper types are tried first.
    """

    name: str
    amounts: dict[str, float]
    max_nodes: int = 1_000_000
    price: float = 0.0


@dataclass(slots=True)
class Node:
    """A machine that is there, or would be.

    Attributes:
        type: its kind.
        free: what is not taken on it.
        gangs: names of the gangs on it.
        idle_since: since when it runs nothing; None: it runs something.
        id: what the engine calls it; empty: it is only wanted.
    """

    type: NodeType
    free: dict[str, float]
    gangs: set[str] = field(default_factory=set)
    idle_since: float | None = None
    id: str = ""

    def take(self, vector: Vector) -> bool:
        """Take resources if they fit."""
        if not _fits(vector, self.free):
            return False
        for name, amount in vector.items():
            self.free[name] -= amount
        return True


def _fits(vector: Vector, free: Vector) -> bool:
    return all(free.get(name, 0.0) + SLACK >= amount for name, amount in vector.items())


def _copy(nodes: Sequence[Node]) -> list[Node]:
    return [Node(n.type, dict(n.free), set(n.gangs), n.idle_since, n.id) for n in nodes]


def _size(vector: Vector, types: Sequence[NodeType]) -> float:
    """Return a replica's largest share of the best machine for it: what first-fit sorts by."""
    shares = []
    for kind in types:
        if _fits(vector, kind.amounts):
            shares.append(max((a / kind.amounts[n] for n, a in vector.items() if a), default=0.0))
    return min(shares, default=0.0)


def pack(
    gangs: Mapping[str, Sequence[Vector]], types: Sequence[NodeType], nodes: Sequence[Node] = ()
) -> tuple[list[Node], list[str]]:
    """Put gangs on machines, adding machines where needed.

    Gangs go in order of their largest replica, replicas in decreasing size, each on the first
    machine that has room. A gang that cannot be placed whole leaves no trace.

    Args:
        gangs: name -> what each replica needs.
        types: kinds of machines that may be added.
        nodes: machines that are there; not changed.

    Returns:
        all machines then, and the gangs that no number of allowed machines can hold.
    """
    current = _copy(nodes)
    left: list[str] = []
    order = sorted(gangs, key=lambda g: (-max((_size(v, types) for v in gangs[g]), default=0.0), g))
    for name in order:
        trial = _copy(current)
        for vector in sorted(gangs[name], key=lambda v: -_size(v, types)):
            node = next((n for n in trial if n.take(vector)), None) or _added(trial, vector, types)
            if node is None:
                left.append(name)
                break
            node.gangs.add(name)
        else:
            current = trial
    return current, left


def _added(nodes: list[Node], vector: Vector, types: Sequence[NodeType]) -> Node | None:
    for kind in sorted(types, key=lambda t: t.price):
        count = sum(n.type.name == kind.name for n in nodes)
        if count < kind.max_nodes and _fits(vector, kind.amounts):
            node = Node(kind, dict(kind.amounts))
            node.take(vector)
            nodes.append(node)
            return node
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What to do now.

    Attributes:
        add: machines to add, by type.
        remove: machines to remove, by id.
        impossible: gangs that no allowed machines can hold.
    """

    add: dict[str, int]
    remove: tuple[str, ...]
    impossible: tuple[str, ...]


def decide(
    pending: Mapping[str, Sequence[Vector]],
    nodes: Sequence[Node],
    types: Sequence[NodeType],
    now: float,
    idle_s: float = 300.0,
) -> Scaling:
    """Say how the cluster should change.

    A machine that runs anything stays, and so does one that waiting work would use; others go after
    `idle_s` of idleness.

    Args:
        pending: gangs that wait, name -> what each replica needs.
        nodes: machines that are there.
        types: machines that may be added.
        now: on the clock of `Node.idle_since`.
        idle_s: how long a machine may stand idle.

    Raises:
        ConfigError: two machines have one id.
    """
    ids = [node.id for node in nodes]
    if len(set(ids)) != len(ids):
        raise ConfigError("autoscale: two machines have the same id.")
    packed, impossible = pack(pending, types, nodes)
    add: dict[str, int] = {}
    for node in packed[len(nodes) :]:
        add[node.type.name] = add.get(node.type.name, 0) + 1
    remove = tuple(
        before.id
        for before, after in zip(nodes, packed, strict=False)
        if not before.gangs
        and not after.gangs
        and before.idle_since is not None
        and now - before.idle_since >= idle_s
    )
    return Scaling(add=add, remove=remove, impossible=tuple(impossible))
