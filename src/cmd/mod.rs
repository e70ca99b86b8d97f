//! One module per command of the first level.

pub mod crush;
pub mod store;

use std::io::{self, Write};

/// Prints to stdout, whole.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Whoever read the output has seen enough: that is no error.
fn ignore_broken_pipe(error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast_ref::<io::Error>() {
        Some(found) if found.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}
