//! What the index does on a damaged device. Shared with `crates/store/tests/fuzz_smoke.rs`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use cairn_store::device::checked::CheckedRegion;
use cairn_store::device::sim::{Cut, Image, SimDevice, SimHandle, SimOptions, SplitMix64};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Not zero, so that positions in the region and on the device differ.
const START: u64 = 8192;
const LEN: u64 = 2 << 20;
/// Where the database of the seed lies; damage beyond has nothing to hurt.
const USED: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

type Content = BTreeMap<u64, Vec<u8>>;

/// A database after some commits, the image one commit before, and what the last one holds.
struct Seed {
    image: Image,
    older: Image,
    content: Content,
}

/// Damages a healthy index as the input says, six bytes a time, and reads all of it: an error, or the
/// right answer, which after a lost write of block 0 is that of the commit before.
pub fn damage(input: &[u8]) {
    static SEED: OnceLock<Seed> = OnceLock::new();
    let seed = SEED.get_or_init(seed);
    let handle = device(seed.image.clone());
    for step in input.chunks_exact(6).take(64) {
        let [kind, a, b, c, d, value] = *step else { return };
        // The head and the table are few blocks of many; half of the damage is for them.
        let within = if kind & 0x80 == 0 { 3 * BLOCK } else { USED };
        let offset = START + u64::from(u32::from_le_bytes([a, b, c, d])) % within;
        let block = offset - offset % BLOCK;
        match kind & 0x7f {
            0 => handle.scribble(block, &[value; BLOCK as usize]),
            1 => copy(&seed.older, block, &handle, block),
            2 => copy(&seed.image, START + u64::from(value) * BLOCK % USED, &handle, block),
            3 => copy(&seed.older, block, &handle, START + u64::from(value) * BLOCK % USED),
            4 => handle.scribble(offset, &u32::MAX.to_le_bytes()),
            _ => handle.rot(offset, value.into()),
        }
    }
    // A byte left over cuts the device short.
    let handle = if input.len() % 6 == 1 { device(handle.image().resized(START + LEN / 2)) } else { handle };
    if let Ok(found) = open(&handle).and_then(|database| content(&database)) {
        assert!(found == seed.content || older_state(seed) == found, "another answer than what was stored");
    }
}

/// A medium that lost the flushed write of block 0 gives the commit before, whole. It cannot be told
/// from a power cut just before that write.
fn older_state(seed: &Seed) -> Content {
    open(&device(seed.older.clone())).and_then(|database| content(&database)).expect("a healthy index")
}

fn copy(from: &Image, offset: u64, to: &SimHandle, target: u64) {
    let mut block = [0; BLOCK as usize];
    from.read(offset, &mut block);
    to.scribble(target, &block);
}

fn device(image: Image) -> SimHandle {
    SimDevice::from_image(image, SimOptions::default()).handle()
}

fn open(handle: &SimHandle) -> Result<Database, redb::Error> {
    let region = CheckedRegion::open(handle.blocking(), START, LEN)?;
    Ok(Database::builder().set_cache_size(1 << 20).create_with_backend(region)?)
}

fn content(database: &Database) -> Result<Content, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(TABLE)?;
    let entries = table.iter()?.map(|entry| entry.map(|(key, value)| (key.value(), value.value().to_vec())));
    Ok(entries.collect::<Result<_, _>>()?)
}

fn seed() -> Seed {
    let handle = device(Image::zeroed(START + LEN));
    CheckedRegion::create(handle.blocking(), START, LEN).expect("create");
    let database = open(&handle).expect("open");
    let mut rng = SplitMix64::new(1);
    let mut older = handle.image();
    for _ in 0..12 {
        older = handle.power_cut(&Cut::LoseAll);
        let mut transaction = database.begin_write().expect("begin");
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(TABLE).expect("table");
            for _ in 0..20 {
                let value = vec![rng.next_u64() as u8; rng.below(900) as usize];
                table.insert(rng.below(200), value.as_slice()).expect("insert");
            }
        }
        transaction.commit().expect("commit");
    }
    let content = content(&database).expect("read");
    Seed { image: handle.power_cut(&Cut::LoseAll), older, content }
}
