"""What a policy names and a machine has not: CPUs, nodes and users. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from numad_py.model.cpulist import format_list
from numad_py.model.topology import Topology
from numad_py.policy.schema import Policy, Rule
from numad_py.policy.spelled import spelled


def absent(policy: Policy, topology: Topology, user_exists: Callable[[str], bool]) -> list[str]:
    """Return ``key: what is absent`` for each key that names such a thing, rules with their line.

    No problem of the policy: it may be written for another machine, and CPUs, nodes and users may
    come later.

    Args:
        policy: as it was read.
        topology: what is online; offline CPUs and nodes count as absent.
        user_exists: says whether a name is that of a user. It is not asked about user ids in
            digits: processes have them whether or not they have a name.
    """
    return [
        *_of_placement(policy, topology),
        *_of_rules("rule", policy.rules, topology, user_exists),
        *_of_rules("exclude", policy.excludes, topology, user_exists),
    ]


def _of_placement(policy: Policy, topology: Topology) -> Iterator[str]:
    missing = policy.placement.reserved_cpus - topology.cpus
    if missing:
        yield f"placement.reserved_cpus: names {_not_online('CPU', missing, topology.cpus)}"


def _of_rules(
    array: str, rules: Iterable[Rule], topology: Topology, user_exists: Callable[[str], bool]
) -> Iterator[str]:
    online = frozenset(topology.node_ids)
    for rule in rules:
        if missing := (rule.nodes or frozenset()) - online:
            what = _not_online("node", missing, online)
            yield f"{rule.origin}: {array}.nodes: {rule.name} names {what}; it gives no home here"
        unknown = [u for u in rule.user if not _is_id(u) and not user_exists(u)]
        if unknown:
            one = len(unknown) == 1
            names = ", ".join(spelled(user) for user in unknown)
            what = f"user{'' if one else 's'} {names}, who {'is' if one else 'are'} not known here"
            yield f"{rule.origin}: {array}.user: {rule.name} names {what}"


def _not_online(noun: str, missing: frozenset[int], online: frozenset[int]) -> str:
    one = len(missing) == 1
    which = f"{noun}{'' if one else 's'} {format_list(missing)}"
    there = f"{noun}{'' if len(online) == 1 else 's'} {format_list(online) or 'none'}"
    return (
        f"{which}, which {'is' if one else 'are'} not online here "
        f"({there} {'is' if len(online) == 1 else 'are'})"
    )


def _is_id(user: str) -> bool:
    return user.isascii() and user.isdigit()
