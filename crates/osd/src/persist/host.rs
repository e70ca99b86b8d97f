//! What belongs to no group: the superblock and the maps, as omap entries of one object. A map is cut into pieces,
//! for the store bounds a value.

use super::{FormError, LoadedGroup, OWN_POOL, PersistError, form, load_group};
use crate::core::Superblock;
use bytes::{BufMut, Bytes, BytesMut};
use cairn_pg::PersistedPg;
use cairn_store::device::Device;
use cairn_store::{Engine, Op, ReadError, Transaction};
use cairn_types::{Epoch, ObjectId, OsdMap, OsdMapIncremental, PgId, SnapId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The collection of what belongs to no group.
pub const HOST: PgId = PgId { pool: OWN_POOL, seed: 0 };

/// Most maps removed by one transaction; what is left goes with the next.
pub const KEEP_MAPS_STEP: usize = 256;

const SUPERBLOCK: &[u8] = b"s";
const FULL: u8 = b'f';
const INCREMENT: u8 = b'd';

/// Bytes of one piece of a map, below the store's bound of a value.
const PIECE_BYTES: usize = 512 << 10;

/// Entries read at once at a start. Pieces of maps are the longest.
const LOAD_STEP: usize = 64;

fn host_object() -> ObjectId {
    ObjectId {
        pool: OWN_POOL,
        hash: 0,
        namespace: String::new(),
        key: String::new(),
        name: "osd".into(),
        snap: SnapId::HEAD,
    }
}

/// Everything that is stored, as a start needs it.
#[derive(Debug)]
pub struct Host {
    /// The superblock.
    pub superblock: Superblock,
    /// The oldest whole map from which all changes up to the newest are there, and these.
    pub maps: Option<(OsdMap, Vec<OsdMapIncremental>)>,
    /// Which maps are stored.
    pub kept: MapsKept,
    /// Every group.
    pub groups: Vec<PersistedPg>,
    /// Collections whose group is gone.
    pub removing: Vec<PgId>,
}

/// Which maps are stored, and in how many pieces each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapsKept {
    pieces: BTreeMap<(u8, Epoch), u16>,
}

fn map_key(kind: u8, epoch: Epoch, piece: u16) -> Bytes {
    let mut key = BytesMut::with_capacity(7);
    key.put_u8(kind);
    key.put_u32(epoch.0);
    key.put_u16(piece);
    key.freeze()
}

fn map_of(key: &[u8]) -> Option<(u8, Epoch, u16)> {
    let &[kind @ (FULL | INCREMENT), e0, e1, e2, e3, p0, p1] = key else { return None };
    Some((kind, Epoch(u32::from_be_bytes([e0, e1, e2, e3])), u16::from_be_bytes([p0, p1])))
}

/// As stored, so that a field more in the core's type is a decision here.
type Stored =
    (cairn_types::Fsid, cairn_types::OsdUuid, cairn_types::OsdId, Option<Epoch>, Option<(Epoch, Epoch)>);

/// Replaces the superblock. The collection must be there: see [`create_host`].
pub fn superblock_op(superblock: &Superblock) -> Op {
    let Superblock { fsid, uuid, whoami, born, clean } = *superblock;
    let stored: Stored = (fsid, uuid, whoami, born, clean);
    Op::OmapSet(HOST, host_object(), vec![(Bytes::from_static(SUPERBLOCK), form::encode(&stored))])
}

/// First transaction of a new store.
pub fn create_host(superblock: &Superblock) -> Transaction {
    let make = [Op::CreateCollection(HOST), Op::Touch(HOST, host_object()), superblock_op(superblock)];
    Transaction { ops: make.into() }
}

/// Keeps maps and forgets those before `remove_before`, of which epoch there must be a whole one.
pub fn maps_transaction(
    kept: &mut MapsKept,
    full: Option<&OsdMap>,
    increments: &[OsdMapIncremental],
    remove_before: Option<Epoch>,
) -> Transaction {
    let mut set = Vec::new();
    let mut gone = Vec::new();
    if let Some(map) = full {
        kept.put(FULL, map.epoch, map, &mut set, &mut gone);
    }
    for change in increments {
        kept.put(INCREMENT, change.epoch, change, &mut set, &mut gone);
    }
    if let Some(first) = remove_before {
        // The change that makes the first map is not needed either: the map is there whole.
        let old = |(kind, epoch): &(u8, Epoch)| *epoch < first || (*epoch == first && *kind == INCREMENT);
        let old: Vec<(u8, Epoch)> = kept.pieces.keys().copied().filter(old).collect();
        // By age, so that a run cut short leaves no hole: a whole map goes after the changes before it.
        let mut old: Vec<(Epoch, u8)> = old.into_iter().map(|(kind, epoch)| (epoch, kind)).collect();
        old.sort_unstable();
        for (epoch, kind) in old.into_iter().take(KEEP_MAPS_STEP) {
            let pieces = kept.pieces.remove(&(kind, epoch)).unwrap_or_default();
            gone.extend((0..pieces).map(|piece| map_key(kind, epoch, piece)));
        }
    }
    let mut ops = Vec::new();
    if !gone.is_empty() {
        ops.push(Op::OmapRemove(HOST, host_object(), gone));
    }
    if !set.is_empty() {
        ops.push(Op::OmapSet(HOST, host_object(), set));
    }
    Transaction { ops }
}

