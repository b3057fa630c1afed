"""(Snapshot, Policy, DecisionState) -> findings -> Plan; pure."""
