//! Every order of events in a small case, with stateright: three monitors, two ballots, two
//! slots, a crash. The monitors are the real ones, not a copy of the protocol.
//!
//! What keeps the case finite, and what is therefore left to the simulation:
//! - An election timer jumps far ahead on all clocks, so leases have always run out (no lease reads).
//! - Pre-votes and their answers are exchanged at once: they change nothing durable.
//! - Accepts without a command, answers to them, and catch-up are lost: a follower learns what is decided
//!   with the next command.
//! - Batches are durable at once; a crash loses what is in memory only.
//!
//! Any message may be late, overtaken or (by never being chosen) lost; one may come twice.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use cairn_paxos::{
    Apply, Canary, DurableState, Event, Message, Moment, MonId, Node, Params, Payload, ProposalId, Request,
    Slot, Timing,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cluster {
    nodes: Vec<Node>,
    disks: Vec<DurableState>,
    network: Vec<(MonId, MonId, Message)>,
    now: Moment,
    elections_left: u8,
    crashes_left: u8,
    copies_left: u8,
    proposals_left: u8,
    /// What anyone ever took as decided, by slot.
    decided: BTreeMap<Slot, String>,
    agreed: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Action {
    Deliver(usize),
    DeliverAndKeep(usize),
    Election(usize),
    Propose(usize),
    Crash(usize),
}

struct Small {
    elections: u8,
    crashes: u8,
    copies: u8,
    rounds: u64,
    proposals: u8,
    canary: Option<Canary>,
}

const MONS: u32 = 3;

impl Small {
    fn restore(&self, at: usize, disk: &DurableState, now: Moment) -> Node {
        let mut node = Node::restore(MonId(at as u32 + 1), timing(), disk.clone(), disk.base.slot, 0, now)
            .expect("a state the node made");
        node.set_canary(self.canary);
        node
    }

    /// Does what node `at` wants done. Pre-vote traffic is handed over at once.
    fn drain(&self, state: &mut Cluster, at: usize) {
        let mut work = vec![at];
        while let Some(at) = work.pop() {
            let effects = state.nodes[at].take();
            let from = state.nodes[at].id();
            for record in &effects.persist {
                state.disks[at].absorb(record);
            }
            for apply in &effects.apply {
                if let Apply::Slot { slot, applied } = apply {
                    let value = format!("{applied:?}");
                    state.agreed &= *state.decided.entry(*slot).or_insert_with(|| value.clone()) == value;
                }
            }
            if effects.must_flush() {
                state.nodes[at].handle(state.now, Event::Persisted { batch: effects.batch });
                work.push(at);
            }
            for send in effects.early.into_iter().chain(effects.after) {
                let to = send.to.0 as usize - 1;
                match send.message {
                    Message::PreVote { .. } | Message::PreVoteReply { .. } => {
                        state.nodes[to].handle(state.now, Event::Message { from, message: send.message });
                        work.push(to);
                    }
                    Message::Accept { ref entries, .. } if entries.is_empty() => {}
                    Message::LearnRequest { .. } | Message::Learn { .. } => {}
                    Message::Accepted { ref slots, .. } if slots.is_empty() => {}
                    message => state.network.push((from, send.to, message)),
                }
            }
        }
        for node in &mut state.nodes {
            node.renumber_batches();
        }
        // The network keeps no order, so neither does its representation.
        state.network.sort_by_cached_key(digest);
        state.network.dedup();
    }
}

fn digest(entry: &(MonId, MonId, Message)) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.hash(&mut hasher);
    hasher.finish()
}

fn timing() -> Timing {
    Timing { jitter: Duration::ZERO, ..Timing::default() }
}

impl Model for Small {
    type State = Cluster;
    type Action = Action;

