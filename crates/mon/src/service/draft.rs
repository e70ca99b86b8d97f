//! From commands to a transaction: the leader tries them on a copy of the state.

use super::transaction::changes;
use super::{
    Auth, Block, ClusterState, Config, LeaderCommand, Once, OsdRecord, Refusal, Reply, Request, Transaction,
    cluster, config, members, osd, pg, pool,
};
use cairn_types::{EntityAddr, Epoch, MgrMap, MonMap, OsdId, OsdInfo, OsdMap, PgId, Pool, PoolId, Timestamp};
use cairn_wire::RequestId;
use std::collections::BTreeMap;

/// A transaction in the making. Commands are validated one after the other, each seeing those before it;
/// a refused one leaves no trace. All that are accepted become one epoch.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    pub(super) base: &'a ClusterState,
    pub(super) now: Timestamp,
    pub(super) next: Working,
    remember: Vec<(RequestId, Reply)>,
}

/// The parts of the state that commands change.
#[derive(Clone, Debug)]
pub(super) struct Working {
    /// Carries the next epoch already, so that commands can stamp it into what they change.
    pub osd_map: OsdMap,
    pub mon_map: MonMap,
    pub mgr_map: MgrMap,
    pub osd_records: BTreeMap<OsdId, OsdRecord>,
    pub blocks: BTreeMap<EntityAddr, Block>,
    pub config: Config,
    pub auth: Auth,
    pub trim_to: Option<Epoch>,
    pub last_client: u64,
}

impl<'a> Draft<'a> {
    /// A draft over `base` at the leader's time.
    pub fn new(base: &'a ClusterState, now: Timestamp) -> Self {
        let mut osd_map = base.osd_map().clone();
        osd_map.epoch = osd_map.epoch.next();
        let next = Working {
            osd_map,
            mon_map: base.mon_map.clone(),
            mgr_map: base.mgr_map.clone(),
            osd_records: base.osd_records.clone(),
            blocks: base.blocks.clone(),
            config: base.config.clone(),
            auth: base.auth.clone(),
            trim_to: None,
            last_client: base.last_client,
        };
        Draft { base, now, next, remember: Vec::new() }
    }

    /// Tries one command that must count once. One that was carried out before, here or in the state, gets
    /// the answer it got then.
    pub fn run_once(&mut self, once: Once, request: &Request) -> Result<Reply, Refusal> {
        let here = || self.remember.iter().find(|(id, _)| *id == once.id).map(|(_, reply)| reply);
        let remembered = &self.base.remembered;
        if let Some(reply) = remembered.find(once.id).or_else(here) {
            return Ok(reply.clone());
        }
        if once.born < remembered.floor() {
            return Err(Refusal::TooOld { born: once.born, oldest: remembered.floor() });
        }
        if once.born > self.base.version {
            return Err(Refusal::BornInFuture { born: once.born, have: self.base.version });
        }
        let reply = self.run(request)?;
        self.remember.push((once.id, reply.clone()));
        Ok(reply)
    }

    /// Tries one command.
    pub fn run(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let before = self.next.clone();
        let tried = self.dispatch(request).and_then(|reply| {
            // The last line of defence: no command may make a map that the monitors would refuse.
            self.next.osd_map.check()?;
            Ok(reply)
        });
        if tried.is_err() {
            self.next = before;
        }
        tried
    }

    fn dispatch(&mut self, request: &Request) -> Result<Reply, Refusal> {
        match request {
            Request::Osd(command) => osd::run(self, command),
            Request::Pool(command) => pool::run(self, command),
            Request::Pg(command) => pg::run(self, command),
            Request::Cluster(command) => cluster::run(self, command),
            Request::Config(command) => config::run(self, command),
            Request::Mon(command) => members::run_mon(self, command),
            Request::Auth(command) => members::run_auth(self, command),
            Request::Session => {
                self.next.last_client += 1;
                Ok(Reply::Session { client: self.next.last_client })
            }
            Request::Leader(command) => self.run_leader(command),
        }
    }

