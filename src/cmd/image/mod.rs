//! `cairn image`: disk images.

mod change;
mod show;
mod transfer;

use super::Context;
use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

/// Subcommands of `cairn image`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make an image; nothing of it is stored until it is written
    Create(change::Create),
    /// List the images of a pool
    Ls(show::Ls),
    /// Tell all about an image
    Info(show::Info),
    /// Make an image larger, or smaller with --allow-shrink
    Resize(change::Resize),
    /// Remove an image that nobody uses
    Rm(change::Rm),
    /// Make an image of a raw file, or of the standard input; zeros are not stored
    Import(transfer::Import),
    /// Write an image into a raw file, with holes, or to the standard output
    Export(transfer::Export),
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => change::create(context, &args)?,
        Command::Ls(args) => show::ls(context, &args)?,
        Command::Info(args) => show::info(context, &args)?,
        Command::Resize(args) => change::resize(context, &args)?,
        Command::Rm(args) => change::rm(context, &args)?,
        Command::Import(args) => transfer::import(context, &args)?,
        Command::Export(args) => transfer::export(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// An image by its pool and name, `vms/disk1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageName {
    /// Name of the pool.
    pub pool: String,
    /// Name of the image.
    pub image: String,
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((pool, image)) if !pool.is_empty() && !image.is_empty() && !image.contains('/') => {
                Ok(ImageName { pool: pool.to_owned(), image: image.to_owned() })
            }
            _ => Err(format!("'{text}' names no image: write POOL/NAME, such as vms/disk1")),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_its_pool() {
        let name: ImageName = "vms/disk1".parse().unwrap();
        assert_eq!((name.pool.as_str(), name.image.as_str()), ("vms", "disk1"));
        assert_eq!(name.to_string(), "vms/disk1");
        for bad in ["", "disk1", "/disk1", "vms/", "vms/a/b"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
    }
}
