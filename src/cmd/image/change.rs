//! `cairn image create`, `resize` and `rm`.

use super::ImageName;
use crate::cmd::pool_client::pool;
use crate::cmd::progress::bar;
use crate::cmd::session::block_on;
use crate::cmd::{Context, print_line, text};
use cairn_client::image::{self, CreateOptions, Image, LockPolicy, ORDER_DEFAULT, OpenMode};
use cairn_mon::service::render::bytes;
use serde_json::json;

/// Make an image
///
/// Nothing of it is stored until it is written.
#[derive(clap::Args)]
pub struct Create {
    /// Its pool and name, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// Its size, such as 10GiB
    #[arg(long, value_parser = text::parse_size)]
    size: u64,
    /// Size of its objects, a power of two
    #[arg(long, value_name = "SIZE", value_parser = parse_order, default_value = "4MiB")]
    object_size: u8,
}

/// Make an image larger or smaller
#[derive(clap::Args)]
pub struct Resize {
    /// Its pool and name, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// Its new size, such as 20GiB
    #[arg(long, value_parser = text::parse_size)]
    size: u64,
    /// It may be made smaller: what lies beyond is lost
    #[arg(long)]
    allow_shrink: bool,
}

/// Remove an image that nobody uses
#[derive(clap::Args)]
pub struct Rm {
    /// Its pool and name, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
}

/// The exponent of a size that is a power of two.
pub fn parse_order(text: &str) -> Result<u8, String> {
    let size = text::parse_size(text)?;
    match size.is_power_of_two() {
        true => Ok(size.ilog2() as u8),
        false => Err(format!("'{text}' is no power of two: write one, such as 4MiB")),
    }
}

/// The order of an image that is made without saying one.
pub const DEFAULT_ORDER: u8 = ORDER_DEFAULT;

pub fn create(context: &Context, args: &Create) -> anyhow::Result<()> {
    let name = &args.name;
    let options = CreateOptions { size: args.size, order: args.object_size };
    block_on(async { Ok(image::create(&pool(context, &name.pool).await?, &name.image, options).await?) })?;
    let line = format!("Image {name} is made, with {}.", bytes(args.size));
    print_line(context.format, &line, &json!({"pool": name.pool, "name": name.image, "size": args.size}))
}

pub fn resize(context: &Context, args: &Resize) -> anyhow::Result<()> {
    let name = &args.name;
    block_on(async {
        let pool = pool(context, &name.pool).await?;
        let image = Image::open(&pool, &name.image, OpenMode::ReadWrite(LockPolicy::HandOver)).await?;
        let current = image.size();
        if args.size < current && !args.allow_shrink {
            image.close().await?;
            anyhow::bail!(
                "image {name} has {}: making it smaller loses what lies beyond; say --allow-shrink if that is meant",
                bytes(current),
            );
        }
        let resized = image.resize(args.size, args.allow_shrink).await;
        image.close().await?;
        Ok(resized?)
    })?;
    let line = format!("Image {name} has {}.", bytes(args.size));
    print_line(context.format, &line, &json!({"pool": name.pool, "name": name.image, "size": args.size}))
}

pub fn rm(context: &Context, args: &Rm) -> anyhow::Result<()> {
    let name = &args.name;
    let progress = bar("removing", "objects");
    let removed = block_on(async {
        let pool = pool(context, &name.pool).await?;
        Ok(image::remove(&pool, &name.image, |done, all| {
            progress.set_length(all);
            progress.set_position(done);
        })
        .await?)
    });
    progress.finish_and_clear();
    removed?;
    print_line(
        context.format,
        &format!("Image {name} is removed."),
        &json!({"pool": name.pool, "removed": name.image}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_objects_are_powers_of_two() {
        assert_eq!(parse_order("4MiB"), Ok(22));
        assert_eq!(parse_order("4096"), Ok(12));
        for bad in ["0", "3MiB", "many"] {
            assert!(parse_order(bad).is_err(), "{bad}");
        }
    }
}
