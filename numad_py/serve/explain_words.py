"""What each reason means to somebody who knows servers and not NUMA, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numad_py.model.outcome import End
from numad_py.model.plan import HomeSource, Limit, Reason

NODE = (
    "A node is a group of CPUs with the memory next to it. CPUs are quick to reach the memory of "
    "their own node and slower to reach that of another, so a server is fastest when its threads "
    "and its memory are on the same one: its home."
)


@dataclass(frozen=True)
class Meaning:
    """A reason in plain words; the braces are filled in by ``serve.explain``."""

    verdict: str
    """One sentence: how the worker is."""
    meaning: str
    """Why that is done, or not done."""
    advice: str
    """What the reader can do about it, a line each."""
    detail: bool = True
    """Whether the decision's own words say more than this."""


_PLACED_AT_START = (
    "To have its memory in the right place from the start, start it on the CPUs of its home: "
    "taskset --cpu-list {cpus} COMMAND, or CPUAffinity={cpus} in its systemd unit."
)

MEANINGS: Mapping[Reason, Meaning] = {
    Reason.REMOTE_MEMORY: Meaning(
        "It is not where it belongs: {remote} of its memory that can be moved lies away from its "
        "home, {home}.",
        "Memory on another node than the threads or the GPU that use it is slow to reach. "
        "numad-py binds the threads to the CPUs of the home where they are free to leave it, and "
        "brings the memory there in small pieces while the worker goes on.",
        "Nothing needs to be done. If it is to be left as it is, add an [[exclude]] for it to "
        "the policy; numad-py pause stops all moves.",
    ),
    Reason.REMOTE_THREADS: Meaning(
        "Its memory is where it belongs, on {home}, but its threads run elsewhere, or are free to.",
        "The kernel may put a thread on any CPU it is allowed to use, also far from the memory "
        "it works with. numad-py narrows that to the CPUs of its home; no memory has to move.",
        "Nothing needs to be done. If it is to be left as it is, add an [[exclude]] for it to "
        "the policy; numad-py restore gives all threads their freedom back, and pauses.",
    ),
    Reason.GUARD_UNDO: Meaning(
        "Moving it made its own latency worse, so the move is taken back.",
        "Its rule names a latency metric as a guard. It was measured before the move and after "
        "it, for as long, and got worse by more than the rule allows. So its memory goes back to "
        "where it came from, and its threads get the masks that their user gave them. Then it is "
        "left alone for the pause of its guard, which doubles each time.",
        "Nothing needs to be done. If its load had changed at that moment, the move may not have "
        "been to blame: it is tried again after the pause. To judge less strictly, raise worse or "
        "window in [rule.guard].",
    ),
    Reason.HOME: Meaning(
        "All is well: nothing of it that could be moved lies away from {home}.",
        "There is nothing to do; numad-py keeps looking.",
        "Nothing needs to be done.",
        detail=False,
    ),
    Reason.BELOW_THRESHOLD: Meaning(
        "It is as good as home: only {remote} of its memory that can be moved lies away from "
        "{home}.",
        "Moving memory has a cost of its own, so that so little is left where it is. The policy "
        "says what is little: min_locality and min_remote of [placement].",
        "Nothing needs to be done. To have this moved too, raise min_locality or lower "
        "min_remote in the policy, and run systemctl reload numad-py.",
        detail=False,
    ),
    Reason.ONE_NODE: Meaning(
        "There is nothing to move: only one node of this machine has memory.",
        "numad-py only measures here.",
        "Nothing can be done, and nothing needs to be.",
        detail=False,
    ),
    Reason.LOADING: Meaning(
        "It started a short time ago and is still loading; until it has, it is left alone.",
        "Where it will be when it is ready cannot be told yet, and moving it now would slow its "
        "start. It counts as loading while it has grown within the time settle of [placement], "
        "but no longer than loading_limit after its start.",
        f"Wait until it has loaded.\n{_PLACED_AT_START}",
    ),
    Reason.QUEUED: Meaning(
        "It is to be moved to {home}, but others are moved first.",
        "Where moving helps most comes first, only so much is set in motion at a time "
        "(moved_per_cycle of [placement]), and some must leave a node before others have room "
        "there.",
        "Wait: its turn comes in a later cycle. If it stays like this, numad-py plan shows what "
        "those before it are waiting for.",
    ),
    Reason.COOLDOWN: Meaning(
        "numad-py did something about it a short time ago, and leaves it alone for a while.",
        "What was done is given time to show, so that nothing is moved to and fro. The pause is "
        "the cooldown of [placement]; it doubles each time that less than half could be moved.",
        "Wait. If it comes back to this again and again, its memory does not want to move: "
        "journalctl -u numad-py shows what became of each move.",
    ),
    Reason.MOVING: Meaning(
        "Its memory is being moved to {home} at this moment.",
        "That goes in small pieces, and the worker goes on meanwhile. Then it is measured again.",
        "Wait. numad-py pause would stop after the piece under way.",
        detail=False,
    ),
    Reason.PAUSED: Meaning(
        "There is something to do about it, but numad-py is paused.",
        "Somebody ran numad-py pause or numad-py restore; until numad-py resume no worker is "
        "touched.",
        "Let it go on: numad-py resume",
    ),
    Reason.UNREADABLE: Meaning(
        "Where its memory lies could not be read, so nothing is done about it.",
        "numad-py does not move what it cannot see.",
        "Looking at the memory of other users' processes takes the capability CAP_SYS_PTRACE: "
        "the service has it, and so has root (sudo numad-py explain {pid}). numad-py doctor says "
        "which rights are missing.\n"
        "If the process was just starting or ending, the next look will tell.",
    ),
    Reason.MEASURING: Meaning(
        "It seems that there is something to do about it; before that it is looked at closely.",
        "A quick look shows how much lies where, but not which of it may be moved. So its memory "
        "is read in full, once, before anything is done.",
        "Wait for a cycle or two. If it stays like this, reading it in full would hold it up for "
        "longer than the policy allows: raise longest_hold of [scan].",
    ),
    Reason.GUARDING: Meaning(
        "Its own latency is being measured, to tell whether moving it helps.",
        "Its rule names a latency metric as a guard. Before it is moved, that is measured for a "
        "window of time, and again afterwards. If it is worse then, the move is taken back. Of "
        "the workers of one rule, one is moved at a time, so that it can be told whose move it "
        "was.",
        "Wait for a window or two (window of [rule.guard]). If the endpoint cannot be read, or has "
        "no requests, it is moved without a guard after two windows.",
    ),
    Reason.GUARD_PAUSE: Meaning(
        "Moving it made its own latency worse. That was taken back, and it is left alone for a "
        "while.",
        "What got worse once may well get worse again, so the next try comes after the pause of "
        "its guard; it doubles each time, up to a day. After a restart of numad-py it begins anew.",
        "Wait, or leave it where it is for good: add an [[exclude]] for it to the policy. If that "
        "was a mistake, because its load had changed, shorten pause in [rule.guard], or raise "
        "worse; that counts from the next time on.",
    ),
    Reason.MEMPOLICY: Meaning(
        "It is left alone: its user has told the kernel where its memory is to lie.",
        "Most of its memory is under a memory policy: a standing order to the kernel, given by "
        "numactl --membind or --interleave, or by the program itself. numad-py does not overrule "
        "its user.",
        "If that is meant, nothing needs to be done.\n"
        "If not, restart it without --membind or --interleave, and without NUMA options of its "
        "own. numactl --cpunodebind alone is fine: its memory then follows its threads.",
    ),
    Reason.NO_ROOM: Meaning(
        "It belongs on {home}, but there is too little free memory there for the {away} that lie "
        "elsewhere.",
        "numad-py never fills a node up: the headroom of [placement] stays free, so that others "
        "need not swap.",
        "Free memory on {home}: numad-py status shows how full it is, and which workers have "
        "memory there. The move follows by itself.\n"
        "Or let it have more nodes: {widen}.",
    ),
    Reason.NO_HOME: Meaning(
        "It is left alone: there is no node where it could be at home.",
        "A home needs CPUs and memory that this worker may use, and room for it.",
        "If its rule names nodes, name some that are online, or none.\n"
        "If its mask or its cpuset stands in the way, let it have CPUs and memory on the same "
        "nodes: AllowedCPUs= and AllowedMemoryNodes= of its unit, or cpus and mems of its "
        "container.\n"
        "If there is no room, free memory on the nodes that it may use; numad-py status shows "
        "how full they are.",
    ),
    Reason.IMMOVABLE: Meaning(
        "Part of its memory lies away from {home}, and cannot be moved.",
        "Memory that other processes use too stays where it is, since it may be right for them. "
        "Memory that a device reads and writes by itself (it is pinned) the kernel refuses to "
        "move.",
        f"{_PLACED_AT_START}\n"
        'If all that use the shared memory are workers that belong together, shared = "users" in '
        "their rules has it moved for all of them.\n"
        "Mapped files, such as weights, stay in the machine's file cache when the worker ends. "
        "To have them read anew on its home, stop all that use them, and empty the cache before "
        "the start: sync; echo 1 | sudo tee /proc/sys/vm/drop_caches",
    ),
}

