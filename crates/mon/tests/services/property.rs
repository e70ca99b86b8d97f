//! For random command sequences: the published increments, applied one by one, give the leader's map; two
//! monitors that apply the same transactions are equal; what is stored is read back.

use crate::support::{Cluster, START, addr, host, uuid};
use cairn_mon::monitor::{decode_state, encode_state};
use cairn_mon::service::subscription::{Need, next_maps};
use cairn_mon::service::{
    ClusterCommand, Draft, LeaderCommand, MonCommand, OsdCommand, PgCommand, PoolCommand, PoolSetting,
    Request,
};
use cairn_types::{
    Epoch, MonChange, MonId, MonInfo, MonStep, OsdFlag, OsdId, PgId, PoolFlag, PoolId, Timestamp, Weight,
};
use proptest::prelude::*;

fn osd() -> impl Strategy<Value = OsdId> {
    (0..6i32).prop_map(OsdId)
}

fn pg() -> impl Strategy<Value = PgId> {
    (1..4i64, 0..10u32).prop_map(|(pool, seed)| PgId { pool: PoolId(pool), seed })
}

fn set_of_osds() -> impl Strategy<Value = Vec<OsdId>> {
    proptest::sample::subsequence((0..6).map(OsdId).collect::<Vec<_>>(), 0..4).prop_shuffle()
}

fn pool_name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned)
}

fn weight() -> impl Strategy<Value = Weight> {
    (0..=0x1_0000u32).prop_map(Weight)
}

fn of_osds() -> impl Strategy<Value = Request> {
    let create = (0..6i32, 0..3u8, proptest::option::of(osd())).prop_map(|(n, at, id)| OsdCommand::Create {
        uuid: uuid(n),
        id,
        class: Some(["hdd", "ssd"][usize::from(at % 2)].to_owned()),
        weight: Weight::ONE,
        location: host(&format!("n{at}")),
    });
    let boot = (0..6i32, 1..9u64, 0..20u32).prop_map(|(n, nonce, end)| OsdCommand::Boot {
        osd: OsdId(n),
        uuid: uuid(n),
        public: addr(6800 + n as u16, nonce),
        cluster: addr(6900 + n as u16, nonce),
        clean: (end > 5).then_some((Epoch(end / 2), Epoch(end))),
    });
    prop_oneof![
        4 => create,
        8 => boot,
        2 => osd().prop_map(|osd| OsdCommand::Out { osds: vec![osd] }),
        2 => osd().prop_map(|osd| OsdCommand::In { osds: vec![osd] }),
        3 => osd().prop_map(|osd| OsdCommand::Down { osds: vec![osd] }),
        1 => osd().prop_map(|osd| OsdCommand::Destroy { osd, confirmed: true }),
        1 => osd().prop_map(|osd| OsdCommand::Purge { osd, confirmed: true }),
        1 => osd().prop_map(|osd| OsdCommand::Lost { osd, confirmed: true }),
        2 => (osd(), weight()).prop_map(|(osd, weight)| OsdCommand::Reweight { osd, weight }),
        1 => (osd(), weight()).prop_map(|(osd, affinity)| OsdCommand::PrimaryAffinity { osd, affinity }),
        1 => (osd(), 0..3u8).prop_map(|(osd, at)| OsdCommand::CrushPlace {
            osd, weight: None, class: None, location: host(&format!("n{at}")),
        }),
    ]
    .prop_map(Request::Osd)
}

fn of_pools() -> impl Strategy<Value = Request> {
    let create = (pool_name(), 1..4u8, 1..10u32).prop_map(|(name, size, pg_num)| PoolCommand::Create {
        name,
        size: Some(size),
        min_size: None,
        pg_num: Some(pg_num),
        rule: None,
        application: String::new(),
    });
    let setting = prop_oneof![
        (1..4u8).prop_map(PoolSetting::Size),
        (1..4u8).prop_map(PoolSetting::MinSize),
        any::<bool>().prop_map(|on| PoolSetting::Flag(PoolFlag::NoDelete, on)),
        pool_name().prop_map(PoolSetting::Name),
        any::<u64>().prop_map(PoolSetting::QuotaBytes),
    ];
    prop_oneof![
        3 => create,
        3 => (pool_name(), setting).prop_map(|(name, setting)| PoolCommand::Set { name, setting }),
        1 => pool_name().prop_map(|name| PoolCommand::Remove { confirm: name.clone(), name }),
        2 => pool_name().prop_map(|name| PoolCommand::NextSnap { name }),
    ]
    .prop_map(Request::Pool)
}

