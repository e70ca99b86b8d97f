//! TOML files: read with errors that name line and column, written whole or not at all.

use crate::ConfError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The version of the format that this code reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Largest file that is read: a real one has a few hundred bytes.
const LEN_MAX_BYTES: u64 = 1 << 20;
/// Mode of files that hold a private key.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of all others.
pub(crate) const PUBLIC: u32 = 0o644;

/// A document that says which version of the format it is in.
pub(crate) trait Document: DeserializeOwned + Serialize {
    /// The version.
    fn version(&self) -> u32;
}

/// The text of a file that is not larger than any of ours.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfError> {
    let read = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        if metadata.len() > LEN_MAX_BYTES {
            return Err(io::Error::other(format!("it has more than {LEN_MAX_BYTES} bytes")));
        }
        io::read_to_string(file)
    };
    read().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfError::Missing { path: path.to_owned() },
        _ => ConfError::Read { path: path.to_owned(), source },
    })
}

/// Reads and checks a document's form.
pub(crate) fn read<D: Document>(path: &Path) -> Result<D, ConfError> {
    let text = read_text(path)?;
    let document = parse::<D>(&text).map_err(|(offset, message)| {
        // A newer version may hold what this one cannot read: that is the better thing to say.
        if let Some(found) = version_of(&text).filter(|found| *found > VERSION) {
            return ConfError::Version { path: path.to_owned(), found, known: VERSION };
        }
        let (line, column) = position(&text, offset);
        ConfError::Parse { path: path.to_owned(), line, column, message }
    })?;
    match document.version() {
        VERSION => Ok(document),
        found => Err(ConfError::Version { path: path.to_owned(), found, known: VERSION }),
    }
}

fn parse<D: Document>(text: &str) -> Result<D, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        // One sentence on one line.
        (offset, error.message().trim().replace('\n', "; "))
    })
}

fn version_of(text: &str) -> Option<u32> {
    let table: toml::Table = text.parse().ok()?;
    table.get("version")?.as_integer()?.try_into().ok()
}

/// Line and column, from 1, of a byte of a text.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (line, column)
}

/// Writes a document under a first line that says what it is, in place of what is there.
pub(crate) fn write<D: Document>(path: &Path, about: &str, document: &D) -> io::Result<()> {
    let text = toml::to_string(document).map_err(io::Error::other)?;
    replace(path, format!("# {about}\n{text}").as_bytes(), PUBLIC)
}

/// Makes a file, durable, that is not there yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a file in the place of another, so that a reader sees the one or the other.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let next = Path::new(&next);
    match std::fs::remove_file(next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(next, bytes, mode)?;
    std::fs::rename(next, path)?;
    sync_parent(path)
}

/// Makes durable that a path has the name it has.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\nbä = x\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.find('x').unwrap()), (2, 6));
        assert_eq!(position(text, 1000), (3, 1));
    }
}
