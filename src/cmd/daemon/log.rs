//! A daemon's log: lines on stderr, which whoever starts it puts into a file.

use std::io;
use tracing_subscriber::EnvFilter;

/// Which lines are written, in the notation of `tracing-subscriber`: `info`, or `info,cairn_osd=debug`.
const LOG_ENV: &str = "CAIRN_LOG";
const DEFAULT: &str = "info";

/// Begins to write it. From here on a panic ends the process: a daemon that has lost one of its tasks would look
/// alive to its peers and serve nobody.
pub fn start() {
    let filter = std::env::var(LOG_ENV).ok().and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
