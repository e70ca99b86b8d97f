//! `cairn object`: plain objects.

use super::output::columns;
use super::pool_client::pool;
use super::session::block_on;
use super::{Context, Format, print, print_json, print_line, table};
use anyhow::Context as _;
use cairn_client::objects;
use cairn_mon::service::render::bytes;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Subcommands of `cairn object`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Store a file, or the standard input, as an object; in place of one that is there
    Put(Move),
    /// Write an object into a file, or to the standard output
    Get(Move),
    /// Tell size and time of an object
    Stat(Named),
    /// List the objects of a pool
    Ls(Ls),
    /// Remove an object
    Rm(Named),
}

/// An object.
#[derive(clap::Args)]
pub struct Named {
    /// Name of the pool
    pool: String,
    /// Name of the object
    name: String,
}

/// An object and a file.
#[derive(clap::Args)]
pub struct Move {
    #[command(flatten)]
    object: Named,
    /// The file; - is the standard input or output
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// A pool.
#[derive(clap::Args)]
pub struct Ls {
    /// Name of the pool
    pool: String,
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Put(args) => put(context, &args)?,
        Command::Get(args) => get(context, &args)?,
        Command::Stat(args) => stat(context, &args)?,
        Command::Ls(args) => ls(context, &args)?,
        Command::Rm(args) => rm(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

fn put(context: &Context, args: &Move) -> anyhow::Result<()> {
    let (Named { pool: pool_name, name }, file) = (&args.object, &args.file);
    let mut data = Vec::new();
    // One byte more than an object holds is enough to see that it does not fit.
    let most = cairn_wire::op::OBJECT_LEN_MAX + 1;
    match is_standard(file) {
        true => {
            io::stdin().lock().take(most).read_to_end(&mut data).context("cannot read the standard input")?
        }
        false => {
            let opened = File::open(file).and_then(|file| file.take(most).read_to_end(&mut data));
            opened.with_context(|| format!("cannot read {}", file.display()))?
        }
    };
    let len = data.len();
    block_on(async { Ok(objects::put(&pool(context, pool_name).await?, name, data.into()).await?) })?;
    let line = format!("Object '{name}' has {}.", bytes(len as u64));
    print_line(context.format, &line, &json!({"pool": pool_name, "name": name, "size": len}))
}

fn get(context: &Context, args: &Move) -> anyhow::Result<()> {
    let (Named { pool: pool_name, name }, file) = (&args.object, &args.file);
    let pieces = block_on(async { Ok(objects::get(&pool(context, pool_name).await?, name).await?) })?;
    let write = |out: &mut dyn Write| {
        pieces.iter().try_for_each(|piece| out.write_all(piece))?;
        out.flush()
    };
    if is_standard(file) {
        return Ok(write(&mut io::stdout().lock())?);
    }
    let written = File::create(file).and_then(|mut file| write(&mut file));
    written.with_context(|| format!("cannot write {}", file.display()))?;
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    let line = format!("{} has {} of object '{name}'.", file.display(), bytes(len as u64));
    print_line(context.format, &line, &json!({"pool": pool_name, "name": name, "size": len}))
}

fn stat(context: &Context, args: &Named) -> anyhow::Result<()> {
    let stat = block_on(async { Ok(objects::stat(&pool(context, &args.pool).await?, &args.name).await?) })?;
    match context.format {
        Format::Json => print_json(&json!({
            "pool": args.pool,
            "name": args.name,
            "size": stat.size,
            "mtime_ms": stat.mtime,
            "version": stat.user_version,
        })),
        Format::Text => print(&table(&[
            ("object", format!("{}/{}", args.pool, args.name)),
            ("size", format!("{} ({} bytes)", bytes(stat.size), stat.size)),
            ("changed", stat.mtime.to_string()),
            ("version", stat.user_version.to_string()),
        ])),
    }
}

fn ls(context: &Context, args: &Ls) -> anyhow::Result<()> {
    let mut names = Vec::new();
    block_on(async {
        let pool = pool(context, &args.pool).await?;
        Ok(objects::ls(&pool, |object| {
            names.push((object.namespace, object.name));
            true
        })
        .await?)
    })?;
    names.sort();
    if context.format == Format::Json {
        let list: Vec<_> =
            names.iter().map(|(namespace, name)| json!({"namespace": namespace, "name": name})).collect();
        return print_json(&list);
    }
    match names.iter().any(|(namespace, _)| !namespace.is_empty()) {
        true => print(&columns(
            ["NAME", "NAMESPACE"],
            names.into_iter().map(|(namespace, name)| [name, namespace]),
        )),
        false => print(&names.iter().map(|(_, name)| format!("{name}\n")).collect::<String>()),
    }
}

fn rm(context: &Context, args: &Named) -> anyhow::Result<()> {
    block_on(async { Ok(objects::rm(&pool(context, &args.pool).await?, &args.name).await?) })?;
    let line = format!("Object '{}' is removed.", args.name);
    print_line(context.format, &line, &json!({"pool": args.pool, "removed": args.name}))
}