    fn init_states(&self) -> Vec<Cluster> {
        let founders = (1..=MONS).map(MonId).collect();
        let disk = DurableState::bootstrap(founders, Params { alpha: 2, window: 100 }).expect("founders");
        let now = Moment(0);
        let start = Cluster {
            nodes: (0..MONS as usize).map(|at| self.restore(at, &disk, now)).collect(),
            disks: vec![disk; MONS as usize],
            network: Vec::new(),
            now,
            elections_left: 1,
            crashes_left: self.crashes,
            copies_left: self.copies,
            proposals_left: self.proposals,
            decided: BTreeMap::new(),
            agreed: true,
        };
        // The first ballot is won by monitor 1, with the promise of both others or of 2 alone.
        [true, false]
            .into_iter()
            .map(|both| {
                let mut state = self.next_state(&start, Action::Election(0)).expect("a state");
                while let Some(index) = state.network.iter().position(|entry| both || entry.1 != MonId(3)) {
                    state = self.next_state(&state, Action::Deliver(index)).expect("a state");
                }
                state.network.clear();
                assert!(state.nodes[0].leading().is_some());
                state.elections_left = self.elections;
                state
            })
            .collect()
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Action>) {
        for at in 0..state.network.len() {
            actions.push(Action::Deliver(at));
            if state.copies_left > 0 {
                actions.push(Action::DeliverAndKeep(at));
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            if state.elections_left > 0 && node.leading().is_none() {
                actions.push(Action::Election(at));
            }
            if state.proposals_left > 0 && node.leading().is_some() {
                actions.push(Action::Propose(at));
            }
            if state.crashes_left > 0 {
                actions.push(Action::Crash(at));
            }
        }
    }

    fn next_state(&self, last: &Cluster, action: Action) -> Option<Cluster> {
        let mut state = last.clone();
        let at = match action {
            Action::Deliver(index) | Action::DeliverAndKeep(index) => {
                let (from, to, message) = state.network[index].clone();
                if action == Action::Deliver(index) {
                    state.network.remove(index);
                } else {
                    state.copies_left -= 1;
                }
                let at = to.0 as usize - 1;
                state.nodes[at].handle(state.now, Event::Message { from, message });
                at
            }
            Action::Election(at) => {
                state.elections_left -= 1;
                state.now = state.now + Duration::from_secs(10);
                state.nodes[at].handle(state.now, Event::Tick);
                at
            }
            Action::Propose(at) => {
                let seq = u64::from(state.proposals_left);
                state.proposals_left -= 1;
                let request = Request::App(Payload::from(&seq.to_le_bytes()[..]));
                let id = ProposalId { session: 1, seq };
                state.nodes[at].handle(state.now, Event::Propose { id, born: Slot::ZERO, request });
                at
            }
            Action::Crash(at) => {
                state.crashes_left -= 1;
                state.nodes[at] = self.restore(at, &state.disks[at], state.now);
                at
            }
        };
        self.drain(&mut state, at);
        Some(state)
    }

    /// Two leaders that refuse each other could raise their ballots for ever while no time passes.
    fn within_boundary(&self, state: &Cluster) -> bool {
        state.nodes.iter().all(|node| node.promised().round <= self.rounds)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one value per slot", |_, state: &Cluster| state.agreed),
            Property::always("one leader per ballot", |_, state: &Cluster| {
                let ballots: Vec<_> = state.nodes.iter().filter_map(Node::leading).collect();
                ballots.iter().enumerate().all(|(at, ballot)| !ballots[..at].contains(ballot))
            }),
            Property::sometimes("every command is decided", |model: &Small, state: &Cluster| {
                state.decided.len() >= usize::from(model.proposals)
            }),
            Property::sometimes("a second leader decides", |_, state: &Cluster| {
                state.nodes.iter().any(|node| {
                    node.leading().is_some_and(|ballot| ballot.round >= 2) && node.decided() > Slot::ZERO
                })
            }),
        ]
    }
}

#[test]
fn no_order_of_events_breaks_agreement() {
    for (rounds, crashes, copies, proposals) in [(2, 0, 0, 1), (2, 1, 0, 1), (2, 0, 1, 1), (3, 0, 0, 1)] {
        let small = Small { elections: 1, crashes, copies, rounds, proposals, canary: None };
        let checker = small.checker().threads(2).spawn_bfs().join();
        eprintln!(
            "{rounds} rounds, {crashes} crashes, {copies} copies, {proposals} commands: {} states",
            checker.unique_state_count()
        );
        checker.assert_properties();
        assert!(checker.is_done());
    }
}

#[test]
fn the_model_sees_a_promise_that_hides_what_was_accepted() {
    let small = Small {
        elections: 1,
        crashes: 0,
        copies: 0,
        rounds: 2,
        proposals: 2,
        canary: Some(Canary::PromiseWithoutAccepted),
    };
    let checker = small.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    assert!(checker.discovery("one value per slot").is_some());
}
