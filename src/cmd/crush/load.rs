//! Maps from and to files.

use anyhow::{Context, bail};
use cairn_crush::{CrushMap, binary, text};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

/// Reads a map, binary or text, whichever the file holds.
pub fn load_map(path: &Path) -> anyhow::Result<CrushMap> {
    let bytes = read(path)?;
    match bytes.starts_with(&binary::MAGIC.to_le_bytes()) {
        true => {
            binary::decode(&bytes).with_context(|| format!("cannot read the binary map {}", path.display()))
        }
        false => compile(path, bytes),
    }
}

/// Reads a text map.
pub fn load_text(path: &Path) -> anyhow::Result<CrushMap> {
    let bytes = read(path)?;
    if bytes.starts_with(&binary::MAGIC.to_le_bytes()) {
        bail!("{} is a binary map already: decompile it to get its text", path.display());
    }
    compile(path, bytes)
}

/// Reads a binary map.
pub fn load_binary(path: &Path) -> anyhow::Result<CrushMap> {
    binary::decode(&read(path)?).with_context(|| format!("cannot read the binary map {}", path.display()))
}

fn compile(path: &Path, bytes: Vec<u8>) -> anyhow::Result<CrushMap> {
    let Ok(source) = String::from_utf8(bytes) else {
        bail!("{} is neither a binary CRUSH map nor text in UTF-8", path.display());
    };
    // Printed as FILE:LINE:COLUMN: reason, which editors jump to.
    text::compile(&source).map_err(|error| anyhow::anyhow!("{}:{error}", path.display()))
}

/// The whole file, unless it is larger than any map taken in.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let most = binary::MAX_MAP_BYTES.max(text::MAX_TEXT_BYTES) as u64;
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    // One byte more, so that a larger file is told from one of exactly this size.
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > most {
        bail!("{} has more than {most} bytes: not a CRUSH map", path.display());
    }
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    // A device or a pipe is written in place.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes).with_context(context);
    }
    let Some(name) = path.file_name() else { bail!("{} is no file name", path.display()) };
    let mut partial = name.to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = path.with_file_name(partial);
    let written = fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // Nothing more can be done about a leftover here; the first error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(context)
}