    fn run_leader(&mut self, command: &LeaderCommand) -> Result<Reply, Refusal> {
        match command {
            LeaderCommand::OsdFailed { osd, up_from } => osd::failed(self, *osd, *up_from),
            LeaderCommand::OsdAutoOut { osd } => osd::auto_out(self, *osd),
            LeaderCommand::ExpireBlocklist { entries } => cluster::expire(self, entries),
            LeaderCommand::OsdFull { full } => cluster::set_full(self, *full),
            LeaderCommand::PoolFull { pool, full } => pool::set_full(self, *pool, *full),
            LeaderCommand::MgrSeen { name, addr } => members::mgr_seen(self, name, *addr),
            LeaderCommand::MgrLost { name, addr } => members::mgr_lost(self, name, *addr),
            LeaderCommand::MonChanged { change } => members::mon_changed(self, change),
            LeaderCommand::TrimOsdMaps { first } => {
                let kept = &self.base.osd_maps;
                if *first > kept.first() && *first <= kept.current().epoch {
                    self.next.trim_to = Some(*first);
                }
                Ok(Reply::Done)
            }
        }
    }

    /// The transaction of all accepted commands; `None` if they change nothing. A command that must count
    /// once counts as a change in any case: a late copy of it must not be carried out after others.
    pub fn finish(self) -> Option<Transaction> {
        let Draft { base, now, next, remember } = self;
        let mut transaction = Transaction::empty(base.version + 1, now);
        let mut osd_map = next.osd_map;
        let before = base.osd_map();
        if (OsdMap { epoch: before.epoch, ..osd_map.clone() }) != *before {
            osd_map.modified = now;
            transaction.osd_map = Some(before.diff(&osd_map));
        }
        if next.mon_map != base.mon_map {
            let epoch = base.mon_map.epoch.next();
            transaction.mon_map = Some(MonMap { epoch, modified: now, ..next.mon_map });
        }
        if next.mgr_map != base.mgr_map {
            transaction.mgr_map = Some(MgrMap { epoch: base.mgr_map.epoch.next(), ..next.mgr_map });
        }
        transaction.osd_records = changes(&base.osd_records, &next.osd_records);
        transaction.blocks = changes(&base.blocks, &next.blocks);
        transaction.config = changes(&base.config.values, &next.config.values);
        transaction.auth = changes(&base.auth.entities, &next.auth.entities);
        transaction.trim_osd_maps_to = next.trim_to;
        transaction.last_client = (next.last_client != base.last_client).then_some(next.last_client);
        transaction.remember = remember;
        (!transaction.is_empty()).then_some(transaction)
    }

    /// The epoch the transaction will make.
    pub(super) fn epoch(&self) -> Epoch {
        self.next.osd_map.epoch
    }

    pub(super) fn osd(&mut self, osd: OsdId) -> Result<&mut OsdInfo, Refusal> {
        self.next.osd_map.osds.get_mut(&osd).ok_or(Refusal::NoOsd { osd })
    }

    pub(super) fn pool(&mut self, name: &str) -> Result<(PoolId, &mut Pool), Refusal> {
        let found = self.next.osd_map.pools.iter_mut().find(|(_, pool)| pool.name == name);
        found.map(|(id, pool)| (*id, pool)).ok_or_else(|| Refusal::NoPool { pool: clip(name) })
    }

    /// Removes the entries by placement group for which `keep` does not hold.
    pub(super) fn retain_pgs(&mut self, keep: impl Fn(PgId) -> bool) {
        let map = &mut self.next.osd_map;
        map.pg_temp.retain(|pg, _| keep(*pg));
        map.primary_temp.retain(|pg, _| keep(*pg));
        map.upmap.retain(|pg, _| keep(*pg));
        map.upmap_items.retain(|pg, _| keep(*pg));
    }
}

/// The start of a text from outside, for an error message.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
