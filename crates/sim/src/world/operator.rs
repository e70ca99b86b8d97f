//! The operator: makes the cluster, does deeds, and in the end puts everything back in order.

use super::osd::uuid;
use super::session::MonSession;
use super::{Kind, OPERATOR, World};
use crate::canary::Canary;
use crate::network::HostId;
use crate::plan::{Deed, Planned, Proc, Step, WhichMon};
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::{
    ClusterCommand, ConfigCommand, ConfigSection, OsdCommand, PoolCommand, PoolSetting, Reply, Request,
};
use cairn_mon::session::CallError;
use cairn_mon::session::core::{Event, Outcome, Ticket};
use cairn_types::{MonId, OsdId, Weight};
use cairn_wire::ErrorCode;
use std::collections::VecDeque;
use std::time::Duration;

/// How long the operator waits for an answer; then asks again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long somebody is shut out.
const BLOCK_MS: u64 = 86_400_000;
/// Name of the pool.
const POOL: &str = "vms";

/// Something the operator wants, in as many steps as it takes.
#[derive(Debug)]
pub(super) enum Demand {
    Change(Request),
    /// `cairn mon add`: has it given a number, and starts it with the map that has it.
    AddMon(HostId),
    StartMon(MonId),
    /// `cairn mon rm`: has it removed, and ends it when nobody needs it.
    RemoveMon(WhichMon),
    EndMon(u16),
}

/// The operator's process.
#[derive(Default)]
pub(super) struct Operator {
    pub session: Option<MonSession>,
    /// What is to be asked, the first being asked now.
    queue: VecDeque<Demand>,
    tickets: u64,
}

impl World {
    pub(super) fn begin_operator(&mut self) {
        let session = self.new_session(OPERATOR, 0);
        self.operator.session = Some(session);
        for osd in self.osds.keys().copied().collect::<Vec<_>>() {
            self.create_osd(osd);
        }
        self.demand(Request::Pool(PoolCommand::Create {
            name: POOL.to_owned(),
            size: Some(self.shape.size as u8),
            min_size: Some(self.shape.min_size as u8),
            pg_num: Some(self.shape.pg_num),
            rule: None,
            application: "rbd".to_owned(),
        }));
        self.tell_session(OPERATOR, Event::Tick);
    }

    fn create_osd(&mut self, osd: OsdId) {
        let Some((host, incarnation)) =
            self.shape.host_of(osd).zip(self.osds.get(&osd).map(|node| node.disks))
        else {
            return;
        };
        let location = [
            ("root", "default".to_owned()),
            ("rack", format!("r{}", host.rack)),
            ("host", format!("h{}", host.id.0)),
        ];
        self.demand(Request::Osd(OsdCommand::Create {
            uuid: uuid(osd, incarnation),
            id: Some(osd),
            class: None,
            weight: Weight::ONE,
            location: location.map(|(kind, name)| (kind.to_owned(), name)).into(),
        }));
    }

    /// Takes the disk away and puts an empty one there, under the OSD's number.
    pub(super) fn replace_disk(&mut self, osd: OsdId) {
        // Not while it is being made, or replaced.
        if !self.osds.get(&osd).is_some_and(|node| node.known) {
            return;
        }
        self.stop(Proc::Osd(osd), true);
        self.new_disk(osd);
        self.demand(Request::Osd(OsdCommand::Down { osds: vec![osd] }));
        self.demand(Request::Osd(OsdCommand::Destroy { osd, confirmed: true }));
        self.create_osd(osd);
    }

    /// Asks for something, when what was asked before is answered.
    fn demand(&mut self, request: Request) {
        self.demand_all([Demand::Change(request)]);
    }

    fn demand_all(&mut self, demands: impl IntoIterator<Item = Demand>) {
        let was_idle = self.operator.queue.is_empty();
        self.operator.queue.extend(demands);
        if was_idle {
            self.ask_next();
        }
    }

    pub(super) fn ask_next(&mut self) {
        let Some(demand) = self.operator.queue.front() else { return };
        self.operator.tickets += 1;
        let ticket = Ticket(self.operator.tickets);
        let event = match *demand {
            Demand::Change(ref request) => Event::Change(ticket, request.clone(), PATIENCE),
            Demand::AddMon(host) if let Some(request) = self.addition(host) => {
                self.mons_made += 1;
                self.replace_demand([Demand::Change(request)]);
                return self.ask_next();
            }
            Demand::StartMon(_) => Event::Read(ticket, Query::MonMap, PATIENCE),
            Demand::RemoveMon(which) if let Some((n, request)) = self.removal(which) => {
                self.replace_demand([Demand::Change(request), Demand::EndMon(n)]);
                return self.ask_next();
            }
            Demand::AddMon(_) | Demand::RemoveMon(_) => {
                self.operator.queue.pop_front();
                return self.ask_next();
            }
            Demand::EndMon(n) if self.canary == Some(Canary::EndMonEarly) => {
                self.end_mon(n);
                self.operator.queue.pop_front();
                return self.ask_next();
            }
            Demand::EndMon(_) => Event::Read(ticket, Query::MonMap, PATIENCE),
        };
        self.tell_session(OPERATOR, event);
    }

    /// What is asked now is done by asking for these.
    fn replace_demand(&mut self, demands: impl IntoIterator<Item = Demand, IntoIter: DoubleEndedIterator>) {
        self.operator.queue.pop_front();
        demands.into_iter().rev().for_each(|demand| self.operator.queue.push_front(demand));
    }

