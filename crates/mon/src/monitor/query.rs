//! Reads: answered by the leader alone, under its lease, from what it has applied.

use super::{Answer, Effects, Monitor, Origin};
use crate::service::health::{self, Quorum, View};
use crate::service::status::{self, Status};
use crate::service::{Auth, ClusterState, Config, Refusal, crush};
use cairn_types::{Digest, Epoch, Health, MgrMap, MonMap, OsdMap};
use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// The version of the state.
    Version,
    /// The whole at a glance.
    Status,
    /// The checks.
    Health,
    /// The tree of OSDs.
    OsdTree,
    /// An OSD map that is kept; the newest if none is named.
    OsdMap(Option<Epoch>),
    /// The monitors.
    MonMap,
    /// The mgrs.
    MgrMap,
    /// All settings.
    Config,
    /// Who may connect.
    Auth,
    /// The mgr's statistics, if they are fresh.
    Digest,
}

/// What a query gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // Each is the answer to the query of its name.
pub enum Reading {
    Version(u64),
    Status(Status),
    Health(Health),
    OsdTree(Vec<crush::TreeNode>),
    OsdMap(OsdMap),
    MonMap(MonMap),
    MgrMap(MgrMap),
    Config(Config),
    Auth(Auth),
    Digest(Option<Digest>),
}

impl Monitor {
    /// Answers what waits to be read. Only to be called while [`cairn_paxos::Node::can_read`] holds and
    /// all that is decided is applied.
    pub(super) fn answer_reads(&mut self, reads: Vec<(Origin, Query)>, out: &mut Effects) {
        for (origin, query) in reads {
            let answer = match self.state.as_ref().map(|state| self.read(state, query)) {
                Some(Ok(reading)) => Answer::Read(Box::new(reading)),
                Some(Err(refusal)) => Answer::refused(&refusal),
                None => continue,
            };
            self.deliver(origin, answer, out);
        }
    }

    fn read(&self, state: &ClusterState, query: Query) -> Result<Reading, Refusal> {
        let quorum = self.quorum();
        let view = View { state, quorum: &quorum, digest: self.fresh_digest(), now: self.wall() };
        Ok(match query {
            Query::Version => Reading::Version(state.version()),
            Query::Status => Reading::Status(status::status(view)),
            Query::Health => Reading::Health(health::health(view)),
            Query::OsdTree => Reading::OsdTree(crush::tree(state.osd_map())?),
            Query::OsdMap(None) => Reading::OsdMap(state.osd_map().clone()),
            Query::OsdMap(Some(epoch)) => {
                let (first, last) = (state.osd_maps().first(), state.osd_map().epoch);
                let map = state.osd_maps().map_at(epoch);
                Reading::OsdMap(map.ok_or(Refusal::NoEpoch { epoch, first, last })?)
            }
            Query::MonMap => Reading::MonMap(state.mon_map().clone()),
            Query::MgrMap => Reading::MgrMap(state.mgr_map().clone()),
            Query::Config => Reading::Config(state.config().clone()),
            Query::Auth => Reading::Auth(state.auth().clone()),
            Query::Digest => Reading::Digest(self.fresh_digest().cloned()),
        })
    }

    /// Which monitors agree, as the leader sees it.
    pub fn quorum(&self) -> Quorum {
        let names = self.names();
        let name = |id| names.get(&id).map(|name| (*name).to_owned());
        Quorum {
            leader: self.node.leader().and_then(name),
            members: self.node.responsive().into_iter().filter_map(name).collect(),
        }
    }
}
