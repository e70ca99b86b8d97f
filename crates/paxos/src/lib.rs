//! The replicated log of the monitors: Multi-Paxos with one stable leader, as a state machine without I/O.
