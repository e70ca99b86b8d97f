//! Checking a store that nobody has open, and mending what can be mended without losing anything.
//!
//! The check reads the index and lays the log over it, in memory; the device is not written to, not even by
//! the index library. A repair first brings the index up to the log, as a checkpoint does, then commits one
//! batch of corrections: all or nothing.

mod finding;
mod repair;
#[cfg(test)]
mod tests;
mod walk;

pub use finding::Finding;

use crate::device::BlockingDevice;
use crate::device::overlay::Overlay;
use crate::engine::OpenOptions;
use crate::engine::open::load;
use crate::error::StoreError;
use crate::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use std::fmt;
use std::sync::Arc;
use walk::walk;

/// Findings kept; more are counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsckOptions {
    /// Read all data and compare its checksums.
    pub deep: bool,
    /// Mend what can be mended safely.
    pub repair: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    /// What is wrong, and was not mended.
    pub findings: Vec<Finding>,
    /// What was wrong, and was mended.
    pub repaired: Vec<Finding>,
    /// How many findings were left out, beyond [`FINDINGS_MAX`].
    pub left_out: u64,
    /// A repair was asked for and only the superblock mended: a part of the index cannot be read, so that what
    /// seems to be unused may be used.
    pub is_repair_withheld: bool,
    /// Objects seen.
    pub objects: u64,
    /// Blocks of data they use.
    pub blocks: u64,
    /// Bytes of data read and verified.
    pub verified_bytes: u64,
}

impl FsckReport {
    /// Nothing is wrong, or nothing any more.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.left_out == 0
    }
}

impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.repaired {
            writeln!(f, "repaired: {finding}")?;
        }
        for finding in &self.findings {
            let hint = if finding.is_repairable() { " (can be repaired)" } else { "" };
            writeln!(f, "{finding}{hint}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "{} more findings", self.left_out)?;
        }
        if self.is_repair_withheld {
            writeln!(f, "not repaired: a part of the index cannot be read, so unused space is not known")?;
        }
        write!(
            f,
            "{} objects, {} blocks in use, {} bytes of data verified: {}",
            self.objects,
            self.blocks,
            self.verified_bytes,
            if self.is_clean() { "clean" } else { "NOT clean" }
        )
    }
}

/// Findings up to the bound.
#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
    left_out: u64,
    /// One of them, kept or not, hides what the store refers to.
    hides_references: bool,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        self.hides_references |= finding.hides_references();
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    /// An entry that does not decode is a finding; any other error ends the check.
    fn entry(&mut self, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::Damaged(damage) => {
                self.add(Finding::Entry(damage));
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// Checks the store on a device that nobody has open. `progress` is told how much is done of how much: blocks
/// of data when deep, else objects.
///
/// # Errors
/// When the store is so damaged that it cannot be opened, or the device fails; when a repair is asked for
/// and the store has features that a writer must know.
pub fn check(
    device: &Arc<dyn BlockingDevice>,
    options: &FsckOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FsckReport, StoreError> {
    let superblock = Superblock::read(&**device)?;
    if options.repair {
        superblock.check_writable()?;
    }
    let mut report = FsckReport::default();
    let bad_copies = check_superblocks(&**device, &superblock);
    let mut findings = Findings::default();
    bad_copies.iter().for_each(|&offset| findings.add(Finding::Superblock { offset }));
    {
        let unchanged = reading_only(device);
        let (mut state, _, _) = load(&unchanged, &superblock, &OpenOptions::default())?;
        let walk = walk(&mut state, &superblock, &**device, options.deep, &mut findings, progress);
        (report.objects, report.blocks, report.verified_bytes) = (walk.objects, walk.blocks, walk.deep_bytes);
    }
    report.left_out = findings.left_out;
    if !options.repair || !findings.list.iter().any(Finding::is_repairable) && findings.left_out == 0 {
        report.findings = findings.list;
        return Ok(report);
    }
    repair::superblocks(&**device, &superblock, &bad_copies)?;
    report.is_repair_withheld = findings.hides_references;
    if !findings.hides_references {
        repair::index(device, &superblock)?;
    }
    // What is left is what another look finds, and the damage of data that it does not look for.
    let mut after = Findings::default();
    for offset in check_superblocks(&**device, &superblock) {
        after.add(Finding::Superblock { offset });
    }
    {
        let unchanged = reading_only(device);
        let (mut state, _, _) = load(&unchanged, &superblock, &OpenOptions::default())?;
        walk(&mut state, &superblock, &**device, false, &mut after, &mut |_, _| {});
    }
    let is_left = |finding: &Finding| {
        !finding.is_repairable() || after.list.iter().any(|other| other.to_string() == finding.to_string())
    };
    let (left, repaired) = findings.list.into_iter().partition(is_left);
    report.repaired = repaired;
    report.findings = after.list;
    report.findings.extend(left.into_iter().filter(|finding: &Finding| matches!(finding, Finding::Data(_))));
    report.left_out = after.left_out;
    Ok(report)
}

/// The device, with whatever is written kept in memory.
pub(crate) fn reading_only(device: &Arc<dyn BlockingDevice>) -> Arc<dyn BlockingDevice> {
    Arc::new(Overlay::new(Arc::clone(device)))
}

/// Places of copies that are not what the good one says.
fn check_superblocks(device: &dyn BlockingDevice, superblock: &Superblock) -> Vec<u64> {
    let good = superblock.encode();
    let mut bad = Vec::new();
    for place in superblock.places() {
        let mut block = vec![0; SUPERBLOCK_BYTES as usize];
        // A copy that cannot be read is as bad as one that is wrong, and writing it may mend that too.
        if device.read_at(place, &mut block).is_err() || block != good {
            bad.push(place);
        }
    }
    bad
}
