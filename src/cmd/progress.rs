//! Progress bars: on stderr, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of work whose length is told later. `unit` is `bytes` or what is counted.
pub fn bar(what: &'static str, unit: &str) -> ProgressBar {
    let amounts = match unit {
        "bytes" => "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}".to_owned(),
        unit => format!("{{pos}} of {{len}} {unit}"),
    };
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {amounts}, {{eta}} left"));
    let bar = ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