    fn operator_read(&mut self, reading: Reading) {
        match (self.operator.queue.front(), reading) {
            (Some(&Demand::StartMon(mon)), Reading::MonMap(map)) => {
                self.operator.queue.pop_front();
                self.join_mon(mon, map);
            }
            (Some(&Demand::EndMon(n)), Reading::MonMap(map)) => {
                if map.change.is_some_and(|change| change.mon.id == MonId(n.into())) {
                    return self.ask_again();
                }
                self.end_mon(n);
                self.operator.queue.pop_front();
            }
            _ => {}
        }
        self.ask_next();
    }

    pub(super) fn operator_answer(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Read(reading) => return self.operator_read(*reading),
            Outcome::Changed(reply) => {
                self.operator.queue.pop_front();
                match reply {
                    Reply::Osd { osd } => {
                        if let Some(node) = self.osds.get_mut(&osd) {
                            node.known = true;
                        }
                        self.start(Proc::Osd(osd));
                    }
                    Reply::Pool { pool, .. } => {
                        self.pool = Some(pool);
                        for n in 0..self.shape.clients {
                            self.start(Proc::Client(n));
                        }
                    }
                    // It is not waited for: who asks for the next change meanwhile is refused, and asks again.
                    Reply::Mon { mon } => self.operator.queue.push_front(Demand::StartMon(mon)),
                    _ => {}
                }
            }
            Outcome::Failed(CallError::Refused { code: ErrorCode::BUSY, .. })
                if let Some(Demand::Change(Request::Osd(OsdCommand::Destroy { osd, .. }))) =
                    self.operator.queue.front() =>
            {
                // Its last words, that it had started, came after it was marked down.
                let down = Request::Osd(OsdCommand::Down { osds: vec![*osd] });
                self.operator.queue.push_front(Demand::Change(down));
            }
            Outcome::Failed(CallError::Refused { code: ErrorCode::AGAIN, .. })
                if let Some(Demand::Change(Request::Mon(_))) = self.operator.queue.front() =>
            {
                return self.ask_again();
            }
            Outcome::Failed(CallError::Refused { why, .. }) => {
                let refused = self.operator.queue.pop_front();
                if self.pool.is_none() || matches!(refused, Some(Demand::Change(Request::Mon(_)))) {
                    self.fail(Kind::Crash, format!("{refused:?} was refused: {why}"));
                }
            }
            // A change may have happened; these can all be asked for again.
            _ => {}
        }
        self.ask_next();
    }

    pub(super) fn deed(&mut self, deed: &Deed) {
        let thousandths = |share: u32| Weight(Weight::ONE.0 / 1_000 * share);
        let setting = |setting| Request::Pool(PoolCommand::Set { name: POOL.to_owned(), setting });
        let request = match deed {
            Deed::Out(osd) => Request::Osd(OsdCommand::Out { osds: vec![*osd] }),
            Deed::In(osd) => Request::Osd(OsdCommand::In { osds: vec![*osd] }),
            Deed::Down(osd) => Request::Osd(OsdCommand::Down { osds: vec![*osd] }),
            Deed::Reweight(osd, share) => {
                Request::Osd(OsdCommand::Reweight { osd: *osd, weight: thousandths(*share) })
            }
            Deed::MinSize(min_size) => setting(PoolSetting::MinSize(*min_size as u8)),
            Deed::Size(size) => setting(PoolSetting::Size(*size as u8)),
            Deed::Block(n) => {
                let Some(addr) = self.clients.get(n).and_then(|client| client.addr) else { return };
                Request::Cluster(ClusterCommand::Block { addr, for_ms: BLOCK_MS })
            }
            Deed::Replace(osd) => return self.replace_disk(*osd),
            Deed::AddMon(host) => return self.demand_all([Demand::AddMon(*host)]),
            Deed::RemoveMon(which) => return self.demand_all([Demand::RemoveMon(*which)]),
            Deed::Configure(times) => {
                return self.demand_all((0..*times).map(setting_of).map(Demand::Change));
            }
        };
        self.demand(request);
    }

    /// Everything back as it was.
    pub(super) fn mend(&mut self) {
        let osds: Vec<OsdId> = self.osds.keys().copied().collect();
        self.demand(Request::Osd(OsdCommand::In { osds: osds.clone() }));
        for osd in osds {
            self.demand(Request::Osd(OsdCommand::Reweight { osd, weight: Weight::ONE }));
        }
        let (size, min_size) = (self.shape.size, self.shape.min_size);
        let resizes =
            |planned: &Planned| matches!(planned.step, Step::Operator(Deed::Size(_) | Deed::MinSize(_)));
        if !self.plan.iter().any(resizes) {
            return;
        }
        for deed in [Deed::MinSize(1), Deed::Size(size), Deed::MinSize(min_size)] {
            self.deed(&deed);
        }
    }

    /// Whether everything asked for is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.operator.queue.is_empty()
    }
}

/// A change that concerns nobody here, and differs from the one before.
fn setting_of(number: u32) -> Request {
    Request::Config(ConfigCommand::Set {
        section: ConfigSection::Global,
        option: "mon_mgr_beacon_grace_ms".to_owned(),
        value: (10_000 + number).to_string(),
    })
}
