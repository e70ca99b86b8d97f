//! `cairn nbd`: images as network block devices.

mod device;

use super::Context;
use super::Format;
use super::daemon::stopping;
use super::image::ImageName;
use super::pool_client::patient_pool;
use super::session::{block_on, conf};
use super::{print, print_json};
use anyhow::bail;
use cairn_client::image::{Image, LockPolicy, OpenMode};
use cairn_gateway::nbd::{Export, Listener, Server};
use cairn_net::Expect;
use cairn_types::EntityKind;
use device::ImageDevice;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long giving up the image's lock may take when the server stops: the cluster may be down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Subcommands of `cairn nbd`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Serve an image until it is stopped
    Serve(Serve),
}

/// Serve an image until it is stopped
///
/// QEMU, nbd-client, qemu-img and libnbd attach to it. The image is locked while it is served.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["socket", "listen"])))]
pub struct Serve {
    /// Pool and name of the image, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// Unix socket to make
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// TCP address to listen on; clients must use TLS and show a client's certificate of this cluster
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Refuse every change, and leave the lock alone
    #[arg(long)]
    read_only: bool,
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => block_on(serve(context, &args))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(context: &Context, args: &Serve) -> anyhow::Result<()> {
    let stop = stopping::asked_to()?;
    let name = &args.name;
    let pool = patient_pool(context, &name.pool).await?;
    let mode = match args.read_only {
        true => OpenMode::ReadOnly,
        false => OpenMode::ReadWrite(LockPolicy::Keep),
    };
    let image = Image::open(&pool, &name.image, mode).await?;
    if !args.read_only {
        // Now, and not at the first write of the guest: whoever starts it is told if another one has it.
        image.acquire_lock().await?;
    }
    serve_image(context, args, &image, stop).await?;
    match tokio::time::timeout(CLOSE_TIMEOUT, image.close()).await {
        Ok(closed) => Ok(closed?),
        // Whoever stops it wants it gone. The lock ends with the watch that this process keeps up no longer.
        Err(_) => bail!(
            "the cluster does not answer, so the lock of {name} was not given up: it ends by itself 30 s after the \
             cluster serves again"
        ),
    }
}

async fn serve_image(
    context: &Context,
    args: &Serve,
    image: &Image<cairn_client::Pool>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let name = &args.name;
    let (listener, uri) = match (&args.socket, args.listen) {
        (Some(path), _) => {
            let full = std::path::absolute(path)?;
            (Listener::unix(path)?, format!("nbd+unix:///?socket={}", full.display()))
        }
        (None, Some(addr)) => {
            let identity = conf(context)?.load_identity()?;
            let listener = Listener::tcp(addr, identity, Expect::Kind(EntityKind::Client))?;
            let addr = listener.local_addr().unwrap_or(addr);
            (listener, format!("nbds://{addr}"))
        }
        (None, None) => bail!("say where to serve it: --socket PATH or --listen IP:PORT"),
    };
    let server = Server::new(vec![Export {
        name: name.image.clone(),
        description: format!("cairn image {name}"),
        device: Arc::new(ImageDevice::new(image.clone())),
    }])?;
    match context.format {
        Format::Text => print(&format!("Serving {name} at {uri}\n"))?,
        Format::Json => {
            print_json(&json!({"pool": name.pool, "name": name.image, "uri": uri, "size": image.size()}))?
        }
    }
    server.run(listener, stop).await;
    Ok(())
}
