//! A command's way to the objects of a pool.

use super::Context;
use super::session::{conf, monitors};
use cairn_client::{Client, ClientOptions, Pool};
use std::time::Duration;

/// How long a command waits for one operation before it says that the cluster does not serve. A disk waits for ever; a
/// person wants to know.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to the cluster that the command line means.
pub async fn client(context: &Context) -> anyhow::Result<Client> {
    let conf = conf(context)?;
    let options = ClientOptions { identity: conf.load_identity()?, monitors: monitors(&conf) };
    Ok(Client::connect(&options).await?)
}

/// A pool of it, whose operations are given up after a minute.
pub async fn pool(context: &Context, name: &str) -> anyhow::Result<Pool> {
    Ok(client(context).await?.pool(name).await?.with_timeout(OPERATION_TIMEOUT))
}

/// A pool of it, whose operations wait as long as they must.
pub async fn patient_pool(context: &Context, name: &str) -> anyhow::Result<Pool> {
    Ok(client(context).await?.pool(name).await?)
}
