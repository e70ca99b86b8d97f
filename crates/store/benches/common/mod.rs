//! A new store on a disk and the names of its objects, for all benches of the store.

use std::path::PathBuf;

use cairn_store::device::file::{FileDevice, FileMedium};
use cairn_store::device::sim::SplitMix64;
use cairn_store::{CreateOptions, Engine};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

/// The collection.
pub const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

/// A new store of a length in bytes, in the directory that `CAIRN_BENCH_DIR` names, and what keeps it there.
pub fn made(len_bytes: u64) -> (PathBuf, tempfile::TempDir) {
    let parent = std::env::var_os("CAIRN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("temporary directory");
    let path = dir.path().join("store");
    let medium = FileMedium::create(&path, len_bytes).expect("create");
    Engine::<FileDevice>::create(medium, &CreateOptions::default()).expect("create");
    (path, dir)
}

/// Named like the data of an image.
pub fn object(number: u64) -> ObjectId {
    ObjectId {
        pool: PG.pool,
        hash: SplitMix64::new(number).next_u64() as u32,
        namespace: String::new(),
        key: String::new(),
        name: format!("rbd_data.bench.{number:016x}"),
        snap: SnapId::HEAD,
    }
}
