//! The store of an OSD of a cluster's directory: made under another name, and renamed when it is whole.

use anyhow::{Context, bail};
use cairn_conf::{ClientConf, DaemonConf, Layout, Role};
use cairn_osd::daemon::{NewOsd, create};
use cairn_store::CreateOptions;
use cairn_types::{OsdId, OsdMap};
use std::io;
use std::path::{Path, PathBuf};

/// What there is of an OSD, in its directory and by the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A store.
    Store,
    /// No store, and the cluster never had one: to be made.
    Nothing,
    /// No store, and an entry in the map of one that never booted: the making of it was interrupted.
    HalfMade,
    /// No store although the cluster knows one, or had it destroyed: for the operator to decide.
    Gone,
}

/// Looks.
pub fn look(conf: &DaemonConf, osd: OsdId, map: &OsdMap) -> anyhow::Result<Found> {
    let path = path_of(conf)?;
    if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
        return Ok(Found::Store);
    }
    Ok(match map.osds.get(&osd) {
        None => Found::Nothing,
        Some(info) if info.up_from.0 == 0 && !info.is_destroyed() => Found::HalfMade,
        Some(_) => Found::Gone,
    })
}

/// Makes the store of an OSD whose number is free or was destroyed.
pub async fn make(layout: &Layout, conf: &DaemonConf, osd: OsdId) -> anyhow::Result<()> {
    let Role::Osd(own) = &conf.role else { bail!("{} is no OSD", conf.name) };
    let admin = ClientConf::load(&layout.client_conf())?;
    let half = half_made(&own.store);
    match std::fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("cannot remove {}, which was half made", half.display()));
        }
        _ => {}
    }
    let new = NewOsd {
        identity: admin.load_identity()?,
        monitors: admin.monitors,
        store: half.clone(),
        len_bytes: Some(own.store_bytes),
        options: CreateOptions::default(),
        id: Some(osd),
        class: None,
        weight: None,
        location: own.location.clone().into_iter().collect(),
    };
    create(new).await.with_context(|| format!("cannot make {osd}"))?;
    std::fs::rename(&half, &own.store).with_context(|| format!("cannot make {}", own.store.display()))
}

/// Where the store is, or will be.
pub fn path_of(conf: &DaemonConf) -> anyhow::Result<PathBuf> {
    match &conf.role {
        Role::Osd(own) => Ok(own.store.clone()),
        _ => bail!("{} is no OSD", conf.name),
    }
}

fn half_made(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_conf::{ClusterPlan, CreateError, create_cluster};
    use cairn_types::{CrushBlob, Epoch, Fsid, OsdInfo, OsdUuid, Timestamp};
    use std::time::SystemTime;

    #[test]
    fn a_store_is_made_only_where_the_cluster_never_had_one() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("cluster"));
        let plan = ClusterPlan {
            fsid: Fsid([1; 16]),
            now: SystemTime::now(),
            mons: 1,
            osds: 1,
            osd_bytes: 1,
            seed: 5,
        };
        create_cluster(&layout, &plan, |_| Ok::<_, CreateError>(())).unwrap();
        let conf = DaemonConf::load(&layout.daemon_conf(&OsdId(0).into())).unwrap();
        let mut map = OsdMap::new(plan.fsid, Timestamp(0), CrushBlob::new(1, Vec::new()));
        let found = |map: &OsdMap| look(&conf, OsdId(0), map).unwrap();
        assert_eq!(found(&map), Found::Nothing);
        map.osds.insert(OsdId(0), OsdInfo::new(OsdUuid([1; 16])));
        assert_eq!(found(&map), Found::HalfMade);
        map.osds.insert(OsdId(0), OsdInfo { up_from: Epoch(3), ..OsdInfo::new(OsdUuid([1; 16])) });
        assert_eq!(found(&map), Found::Gone);
        map.osds.insert(OsdId(0), OsdInfo { uuid: None, ..OsdInfo::new(OsdUuid([1; 16])) });
        assert_eq!(found(&map), Found::Gone);
        std::fs::write(path_of(&conf).unwrap(), "").unwrap();
        assert_eq!(found(&map), Found::Store);
    }
}
