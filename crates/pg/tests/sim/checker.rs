//! Linearizability of one object's history, by search with memory (Wing and Gong, Lowe).

use bytes::Bytes;
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Read,
    Set(u64),
    Append(u64),
    Delete,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub action: Action,
    pub invoked: u64,
    /// When it was answered, and with what.
    pub answered: Option<(u64, Bytes)>,
}

pub const ABSENT: &[u8] = b"-";

/// The state after an action and the answer it gives.
pub fn step(state: &Option<Bytes>, action: Action) -> (Option<Bytes>, Bytes) {
    match action {
        Action::Read => (state.clone(), state.clone().unwrap_or(Bytes::from_static(ABSENT))),
        Action::Set(value) => (Some(Bytes::copy_from_slice(&value.to_be_bytes())), Bytes::from_static(b"ok")),
        Action::Append(value) => {
            let new: Bytes = [state.as_deref().unwrap_or(&[]), &value.to_be_bytes()].concat().into();
            (Some(new.clone()), new)
        }
        Action::Delete if state.is_none() => (None, Bytes::from_static(ABSENT)),
        Action::Delete => (None, Bytes::from_static(b"ok")),
    }
}

/// Whether the answered operations fit one order; those not answered may have happened or not.
pub fn is_linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= 128, "the checker holds a set of operations in 128 bits");
    let answered = history.iter().enumerate().filter(|(_, op)| op.answered.is_some());
    let goal: u128 = answered.fold(0, |set, (at, _)| set | 1 << at);
    let mut seen: BTreeSet<(u128, Option<Bytes>)> = BTreeSet::new();
    let mut stack: Vec<(u128, Option<Bytes>)> = vec![(0, None)];
    while let Some((done, state)) = stack.pop() {
        if done & goal == goal {
            return true;
        }
        let open = |at: &usize| done & (1 << at) == 0;
        let first_answer = (0..history.len())
            .filter(open)
            .filter_map(|at| history[at].answered.as_ref().map(|(time, _)| *time))
            .min()
            .unwrap_or(u64::MAX);
        for at in (0..history.len()).filter(open).filter(|at| history[*at].invoked <= first_answer) {
            let (next, answer) = step(&state, history[at].action);
            if history[at].answered.as_ref().is_some_and(|(_, got)| *got != answer) {
                continue;
            }
            let node = (done | 1 << at, next);
            if seen.insert(node.clone()) {
                stack.push(node);
            }
        }
    }
    false
}

#[test]
fn the_checker_tells_stale_reads_lost_writes_and_doubled_ones() {
    let op = |action, invoked, answered: Option<(u64, &[u8])>| Operation {
        action,
        invoked,
        answered: answered.map(|(time, bytes)| (time, Bytes::copy_from_slice(bytes))),
    };
    let one = 1u64.to_be_bytes();
    let twice = [one, one].concat();
    assert!(is_linearizable(&[
        op(Action::Set(1), 0, Some((5, b"ok"))),
        op(Action::Read, 6, Some((7, &one)))
    ]));
    assert!(!is_linearizable(&[
        op(Action::Set(1), 0, Some((5, b"ok"))),
        op(Action::Read, 6, Some((7, ABSENT)))
    ]));
    assert!(is_linearizable(&[op(Action::Set(1), 0, None), op(Action::Read, 6, Some((7, ABSENT)))]));
    assert!(!is_linearizable(&[
        op(Action::Append(1), 0, Some((5, &one))),
        op(Action::Read, 6, Some((7, &twice)))
    ]));
}
