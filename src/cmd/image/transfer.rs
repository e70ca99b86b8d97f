//! `cairn image import` and `export`.

use super::ImageName;
use super::change::DEFAULT_ORDER;
use crate::cmd::pool_client::pool;
use crate::cmd::progress::bar;
use crate::cmd::session::block_on;
use crate::cmd::{Context, print_line, text};
use anyhow::{Context as _, bail};
use cairn_client::Pool;
use cairn_client::image::{self, CreateOptions, Image, LockPolicy, OpenMode};
use cairn_mon::service::render::bytes;
use serde_json::json;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncSeekExt;

/// Make an image of a raw file, or of the standard input
///
/// Zeros are not stored. Files of other formats go in by `qemu-img convert` to `cairn nbd serve`.
#[derive(clap::Args)]
pub struct Import {
    /// The file; - is the standard input
    file: PathBuf,
    /// Pool and name of the image, which must not be there yet, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// Size of the image [default: that of the file, rounded up to 512 bytes]
    #[arg(long, value_parser = text::parse_size)]
    size: Option<u64>,
}

/// Write an image into a raw file, with holes, or to the standard output
#[derive(clap::Args)]
pub struct Export {
    /// Pool and name of the image, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// The file, which must not be there yet; - is the standard output
    file: PathBuf,
}

/// Disks are made of these.
const SECTOR_BYTES: u64 = 512;

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

pub fn import(context: &Context, args: &Import) -> anyhow::Result<()> {
    let name = &args.name;
    let size = block_on(async {
        let source = match is_standard(&args.file) {
            true => None,
            false => Some(open(&args.file).await?),
        };
        let size = match (args.size, &source) {
            (Some(size), Some((_, len))) if *len > size => bail!(
                "{} has {len} bytes and --size is {size}: leave --size out to have an image of its size",
                args.file.display()
            ),
            (Some(size), _) => size,
            (None, Some((_, len))) => len.next_multiple_of(SECTOR_BYTES).max(SECTOR_BYTES),
            (None, None) => {
                bail!("the size of the standard input is not known: say --size, such as --size 10GiB")
            }
        };
        let pool = pool(context, &name.pool).await?;
        image::create(&pool, &name.image, CreateOptions { size, order: DEFAULT_ORDER }).await?;
        let filled = fill(&pool, name, source.map(|(file, _)| file), size).await;
        if filled.is_err() {
            // Half an image is no image.
            if let Err(error) = image::remove(&pool, &name.image, |_, _| {}).await {
                eprintln!("cairn: what was imported so far is left in {name}: {error}");
            }
        }
        filled.map(|()| size)
    })?;
    let line = format!("Image {name} is made of {}, with {}.", args.file.display(), bytes(size));
    print_line(context.format, &line, &json!({"pool": name.pool, "name": name.image, "size": size}))
}

async fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let open = async {
        let mut file = File::open(path).await?;
        // Block devices tell their size only so.
        let len = file.seek(SeekFrom::End(0)).await?;
        file.rewind().await?;
        Ok::<_, std::io::Error>((file, len))
    };
    open.await.with_context(|| format!("cannot read {}", path.display()))
}

async fn fill(pool: &Pool, name: &ImageName, source: Option<File>, size: u64) -> anyhow::Result<()> {
    let progress = bar("importing", "bytes");
    progress.set_length(size);
    let told = |done: u64| progress.set_position(done);
    let image = Image::open(pool, &name.image, OpenMode::ReadWrite(LockPolicy::Keep)).await?;
    let filled = match source {
        Some(mut file) => image::import(&image, &mut file, &told).await,
        None => image::import(&image, &mut tokio::io::stdin(), &told).await,
    };
    let closed = image.close().await;
    progress.finish_and_clear();
    filled?;
    Ok(closed?)
}

pub fn export(context: &Context, args: &Export) -> anyhow::Result<()> {
    let name = &args.name;
    let size = block_on(async {
        let pool = pool(context, &name.pool).await?;
        let image = Image::open(&pool, &name.image, OpenMode::ReadOnly).await?;
        let progress = bar("exporting", "bytes");
        progress.set_length(image.size());
        let told = |done: u64| progress.set_position(done);
        if is_standard(&args.file) {
            image::export(&image, &mut tokio::io::stdout(), &told).await?;
        } else {
            let created = File::options().write(true).create_new(true).open(&args.file).await;
            let mut file = created.with_context(|| format!("cannot make {}", args.file.display()))?;
            let exported = async {
                file.set_len(image.size())
                    .await
                    .with_context(|| format!("cannot write {}", args.file.display()))?;
                image::export(&image, &mut file, &told).await?;
                file.sync_all().await.with_context(|| format!("cannot write {}", args.file.display()))
            };
            let exported = exported.await;
            if exported.is_err() {
                // Half a copy is no copy.
                let _ = tokio::fs::remove_file(&args.file).await;
            }
            exported?;
        }
        progress.finish_and_clear();
        Ok(image.size())
    })?;
    if is_standard(&args.file) {
        return Ok(());
    }
    let line = format!("{} has {} of image {name}.", args.file.display(), bytes(size));
    print_line(context.format, &line, &json!({"pool": name.pool, "name": name.image, "size": size}))
}
