"""What is encoded comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numad_py.errors import Malformed
from numad_py.model.codec import decode, encode
from numad_py.model.cycle import Cycle, Said
from numad_py.model.machine import NodeState
from numad_py.model.outcome import Outcome
from numad_py.model.plan import Decision, DecisionState, Plan
from numad_py.model.snapshot import Segment, Snapshot, Worker, WorkerId
from numad_py.model.topology import Topology
from numad_py.policy.load import defaults
from tests.property.strategies import values_of

TYPES = (
    Cycle,
    Decision,
    DecisionState,
    NodeState,
    Outcome,
    Plan,
    Said,
    Segment,
    Snapshot,
    Topology,
)


@pytest.mark.parametrize("kind", [*TYPES, Worker], ids=lambda kind: kind.__name__)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_value_comes_back_through_json(kind: Any, data: st.DataObject) -> None:
    """Whatever its type hints allow, with nothing lost and nothing added."""
    value = data.draw(values_of(kind))
    assert decode(kind, json.loads(json.dumps(encode(value)))) == value


@settings(max_examples=25)
@given(data=st.data())
def test_what_is_odd_is_malformed_and_nothing_else(data: st.DataObject) -> None:
    """Any JSON in place of any part of a worker is refused in words, or makes a worker."""
    encoded = encode(data.draw(values_of(Worker)))
    key = data.draw(st.sampled_from(sorted(encoded)))
    encoded[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=4,
        )
    )
    said = None
    try:
        assert isinstance(decode(Worker, encoded), Worker)
    except Malformed as error:
        said = str(error)
    assert said is None or said.startswith(key)


def test_the_policy_comes_back_with_its_patterns() -> None:
    """A recording holds the policy under which it was made, regular expressions included."""
    policy = defaults()
    assert decode(type(policy), json.loads(json.dumps(encode(policy)))) == policy


def test_a_worker_id_is_a_value_and_a_key() -> None:
    """As a key, which JSON has as text only, its parts are joined."""
    state = decode(DecisionState, {"workers": {"7,5": {"moving": True}}})
    assert list(state.workers) == [WorkerId(7, 5)]
    assert decode(WorkerId, [7, 5]) == WorkerId(7, 5)
