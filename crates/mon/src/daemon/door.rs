//! The door: who may say what. The peer's name is the one in its certificate. The core checks what is asked; here is
//! checked who asks. Pure.
//!
//! | who | may |
//! |---|---|
//! | anyone with a certificate of the cluster | read, subscribe, open a session |
//! | `mon.*` that is in a monitor map known here | send the messages of monitors |
//! | any other `mon.*` | say where the monitors are |
//! | `osd.N` | boot, stop, create, report and ask for groups as OSD N |
//! | `mgr.*` | send beacons and statistics as itself; change what an operator can |
//! | `client.*` | change what an operator can |

use crate::monitor::{Call, DaemonNews};
use crate::service::{OsdCommand, PgCommand, Refusal, Request};
use cairn_types::{EntityKind, EntityName, OsdId};

/// Why somebody is turned away.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Denied {
    /// A request of the leader's own.
    #[error(transparent)]
    OfTheLeader(Refusal),
    /// In somebody else's name.
    #[error("{who} may not speak for {whom}")]
    InOthersName {
        /// Who.
        who: EntityName,
        /// For whom.
        whom: String,
    },
    /// Not for its kind.
    #[error("{who} may not {what}; a client or mgr may")]
    NotItsPart {
        /// Who.
        who: EntityName,
        /// What.
        what: &'static str,
    },
    /// Not a monitor.
    #[error("{who} is no monitor and may not send messages of monitors")]
    NoMonitor {
        /// Who.
        who: EntityName,
    },
    /// Shut out by the operator.
    #[error("{who} may no longer connect: its entry is revoked")]
    Revoked {
        /// Who.
        who: EntityName,
    },
}

/// Whether `who` may make this call.
pub(super) fn call(who: &EntityName, call: &Call) -> Result<(), Denied> {
    let Call::Change { request, .. } = call else { return Ok(()) };
    match request {
        Request::Session => Ok(()),
        Request::Leader(_) => Err(Denied::OfTheLeader(Refusal::NotYours)),
        Request::Osd(OsdCommand::Boot { osd, .. } | OsdCommand::Stopping { osd, .. })
        | Request::Pg(PgCommand::Temp { from: osd, .. } | PgCommand::UpThru { osd, .. }) => as_osd(who, *osd),
        Request::Osd(OsdCommand::Create { id: Some(osd), .. }) if who.kind() == EntityKind::Osd => {
            as_osd(who, *osd)
        }
        Request::Osd(_) => as_operator(who, "change OSDs"),
        Request::Pool(_) => as_operator(who, "change pools"),
        Request::Pg(_) => as_operator(who, "change where groups are"),
        Request::Cluster(_) => as_operator(who, "change flags or the blocklist"),
        Request::Config(_) => as_operator(who, "change settings"),
        Request::Mon(_) => as_operator(who, "change the monitors"),
        Request::Auth(_) => as_operator(who, "change who may connect"),
    }
}

/// Whether `who` may send messages of monitors. What of them counts depends on whether its number is known.
pub(super) fn peer(who: &EntityName) -> Result<(), Denied> {
    match who.kind() {
        EntityKind::Mon => Ok(()),
        _ => Err(Denied::NoMonitor { who: who.clone() }),
    }
}

/// Whether `who` may tell this.
pub(super) fn news(who: &EntityName, news: &DaemonNews) -> Result<(), Denied> {
    match news {
        DaemonNews::Failure(report) => as_osd(who, report.reporter),
        DaemonNews::OsdBeacon { osd, .. } => as_osd(who, *osd),
        DaemonNews::MgrBeacon { name, .. } | DaemonNews::Digest { mgr: name, .. } => {
            if who.kind() == EntityKind::Mgr && who.id() == name {
                return Ok(());
            }
            Err(Denied::InOthersName { who: who.clone(), whom: format!("mgr.{name}") })
        }
    }
}

fn as_osd(who: &EntityName, osd: OsdId) -> Result<(), Denied> {
    if who.osd_id() == Some(osd) {
        return Ok(());
    }
    Err(Denied::InOthersName { who: who.clone(), whom: format!("osd.{}", osd.0) })
}

fn as_operator(who: &EntityName, what: &'static str) -> Result<(), Denied> {
    match who.kind() {
        EntityKind::Client | EntityKind::Mgr => Ok(()),
        EntityKind::Mon | EntityKind::Osd => Err(Denied::NotItsPart { who: who.clone(), what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Evidence, FailureReport, LeaderCommand, PoolCommand};
    use cairn_types::{EntityAddr, Epoch, OsdUuid};

    fn name(text: &str) -> EntityName {
        text.parse().expect("a name")
    }

    fn may(who: &str, request: Request) -> bool {
        call(&name(who), &Call::Change { once: None, request }).is_ok()
    }

    fn addr() -> EntityAddr {
        "127.0.0.1:6800/1".parse().expect("an address")
    }

    fn boot(osd: i32) -> Request {
        let (public, cluster) = (addr(), addr());
        Request::Osd(OsdCommand::Boot {
            osd: OsdId(osd),
            uuid: OsdUuid([1; 16]),
            public,
            cluster,
            clean: None,
        })
    }

    #[test]
    fn an_osd_speaks_for_itself_only() {
        assert!(may("osd.1", boot(1)));
        for other in ["osd.2", "mon.a", "mgr.1", "client.1", "client.admin"] {
            assert!(!may(other, boot(1)), "{other}");
        }
        let up_thru = PgCommand::UpThru { osd: OsdId(1), up_from: Epoch(1), want: Epoch(2) };
        assert!(may("osd.1", Request::Pg(up_thru.clone())) && !may("osd.2", Request::Pg(up_thru)));
        let temp = PgCommand::Temp { from: OsdId(1), sets: Default::default() };
        assert!(may("osd.1", Request::Pg(temp.clone())) && !may("client.admin", Request::Pg(temp)));
        let report = FailureReport {
            reporter: OsdId(1),
            target: OsdId(2),
            up_from: Epoch(1),
            evidence: Evidence::Refused,
        };
        assert!(news(&name("osd.1"), &DaemonNews::Failure(report)).is_ok());
        let error = news(&name("osd.3"), &DaemonNews::Failure(report)).expect_err("not as another");
        assert_eq!(error.to_string(), "osd.3 may not speak for osd.1");
        assert!(
            news(&name("client.1"), &DaemonNews::OsdBeacon { osd: OsdId(1), up_from: Epoch(1) }).is_err()
        );
    }

    #[test]
    fn a_mgr_speaks_for_itself_only() {
        let beacon = DaemonNews::MgrBeacon { name: "a".to_owned(), addr: addr() };
        assert!(news(&name("mgr.a"), &beacon).is_ok());
        for other in ["mgr.b", "client.a", "mon.a"] {
            assert!(news(&name(other), &beacon).is_err(), "{other}");
        }
    }

    #[test]
    fn nobody_asks_what_the_leader_decides() {
        let request = Request::Leader(LeaderCommand::OsdAutoOut { osd: OsdId(1) });
        for who in ["mon.a", "osd.1", "mgr.a", "client.admin"] {
            assert!(!may(who, request.clone()), "{who}");
        }
    }

    #[test]
    fn operators_change_the_cluster_and_daemons_do_not() {
        let request = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
        for (who, allowed) in [("client.admin", true), ("mgr.a", true), ("osd.0", false), ("mon.a", false)] {
            assert_eq!(may(who, request.clone()), allowed, "{who}");
            assert!(may(who, Request::Session), "{who}");
        }
    }
}
