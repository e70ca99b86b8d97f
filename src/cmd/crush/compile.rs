//! `cairn crush compile`.

use super::load;
use cairn_crush::binary;
use std::path::PathBuf;

/// Compiles a text map in crushtool's language. The file it writes is byte for byte the one `crushtool -c`
/// writes, and can be given to `ceph osd setcrushmap -i`. Whatever is wrong with the text is told with its line,
/// column and reason, and nothing is written.
#[derive(clap::Args)]
pub struct Args {
    /// The text map
    #[arg(value_name = "MAP.txt")]
    map: PathBuf,
    /// Where to write the binary map
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let map = load::load_text(&args.map)?;
    load::write(&args.output, &binary::encode(&map)?)
}
