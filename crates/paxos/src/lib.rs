//! The replicated log of the monitors: Multi-Paxos with one stable leader, as a state machine
//! without I/O, clock, entropy or runtime.
//!
//! A [`Node`] is one monitor's part. A driver hands it [`Event`]s with the current time and does what
//! the gathered [`Effects`] say, in the order they say. `docs/paxos.md` has the messages, the
//! invariants, the timers and the driver's duties.
//!
//! | behaviour | module |
//! |---|---|
//! | slots, ballots | `ballot` |
//! | values, proposals and their ids | `command` |
//! | durable state, records, what a decided slot means | `state` |
//! | who votes on which slot | `membership` |
//! | pre-vote, prepare, promise | `election` |
//! | accept, votes, deciding | `replicate` |
//! | entries for a monitor that lags | `learn` |
//! | full state for one that lags far | `catchup` |
//! | reads without a round | `lease` |
//! | proposals from caller to outcome | `proposals` |

mod ballot;
#[cfg(any(test, feature = "canary"))]
mod canary;
mod catchup;
mod command;
mod effects;
mod election;
mod hash;
mod learn;
mod lease;
pub mod limits;
mod membership;
mod message;
mod node;
mod proposals;
mod replicate;
mod state;
mod timers;

/// Whether a deliberate bug is switched on; `false`, and no code, outside tests.
macro_rules! canary_on {
    ($node:expr, $name:ident) => {{
        #[cfg(any(test, feature = "canary"))]
        {
            $node.canary == Some(crate::canary::Canary::$name)
        }
        #[cfg(not(any(test, feature = "canary")))]
        {
            let _ = &$node;
            false
        }
    }};
}
pub(crate) use canary_on;

pub use ballot::{Ballot, Slot};
pub use cairn_types::MonId;
#[cfg(any(test, feature = "canary"))]
pub use canary::Canary;
pub use command::{Change, Command, Payload, Proposal, ProposalId, Request};
pub use effects::{Apply, Effects, Event, Notice, Outcome, Poison, Refused, Send};
pub use membership::{ChangeRefused, Configs, Membership, Standing};
pub use message::Message;
pub use node::{Node, RoleName};
pub use state::{Accepted, Applied, DurableState, Ledger, Params, Recent, Record, StateError};
pub use timers::{Moment, Timing, TimingError};