SOURCES: Mapping[HomeSource, str] = {
    HomeSource.RULE: "The policy wants it so: {why}.",
    HomeSource.PIN: "That is its user's choice: {why}. numad-py leaves that as it is, and lets the "
    "memory follow.",
    HomeSource.CPUSET: "It may run nowhere else: {why}. numad-py lets the memory follow.",
    HomeSource.DEVICE: "It goes by its device: {why}.",
    HomeSource.PLANNER: "numad-py chose it when it placed all workers together ({why}).",
}
"""Who said where its home is, and why."""

WIDEN: Mapping[HomeSource, str] = {
    HomeSource.RULE: "name more in nodes of its rule in the policy",
    HomeSource.PIN: "start it with more CPUs than its pin (taskset, numactl, CPUAffinity=) gives",
    HomeSource.CPUSET: "grant its cpuset more CPUs (AllowedCPUs= of its unit, cpus of its "
    "container)",
    HomeSource.DEVICE: "set follow_devices = false in [placement], though it may then be far from "
    "its device",
    HomeSource.PLANNER: "grant it more CPUs, if it has a mask or a cpuset",
}
"""How a worker gets more nodes, by where its home comes from."""

GLOSSARY: Mapping[str, str] = {
    "cpuset": "the CPUs and nodes that the kernel grants to a service or a container",
    "cgroup": "the kernel's name for the group of processes of one service or container",
    "headroom": "the part of each node's memory that numad-py leaves free",
    "huge pages": "memory that was set aside in large pieces, for those who ask for it",
    "cycle": "one round of looking and acting; there is one every few seconds",
    "guard": "a latency metric of a worker's own, by which its rule has each move judged",
    "spread": "a key of a rule: its workers are kept on different nodes",
    "no_way_back": "a key of [placement]: how soon a worker may go back to where it came from",
}
"""Words that stand in what is said, and not everybody knows."""

ENDS: Mapping[End, str] = {
    End.DONE: "all that was to be done is done",
    End.PARTIAL: "some of it would not move",
    End.STOPPED: "it was broken off on the way",
    End.PLACED: "it was placed by its user meanwhile, so the rest stays where it is",
    End.GONE: "the worker had ended",
    End.NO_ROOM: "there was no room any more",
    End.PRESSURE: "memory stayed short, so it was broken off",
    End.FAILED: "it failed",
    End.SIMULATED: "it was only tried out",
}
"""How carrying out a decision ended."""

BARRED: Mapping[Limit, str] = {
    Limit.ALLOWED: "not allowed to it",
    Limit.MEMORY: "too little memory for it beside the others",
    Limit.CPUS: "too few CPUs for it beside the others",
    Limit.APART: "another of its group is there, and they are to be kept apart",
    Limit.ORDER: "no room on the way: others would have to leave first, and cannot",
}
"""What speaks against another home."""
