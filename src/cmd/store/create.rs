//! `cairn store create`.

use super::{Format, about, print, print_json, table, text};
use anyhow::{Context, bail};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{Access, FileDevice, FileMedium, OpenError};
use cairn_store::format::superblock::Superblock;
use cairn_store::limits::BLOCK_BYTES;
use cairn_store::{CreateOptions, Engine, StoreError};
use cairn_types::Fsid;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes at the start of a device that are looked at for what it holds already: partition tables and the
/// superblocks of the usual file systems lie there.
const PROBE_BYTES: u64 = 1 << 20;

/// Make an empty store on a file or block device
///
/// A file that does not exist is made with --size, all holes: it takes room on the disk as it is filled, and
/// 1/16 of it (256 MiB at most) at once for the log. A block device, or a file that has a length already, is
/// used as it is. What holds a store or any other data already is refused.
#[derive(clap::Args)]
pub struct Args {
    /// File or block device
    device: PathBuf,
    /// Size of the file to make, such as 10GiB, 512MiB or bytes
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    size: Option<u64>,
    /// Number of the OSD, from 0 [default: not known yet]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    osd: Option<i32>,
    /// UUID of the cluster [default: not known yet]
    #[arg(long, value_name = "UUID", value_parser = text::parse_fsid)]
    fsid: Option<Fsid>,
    /// Size of the log ring, rounded up to a power of two, 128KiB to 4GiB [default: 1/16 of the device,
    /// 256MiB at most]
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    log_size: Option<u64>,
    /// Size of the metadata index [default: 1/32 of the device, 4MiB at least]
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    index_size: Option<u64>,
    /// Lose whatever the device holds; a file is brought to --size
    #[arg(long)]
    force: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Makes a store.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = CreateOptions {
        cluster: args.fsid.map_or([0; 16], |fsid| fsid.0),
        osd: args.osd.unwrap_or(-1),
        store: random_uuid()?,
        log_bytes: args.log_size,
        index_bytes: args.index_size,
        force: args.force,
    };
    let superblock = make(&args.device, args.size, &options)?;
    let store = Fsid(superblock.store).to_string();
    let data_bytes = superblock.data_blocks * BLOCK_BYTES;
    match args.format {
        Format::Json => print_json(&serde_json::json!({
            "device": args.device.display().to_string(),
            "store": store,
            "osd": args.osd,
            "fsid": args.fsid.map(|fsid| fsid.to_string()),
            "device_bytes": superblock.device_bytes,
            "log_bytes": superblock.log_bytes,
            "index_bytes": superblock.index_bytes,
            "data_bytes": data_bytes,
        })),
        Format::Text => print(&table(&[
            ("device", args.device.display().to_string()),
            ("store", store),
            ("osd", text::osd(superblock.osd)),
            ("cluster", text::cluster(args.fsid)),
            ("size", text::size(superblock.device_bytes)),
            ("log", text::size(superblock.log_bytes)),
            ("index", text::size(superblock.index_bytes)),
            ("data", text::size(data_bytes)),
        ])),
    }
}

/// Makes a store, on a new file of `size` bytes or on what is there. A new file does not outlive a failure.
pub fn make(path: &Path, size: Option<u64>, options: &CreateOptions) -> anyhow::Result<Superblock> {
    let exists = path.try_exists().with_context(|| format!("cannot look at {}", path.display()))?;
    let medium = match size {
        _ if exists => existing(path, size, options.force)?,
        Some(size) => new_file(path, size)?,
        None => bail!("{} does not exist: say --size to make a file, such as --size 10GiB", path.display()),
    };
    Engine::<FileDevice>::create(medium, options).map_err(|error| {
        if !exists {
            // Nothing but the attempt is in it.
            let _ = std::fs::remove_file(path);
        }
        about(path)(error)
    })
}

fn new_file(path: &Path, size: u64) -> anyhow::Result<Arc<FileMedium>> {
    FileMedium::create(path, size).map_err(|error| {
        // Another's, if it came into being just now.
        let is_others = matches!(&error, OpenError::System { source, .. } if source.kind() == io::ErrorKind::AlreadyExists);
        if !is_others {
            let _ = std::fs::remove_file(path);
        }
        error.into()
    })
}

fn existing(path: &Path, size: Option<u64>, force: bool) -> anyhow::Result<Arc<FileMedium>> {
    let medium = FileMedium::open(path, Access::ReadWrite)?;
    if !force {
        refuse_content(&medium, path)?;
    }
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let len_bytes = medium.geometry().len_bytes;
    match size {
        None if metadata.is_file() && metadata.len() == 0 => {
            bail!("{} is empty: say --size to make it as large as the store is to be", path.display())
        }
        None => Ok(medium),
        Some(size) if size == len_bytes => Ok(medium),
        Some(size) if metadata.is_file() && (force || metadata.len() == 0) => {
            // The length is read when it is opened. What comes between holds what is lost anyway.
            drop(medium);
            let file = File::options().write(true).open(path);
            file.and_then(|file| file.set_len(0).and_then(|()| file.set_len(size)))
                .with_context(|| format!("cannot bring {} to {size} bytes", path.display()))?;
            Ok(FileMedium::open(path, Access::ReadWrite)?)
        }
        Some(size) => bail!(
            "{} has {len_bytes} bytes already, not {size}: leave --size out to use it as it is",
            path.display()
        ),
    }
}

/// Whatever is not empty belongs to somebody.
fn refuse_content(medium: &FileMedium, path: &Path) -> anyhow::Result<()> {
    match Superblock::read(medium) {
        Err(StoreError::NotAStore) => {}
        Ok(found) => bail!(
            "{} holds a store already (store {}, OSD {}): look at it with `cairn store info`, or say --force to lose all it holds",
            path.display(),
            Fsid(found.store),
            text::osd(found.osd),
        ),
        // Part of a store, or one of another version: what to do is the store's to say.
        Err(_) => return Ok(()),
    }
    let mut start = vec![0; PROBE_BYTES.min(medium.geometry().len_bytes) as usize];
    medium.read_at(0, &mut start).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(at) = start.iter().position(|byte| *byte != 0) {
        bail!(
            "{} is not empty (byte {at} is not zero) and is no cairn store: see what it is, or say --force to lose it",
            path.display()
        );
    }
    Ok(())
}

/// A random (version 4) UUID.
pub fn random_uuid() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read random bytes from /dev/urandom")?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}
