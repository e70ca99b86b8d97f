//! Maps for tests.

use cairn_crush::build::{ReplicaMode, SimpleRule};
use cairn_crush::placement::object_hash;
use cairn_crush::{Algorithm, CrushMap, Tunables, binary};
use cairn_types::{
    CrushBlob, EntityAddr, Epoch, Fsid, ObjectId, OsdId, OsdInfo, OsdMap, OsdUuid, Pool, PoolFlags, PoolId,
    SnapId, Timestamp, Weight,
};
use std::net::SocketAddr;

pub(crate) const POOL: PoolId = PoolId(1);
pub(crate) const CLIENT: u64 = 77;

pub(crate) fn client_addr() -> EntityAddr {
    EntityAddr { socket: SocketAddr::from(([127, 0, 0, 1], 0)), nonce: CLIENT }
}

pub(crate) fn object(name: &str) -> ObjectId {
    ObjectId {
        pool: POOL,
        hash: object_hash("", "", name),
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

/// One pool named `vms` over OSDs that are up at these addresses.
pub(crate) fn map(addrs: &[EntityAddr], pg_num: u32, size: u8) -> OsdMap {
    let mut crush = CrushMap::new(Tunables::default());
    let root = crush.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    for osd in 0..addrs.len() as i32 {
        crush.add_device(osd, &format!("osd.{osd}"), Weight::ONE, None, root).unwrap();
    }
    crush
        .add_simple_rule(&SimpleRule {
            name: "replicated",
            root: "default",
            failure_domain: "osd",
            class: None,
            mode: ReplicaMode::Firstn,
            is_erasure: false,
        })
        .unwrap();
    let blob = CrushBlob::new(1, binary::encode(&crush).unwrap());
    let mut map = OsdMap::new(Fsid([7; 16]), Timestamp(0), blob);
    for (osd, &addr) in addrs.iter().enumerate() {
        let mut info = OsdInfo::new(OsdUuid([osd as u8 + 1; 16]));
        info.up = true;
        info.up_from = Epoch(1);
        info.public = Some(addr);
        info.cluster = Some(addr);
        map.osds.insert(OsdId(osd as i32), info);
    }
    map.pool_max = POOL;
    map.pools.insert(
        POOL,
        Pool {
            name: "vms".to_owned(),
            size,
            min_size: 1,
            pg_num,
            pgp_num: pg_num,
            crush_rule: 0,
            flags: PoolFlags::default(),
            application: String::new(),
            snap_seq: SnapId(0),
            quota_bytes: 0,
            quota_objects: 0,
            autoscale: false,
            created: Timestamp(0),
            last_change: Epoch(1),
        },
    );
    map.check().unwrap();
    map
}