fn others() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => (osd(), pg(), set_of_osds())
            .prop_map(|(from, pg, set)| Request::Pg(PgCommand::Temp { from, sets: [(pg, set)].into() })),
        4 => (osd(), 0..20u32, 0..20u32).prop_map(|(osd, up_from, want)| {
            Request::Pg(PgCommand::UpThru { osd, up_from: Epoch(up_from), want: Epoch(want) })
        }),
        1 => (pg(), proptest::option::of(set_of_osds()))
            .prop_map(|(pg, set)| Request::Pg(PgCommand::Upmap { pg, set })),
        1 => (pg(), proptest::option::of((osd(), osd()))).prop_map(|(pg, item)| {
            Request::Pg(PgCommand::UpmapItems { pg, items: item.map(|item| vec![item]) })
        }),
        2 => (0..3u16, 1..5_000u64).prop_map(|(port, for_ms)| {
            Request::Cluster(ClusterCommand::Block { addr: addr(7000 + port, 1), for_ms })
        }),
        1 => (0..3u16, 0..20u64).prop_map(|(port, since)| {
            Request::Leader(LeaderCommand::ExpireBlocklist { entries: vec![(addr(7000 + port, 1), since)] })
        }),
        1 => (proptest::sample::select(OsdFlag::ALL), any::<bool>())
            .prop_map(|(flag, on)| Request::Cluster(ClusterCommand::Flag { flag, on })),
        2 => osd().prop_map(|osd| Request::Leader(LeaderCommand::OsdAutoOut { osd })),
        2 => (osd(), 0..20u32).prop_map(|(osd, up_from)| {
            Request::Leader(LeaderCommand::OsdFailed { osd, up_from: Epoch(up_from) })
        }),
        1 => (0..30u32).prop_map(|first| Request::Leader(LeaderCommand::TrimOsdMaps { first: Epoch(first) })),
        1 => (0..3u16).prop_map(|n| Request::Mon(MonCommand::Add {
            name: format!("m{n}"), addrs: vec![addr(3400 + n, 0)],
        })),
        1 => (0..3u16).prop_map(|n| Request::Mon(MonCommand::Remove { name: format!("m{n}") })),
        1 => (0..3u16, 3..6u32, any::<bool>()).prop_map(|(n, id, joins)| {
            let step = if joins { MonStep::Joins } else { MonStep::Leaves };
            let mon = MonInfo { id: MonId(id), addrs: vec![addr(3400 + n, 0)] };
            let change = MonChange { step, name: format!("m{n}"), mon };
            Request::Leader(LeaderCommand::MonChanged { change })
        }),
        1 => Just(Request::Session),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![3 => of_osds(), 2 => of_pools(), 3 => others()]
}

/// Batches of requests, each with the time that passes before it.
fn any_run() -> impl Strategy<Value = Vec<(u64, Vec<Request>)>> {
    proptest::collection::vec((0..3_000u64, proptest::collection::vec(any_request(), 1..6)), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn published_increments_make_the_leaders_map(run in any_run()) {
        let mut leader = Cluster::new();
        let mut other = leader.state.clone();
        // One who takes every increment as it comes, one who comes by now and then.
        let mut follower = leader.state.osd_map().clone();
        let mut visitor = follower.clone();
        let mut now = START;
        for (step, (pause, requests)) in run.iter().enumerate() {
            now = Timestamp(now.0 + pause);
            let mut draft = Draft::new(&leader.state, now);
            for request in requests {
                let _ = draft.run(request);
            }
            let Some(transaction) = draft.finish() else { continue };
            prop_assert!(leader.state.apply(&transaction).is_ok());
            prop_assert!(leader.state.apply(&transaction).is_err(), "it applies once");
            prop_assert_eq!(other.apply(&transaction), Ok(()));
            if let Some(change) = &transaction.osd_map {
                follower = follower.apply(change).expect("a published change applies");
            }
            prop_assert_eq!(&follower, leader.state.osd_map());
            prop_assert_eq!(leader.state.osd_map().check(), Ok(()));
            if step % 7 == 0 {
                let batch = next_maps(leader.state.osd_maps(), visitor.epoch, Need::EveryEpoch);
                let mut map = batch.full.unwrap_or(visitor);
                for change in &batch.increments {
                    map = map.apply(change).expect("without a gap");
                }
                visitor = map;
                prop_assert_eq!(&visitor, leader.state.osd_map());
            }
        }
        prop_assert_eq!(leader.state.hash(), other.hash());
        let stored = encode_state(&leader.state);
        prop_assert_eq!(decode_state(&stored).expect("what is written is read"), leader.state);
    }
}
