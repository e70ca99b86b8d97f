//! A directory that comes into being whole or not at all.
//!
//! It is filled under the name `PATH.new` and renamed when all of it is durable. Whoever fills it holds a lock on
//! it, so that one left behind by a crash is told from one under way.

use crate::CreateError;
use crate::document::sync_parent;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is being filled. Dropped, it is removed.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    path: PathBuf,
    _lock: File,
    finished: bool,
}

impl Staging {
    /// Begins to make `target`, which must not exist or be an empty directory.
    pub fn begin(target: &Path) -> Result<Self, CreateError> {
        let target = with_name(target)?;
        check_free(&target)?;
        let path = staged(&target);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(match lock(&path) {
                    Ok(_) => CreateError::HalfMade { path },
                    Err(_) => CreateError::BeingMade { path },
                });
            }
            made => made.map_err(CreateError::io("make", &path))?,
        }
        let lock = lock(&path).map_err(CreateError::io("lock", &path))?;
        Ok(Staging { target, path, _lock: lock, finished: false })
    }

    /// Where to put things for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory its name. Files in it must be durable already.
    pub fn finish(mut self) -> Result<(), CreateError> {
        sync_tree(&self.path).map_err(CreateError::io("make durable", &self.path))?;
        std::fs::rename(&self.path, &self.target).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                CreateError::Exists { path: self.target.clone() }
            }
            _ => CreateError::Io { what: "make", path: self.target.clone(), source },
        })?;
        self.finished = true;
        sync_parent(&self.target).map_err(CreateError::io("make durable", &self.target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is found as half made by the next one.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The same directory under a path that ends in its name.
fn with_name(target: &Path) -> Result<PathBuf, CreateError> {
    if target.file_name().is_some() {
        return Ok(target.to_owned());
    }
    // `.`, `..`, or the root, which has no name at all.
    let full = target.canonicalize().map_err(CreateError::io("find", target))?;
    match full.file_name() {
        Some(_) => Ok(full),
        None => Err(CreateError::NoName { path: target.to_owned() }),
    }
}

fn staged(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn check_free(target: &Path) -> Result<(), CreateError> {
    match std::fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(CreateError::NotEmpty { path: target.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(CreateError::Exists { path: target.to_owned() })
        }
        Err(error) => Err(CreateError::io("look at", target)(error)),
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let dir = File::open(path)?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
    Ok(dir)
}

/// Makes durable which entries each directory has.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("cluster");
        let staging = Staging::begin(&target).unwrap();
        std::fs::write(staging.path().join("file"), "x").unwrap();
        assert!(!target.exists());
        assert!(matches!(Staging::begin(&target), Err(CreateError::BeingMade { .. })));
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let staging = Staging::begin(&target).unwrap();
        std::fs::write(staging.path().join("file"), "x").unwrap();
        staging.finish().unwrap();
        assert!(target.join("file").exists());
        assert!(matches!(Staging::begin(&target), Err(CreateError::NotEmpty { .. })));
    }

    #[test]
    fn what_a_crash_left_is_found_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("cluster");
        // As a killed process leaves it: no lock is held.
        std::fs::create_dir(staged(&target)).unwrap();
        let error = Staging::begin(&target).unwrap_err();
        assert!(matches!(error, CreateError::HalfMade { .. }), "{error}");
        assert!(error.to_string().contains("cluster.new` and try again"), "{error}");
        assert!(staged(&target).exists(), "it is the operator's to remove");
    }

    #[test]
    fn an_empty_directory_is_taken_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (empty, file) = (dir.path().join("empty"), dir.path().join("file"));
        std::fs::create_dir(&empty).unwrap();
        std::fs::write(&file, "").unwrap();
        Staging::begin(&empty).unwrap().finish().unwrap();
        assert!(matches!(Staging::begin(&file), Err(CreateError::Exists { .. })));
        assert!(matches!(Staging::begin(Path::new("/")), Err(CreateError::NoName { .. })));
    }
}
