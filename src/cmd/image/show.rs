//! `cairn image ls` and `info`.

use super::ImageName;
use crate::cmd::output::columns;
use crate::cmd::pool_client::pool;
use crate::cmd::session::block_on;
use crate::cmd::{Context, Format, print, print_json, table};
use cairn_client::image::{self, FEATURE_EXCLUSIVE_LOCK, FEATURE_LAYERING, ImageInfo};
use cairn_mon::service::render::bytes;
use serde_json::{Value, json};

/// List the images of a pool
#[derive(clap::Args)]
pub struct Ls {
    /// Name of the pool
    pool: String,
}

/// Tell all about an image
#[derive(clap::Args)]
pub struct Info {
    /// Its pool and name, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
}

pub fn ls(context: &Context, args: &Ls) -> anyhow::Result<()> {
    let images = block_on(async {
        let pool = pool(context, &args.pool).await?;
        let mut images = Vec::new();
        for name in image::list(&pool).await? {
            images.push(image::info(&pool, &name).await?);
        }
        Ok(images)
    })?;
    match context.format {
        Format::Json => {
            print_json(&images.iter().map(|image| document(&args.pool, image)).collect::<Vec<_>>())
        }
        Format::Text => print(&columns(
            ["NAME", ">SIZE", ">OBJECTS", "ID"],
            images
                .into_iter()
                .map(|image| [image.name.clone(), bytes(image.size), objects(&image).to_string(), image.id]),
        )),
    }
}

pub fn info(context: &Context, args: &Info) -> anyhow::Result<()> {
    let name = &args.name;
    let image = block_on(async { Ok(image::info(&pool(context, &name.pool).await?, &name.image).await?) })?;
    match context.format {
        Format::Json => print_json(&document(&name.pool, &image)),
        Format::Text => print(&table(&[
            ("image", name.to_string()),
            ("size", format!("{} ({} bytes)", bytes(image.size), image.size)),
            ("objects", format!("{} of {}", objects(&image), bytes(1 << image.order))),
            ("id", image.id.clone()),
            ("object names", format!("{}.*", image.object_prefix)),
            ("format", "RBD 2".to_owned()),
            ("features", features(image.features).join(", ")),
        ])),
    }
}

fn objects(image: &ImageInfo) -> u64 {
    image.size.div_ceil(1 << image.order)
}

fn features(mut bits: u64) -> Vec<String> {
    let mut names = Vec::new();
    for (bit, name) in [(FEATURE_LAYERING, "layering"), (FEATURE_EXCLUSIVE_LOCK, "exclusive-lock")] {
        if bits & bit != 0 {
            names.push(name.to_owned());
            bits &= !bit;
        }
    }
    if bits != 0 {
        names.push(format!("{bits:#x}"));
    }
    names
}

fn document(pool: &str, image: &ImageInfo) -> Value {
    json!({
        "pool": pool,
        "name": image.name,
        "id": image.id,
        "size": image.size,
        "object_size": 1_u64 << image.order,
        "objects": objects(image),
        "object_prefix": image.object_prefix,
        "features": features(image.features),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named_and_unknown_ones_shown() {
        assert_eq!(features(FEATURE_LAYERING | FEATURE_EXCLUSIVE_LOCK), ["layering", "exclusive-lock"]);
        assert_eq!(features(1 << 40), ["0x10000000000"]);
    }
}
