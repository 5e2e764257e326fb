"""Who runs what: every slot of a sweep is run once, whatever processes die in between.

A sweep has ``total`` slots, the points of a grid or the trials of a sampler. A trial of the study says in its
attributes which slot it is for and which process runs it; storage creates it in one step, with the attributes
and a number that grows. The protocol needs nothing else of a storage:

* a slot is *taken* when a trial of it has finished, or runs in a process that lives;
* whoever wants a free slot creates a trial for it and then reads all trials again. Of several living trials
  of one slot the one with the lowest number stays, the others are dropped before they begin;
* the trial of a dead process is marked as dropped, and its slot is free again. If its result had been written
  already, the trial is completed instead.

Marks are only ever added, so that two processes that find the same dead trial do no harm to each other.
"""

from __future__ import annotations

import datetime
import json
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qfx.sweep import owner
from qfx.sweep.space import Point, Range, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SLOT, OWNER, BEAT, DROPPED = "qfx:slot", "qfx:owner", "qfx:beat", "qfx:dropped"
RESULT, ERROR = "qfx:result", "qfx:error"
RETRIED = "qfx:retried"


@dataclass(frozen=True)
class Claim:
    """A slot that this process has to run."""

    slot: int
    number: int
    trial_id: int
    parameters: Point


class Ledger:
    """The slots of a study.

    Args:
        study: with its sampler.
        storage: of the study.
        space: what the slots vary.
        total: slots; a grid has one per point.
        grid: whether slots are the points of the grid, or drawn by the sampler.
        beat_s: seconds between heartbeats.
        grace_s: silence after which a process on another machine counts as dead.
    """

    def __init__(
        self,
        study: Study,
        storage: BaseStorage,
        space: Space,
        total: int,
        *,
        grid: bool,
        beat_s: float = 15.0,
        grace_s: float = 300.0,
    ) -> None:
        self.study, self.storage, self.space, self.total = study, storage, space, total
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.points = space.grid() if grid else None
        self.beat_s = beat_s
        self._beats = owner.Beats(grace_s)
        self._retried = set(storage.get_study_user_attrs(self.study_id).get(RETRIED, ()))
        self._distributions = distributions(space)
        self._random = random.Random()  # which free slot to try: processes should not all try the same

    def trials(self) -> list[FrozenTrial]:
        """All trials that count: without those that were dropped or are to be run again."""
        everything = self.storage.get_all_trials(self.study_id, deepcopy=False)
        return [t for t in everything if counts(t) and t.number not in self._retried]

    def next(self) -> Claim | None | float:
        """A slot to run; ``None`` when all are finished; seconds to wait when others still run the last
        ones."""
        while True:
            trials = self.trials()
            dead = [t for t in trials if self._is_dead(t)]
            for trial in dead:
                self._bury(trial)
            if dead:
                continue
            taken = {t.user_attrs[SLOT] for t in trials}
            free = [slot for slot in range(self.total) if slot not in taken]
            if not free:
                return None if all(t.state.is_finished() for t in trials) else min(1.0, self.beat_s)
            alone = all(t.state.is_finished() for t in trials)
            slot = free[0] if alone else self._random.choice(free)
            if (claim := self._claim(slot)) is not None:
                return claim

    def finish(self, claim: Claim, result: Mapping[str, Any], values: Sequence[float]) -> None:
        """Record what a slot gave. Of a process that was thought dead nothing is recorded."""
        text = json.dumps({"values": list(values), "result": result}, allow_nan=False)
        self._write(claim.trial_id, {RESULT: text})
        self._end(claim.trial_id, values)

    def fail(self, claim: Claim, error: str) -> None:
        """Record that a slot failed, and why."""
        self._write(claim.trial_id, {ERROR: error})
        self._end(claim.trial_id, None)

    def retry_failed(self) -> int:
        """Free the slots whose trials failed; how many."""
        failed = [t.number for t in self.trials() if ERROR in t.user_attrs and t.state.is_finished()]
        self._retried |= {*self.storage.get_study_user_attrs(self.study_id).get(RETRIED, ()), *failed}
        self.storage.set_study_user_attr(self.study_id, RETRIED, sorted(self._retried))
        return len(failed)

    # -- one trial -------------------------------------------------------------------------------------------

    def _claim(self, slot: int) -> Claim | None:
        optuna = _optuna()
        parameters = self.points[slot] if self.points is not None else self._interrupted(slot)
        template = optuna.trial.FrozenTrial(
            number=-1,
            trial_id=-1,
            state=optuna.trial.TrialState.RUNNING,
            value=None,
            datetime_start=datetime.datetime.now(),
            datetime_complete=None,
            params={} if parameters is None else parameters,
            distributions={} if parameters is None else self._distributions,
            user_attrs={SLOT: slot, OWNER: owner.me(), BEAT: 0},
            system_attrs={},
            intermediate_values={},
        )
        trial_id = self.storage.create_new_trial(self.study_id, template_trial=template)
        rivals = [t for t in self.trials() if t.user_attrs[SLOT] == slot]
        (number,) = (t.number for t in rivals if t._trial_id == trial_id)
        if any(t.number < number and not self._is_dead(t) for t in rivals):
            self._drop(trial_id, "another process was first")
            return None
        if parameters is None:
            trial = optuna.trial.Trial(self.study, trial_id)
            parameters = {
                name: _suggest(trial, name, self.space.choices[name]) for name in self._distributions
            }
        return Claim(slot, number, trial_id, parameters)

    def _interrupted(self, slot: int) -> Point | None:
        """What the sampler drew for a slot whose process died: the same is run again."""
        for trial in reversed(self.storage.get_all_trials(self.study_id, deepcopy=False)):
            if trial.user_attrs.get(SLOT) == slot and set(trial.params) == set(self._distributions):
                return dict(trial.params)
        return None

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if trial.state.is_finished():
            return False
        who = trial.user_attrs[OWNER]
        if who.get("machine") == owner.machine():
            return owner.is_dead(who)
        return self._beats.is_silent(trial.number, trial.user_attrs.get(BEAT))

    def _bury(self, trial: FrozenTrial) -> None:
        """Complete or drop the trial of a dead process."""
        attributes, trial_id = trial.user_attrs, trial._trial_id
        if RESULT in attributes:
            self._end(trial_id, json.loads(attributes[RESULT])["values"])
        elif ERROR in attributes:
            self._end(trial_id, None)
        else:
            self._drop(trial_id, "its process ended")

    def _drop(self, trial_id: int, why: str) -> None:
        self._write(trial_id, {DROPPED: why})
        self._end(trial_id, None)

    def _write(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            try:
                self.storage.set_trial_user_attr(trial_id, name, value)
            except _finished():
                return

    def _end(self, trial_id: int, values: Sequence[float] | None) -> None:
        state = _optuna().trial.TrialState
        try:
            self.storage.set_trial_state_values(
                trial_id, state.FAIL if values is None else state.COMPLETE, values
            )
        except _finished():
            pass  # by another process that thought this one dead


class Heart:
    """Writes a heartbeat for a claim while the block runs."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ledger, claim), daemon=True)

    def _run(self, ledger: Ledger, claim: Claim) -> None:
        beat = 0
        while not self._stop.wait(ledger.beat_s):
            beat += 1
            try:
                ledger.storage.set_trial_user_attr(claim.trial_id, BEAT, beat)
            except Exception:
                return  # storage is away or the trial is over: the end of the trial will say so

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial of a study belongs to a slot and was not dropped."""
    return SLOT in trial.user_attrs and DROPPED not in trial.user_attrs


def distributions(space: Space) -> dict[str, Any]:
    """The parameters as Optuna's distributions."""
    made = _optuna().distributions
    found: dict[str, Any] = {}
    for name, values in space.choices.items():
        if not isinstance(values, Range):
            found[name] = made.CategoricalDistribution(values)
        elif values.integer:
            found[name] = made.IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            found[name] = made.FloatDistribution(float(values.low), float(values.high), log=values.log)
    return found


def _suggest(trial: Any, name: str, values: Any) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, values)
    if values.integer:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, float(values.low), float(values.high), log=values.log)


def _optuna() -> Any:
    from qfx.sweep.storage import optuna

    return optuna()


def _finished() -> type[Exception]:
    import optuna.exceptions

    return optuna.exceptions.UpdateFinishedTrialError