impl MapsKept {
    fn put<T: Serialize>(
        &mut self,
        kind: u8,
        epoch: Epoch,
        map: &T,
        set: &mut Vec<(Bytes, Bytes)>,
        gone: &mut Vec<Bytes>,
    ) {
        let bytes = form::encode(map);
        let pieces = bytes.len().div_ceil(PIECE_BYTES) as u16; // a value has at most 4 MiB
        for piece in 0..pieces {
            let from = usize::from(piece) * PIECE_BYTES;
            let to = bytes.len().min(from + PIECE_BYTES);
            set.push((map_key(kind, epoch, piece), bytes.slice(from..to)));
        }
        let before = self.pieces.insert((kind, epoch), pieces).unwrap_or_default();
        gone.extend((pieces..before).map(|piece| map_key(kind, epoch, piece)));
    }

    fn epochs(&self, kind: u8) -> BTreeSet<Epoch> {
        self.pieces.keys().filter(|(own, _)| *own == kind).map(|(_, epoch)| *epoch).collect()
    }

    /// The whole map to begin with and the newest epoch: from the one to the other no change is missing.
    fn chain(&self) -> Option<(Epoch, Epoch)> {
        let (full, increments) = (self.epochs(FULL), self.epochs(INCREMENT));
        let newest = *full.last().max(increments.last())?;
        let mut first = newest;
        while increments.contains(&first) && first > Epoch(0) {
            first = Epoch(first.0 - 1);
        }
        full.range(first..).next().map(|whole| (*whole, newest))
    }
}

/// Reads everything. On the store's thread, at a start.
///
/// # Errors
/// [`PersistError::NoSuperblock`] when no OSD was created on the store; when something cannot be read.
pub fn load_host<D: Device>(engine: &mut Engine<D>) -> Result<Host, PersistError> {
    let damaged = |what: String, source: FormError| PersistError::Form { what, source };
    let mut superblock = None;
    let mut kept = MapsKept::default();
    let mut after: Option<Bytes> = None;
    // Keys only matter here; the pieces of maps are read again below, those that are needed.
    loop {
        let page = match engine.omap_list(HOST, &host_object(), after.as_deref(), LOAD_STEP) {
            Err(ReadError::NoObject { .. }) => return Err(PersistError::NoSuperblock),
            page => page?,
        };
        for (key, value) in &page {
            match map_of(key) {
                Some((kind, epoch, piece)) => {
                    kept.pieces.insert((kind, epoch), piece + 1);
                }
                None if *key == SUPERBLOCK => {
                    let stored: Stored =
                        form::decode(value).map_err(|source| damaged("the superblock".into(), source))?;
                    let (fsid, uuid, whoami, born, clean) = stored;
                    superblock = Some(Superblock { fsid, uuid, whoami, born, clean });
                }
                None => {}
            }
        }
        after = match page.into_iter().last() {
            Some((key, _)) => Some(key),
            None => break,
        };
    }
    let superblock = superblock.ok_or(PersistError::NoSuperblock)?;
    let maps = match kept.chain() {
        None => None,
        Some((first, newest)) => {
            let map = read_map(engine, &kept, FULL, first)?;
            let epochs = (first.0 + 1..=newest.0).map(Epoch);
            let changes = epochs.map(|epoch| read_map(engine, &kept, INCREMENT, epoch));
            Some((map, changes.collect::<Result<_, _>>()?))
        }
    };
    let (mut groups, mut removing) = (Vec::new(), Vec::new());
    for pgid in engine.collections() {
        if pgid == HOST {
            continue;
        }
        match load_group(engine, pgid)? {
            LoadedGroup::Group(group) => groups.push(group),
            LoadedGroup::Litter => removing.push(pgid),
        }
    }
    Ok(Host { superblock, maps, kept, groups, removing })
}

fn read_map<D: Device, T: serde::de::DeserializeOwned>(
    engine: &mut Engine<D>,
    kept: &MapsKept,
    kind: u8,
    epoch: Epoch,
) -> Result<T, PersistError> {
    let pieces = kept.pieces.get(&(kind, epoch)).copied().unwrap_or_default();
    let keys: Vec<Bytes> = (0..pieces).map(|piece| map_key(kind, epoch, piece)).collect();
    let wanted = keys.len();
    let found = engine.omap_get(HOST, &host_object(), &keys)?;
    if wanted == 0 || found.len() != wanted {
        return Err(PersistError::NoMap { epoch });
    }
    let bytes: Vec<u8> = found.into_iter().flat_map(|(_, piece)| piece).collect();
    form::decode(&bytes).map_err(|source| PersistError::Form { what: format!("the map of {epoch}"), source })
}
