"""Kernel settings that are changed for as long as numad-py acts, journalled before each change.

A setting that somebody else has set since is left alone. All are given back when acting ends,
whatever ``on_stop`` says of masks: a mask is the worker's, a setting is the whole machine's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from numad_py.act.journal import Change, Growth, Journal
from numad_py.act.pools import give_back_pages, grow, settled
from numad_py.errors import NumadError
from numad_py.kernel.settings import AUTONUMA, BALANCES, Settings
from numad_py.model.settings import SettingsTold

log = structlog.get_logger(__name__)

LEFT_ON = (
    "threads bound to their home draw pages there too; free ones may draw them away; "
    '[migration] autonuma = "off" switches it off while numad-py acts'
)


class Keeper:
    """Changes settings and gives them back; any thread may call it.

    Pages that were added for a move belong to the thread that moves, until the move ends: while a
    write to a pool is under way nobody can tell how many it will bring.
    """

    def __init__(self, settings: Settings, journal: Journal) -> None:
        """Change nothing yet."""
        self._settings = settings
        self._journal = journal
        self._giving_back = threading.Lock()
        """Nothing is given back twice, and nothing that a move has just been given."""
        self._growing: set[str] = set()
        """Pools that have pages for the move under way."""
        self._switched = False
        self._problems: dict[str, str] = {}
        self._failures: Counter[str] = Counter()

    def take_up(self) -> None:
        """Give back what earlier moves have left: of a run that was killed, or that failed to."""
        self._give_back(s for s in self._journal.settings() if isinstance(s, Growth))

    def use(self, *, acting: bool, autonuma_off: bool) -> None:
        """Have the settings as mode and policy want them; what cannot be had is said once.

        A value that somebody else sets while it stays wanted is left as it is.
        """
        wanted = acting and autonuma_off
        if wanted and not self._switched:
            self._switch_off()
        elif not wanted:
            self._problems.pop(AUTONUMA, None)
            self._give_back(s for s in self._journal.settings() if isinstance(s, Change))
            if acting:
                self._say_left_on()
        self._switched = wanted

    def give_back(self) -> tuple[str, ...]:
        """Give back all that the journal holds; return what was done, in words.

        What cannot be given back stays in the journal, and it is said why.
        """
        self._switched = False
        return self._give_back(self._journal.settings())

    def _give_back(self, settings: Iterable[Change | Growth]) -> tuple[str, ...]:
        said = (self._given_back(setting) for setting in settings)
        return tuple(told for told in said if told is not None)

    def _given_back(self, setting: Change | Growth) -> str | None:
        """Give one back; return what was done, None where nothing could be."""
        with self._giving_back:
            if setting.name in self._growing:
                log.info("huge pages are given back by their move", pool=setting.name)
                return f"{setting.name}: the move that has them gives them back as it ends"
            if self._journal.setting(setting.name) != setting:
                # Its move has just ended.
                return None
            try:
                if isinstance(setting, Change):
                    told = self._give_back_value(setting)
                else:
                    told = self._give_back_pages(setting)
            except NumadError as error:
                self.failed(setting.name, error)
                return None
        self.solved(setting.name)
        return told

    def _give_back_pages(self, growth: Growth) -> str:
        others = {
            s.target
            for s in self._journal.settings()
            if isinstance(s, Growth) and s.page_bytes == growth.page_bytes
        }
        told = give_back_pages(growth, self._settings, self._note, others - {growth.target})
        self._journal.forget_setting(growth.name)
        log.info("huge pages given back", pool=growth.name, result=told)
        return f"{growth.name}: {told}"

    # Huge pages

    def grow(self, growth: Growth, stopped: Callable[[], bool]) -> None:
        """Make a pool larger for a move, which is to call ``end_growth`` whatever becomes of it.

        Raises:
            RightsError: the pool may not be set.
            NumadError: it cannot be, or the journal could not be written; then it was not set.
        """
        name = growth.name
        with self._giving_back:
            self._growing.add(name)
            found = self._journal.setting(name)
            # What could not be given back yet is still to be.
            earlier = settled(found, self._settings) if isinstance(found, Growth) else None
            begun = growth.begun(earlier)
            self._journal.put_setting(begun)
        try:
            grow(growth, self._settings, stopped)
        except NumadError:
            self._note(settled(begun, self._settings))
            raise
        # Before anything moves: from here on others may set the pools as well.
        self._note(settled(begun, self._settings))

    def _note(self, growth: Growth) -> None:
        """Write down how far a growth, or giving it back, has come.

        Who gives back goes on where the disk is full: it then knows less after a kill.
        """
        try:
            self._journal.put_setting(growth)
        except NumadError as error:
            log.warning("journal not written", error=str(error))

    def end_growth(self, name: str) -> None:
        """Take pages off again that were added for a move; what cannot be is kept, and said."""
        with self._giving_back:
            self._growing.discard(name)
            growth = self._journal.setting(name)
            if not isinstance(growth, Growth):
                return
            try:
                self._give_back_pages(growth)
            except NumadError as error:
                self.failed(name, error)

    def failed(self, name: str, error: NumadError) -> None:
        """Count a failure, and say it where it is not the same as the last one."""
        self._failures["numa_balancing" if name == AUTONUMA else "huge_pages"] += 1
        if self._problems.get(name) != str(error):
            log.warning("kernel setting not changed", setting=name, error=str(error))
        self._problems[name] = str(error)

    def solved(self, name: str) -> None:
        """Say no more of what could not be changed before."""
        self._problems.pop(name, None)

    def told(self) -> SettingsTold:
        """Return what is changed, and what could not be."""
        changed = {
            s.name: f"{s.ours}, was {s.before}"
            if isinstance(s, Change)
            else f"{s.got if s.got and s.under_way is None else s.wanted} more for a move"
            for s in self._journal.settings()
        }
        return SettingsTold(changed, dict(self._problems), dict(self._failures))

    # AutoNUMA

    def _switch_off(self) -> None:
        known = self._journal.setting(AUTONUMA)
        try:
            value = self._settings.autonuma()
            if isinstance(known, Change):
                if value == known.ours:
                    log.info("AutoNUMA is off since an earlier run", setting=AUTONUMA, value=value)
                    return
                self._journal.forget_setting(AUTONUMA)
            if value is None or not value & BALANCES:
                return
            self._set(Change(AUTONUMA, before=value, ours=value & ~BALANCES))
        except NumadError as error:
            self.failed(AUTONUMA, error)
        else:
            self._problems.pop(AUTONUMA, None)

    def _set(self, change: Change) -> None:
        self._journal.put_setting(change)
        try:
            self._settings.set_autonuma(change.ours)
        except NumadError:
            self._journal.forget_setting(change.name)
            raise
        log.info("AutoNUMA switched off", setting=change.name, was=change.before, now=change.ours)

    def _give_back_value(self, change: Change) -> str:
        value = self._settings.autonuma()
        if value == change.ours:
            self._settings.set_autonuma(change.before)
            told = f"{change.name} is {change.before} again"
            log.info("AutoNUMA given back", setting=change.name, was=change.ours, now=change.before)
        else:
            told = f"{change.name} is {value}, which somebody else has set: it is left"
            if value == change.before:
                told = f"{change.name} is {change.before} already"
            log.info("AutoNUMA is not what numad-py set", setting=change.name, result=told)
        self._journal.forget_setting(change.name)
        return told

    def _say_left_on(self) -> None:
        try:
            value = self._settings.autonuma()
        except NumadError:
            return
        if value is not None and value & BALANCES:
            log.info("AutoNUMA is on", setting=AUTONUMA, value=value, what_follows=LEFT_ON)
