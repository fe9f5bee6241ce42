//! `serve`: runs a node until it is told to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::node::cli::explain::Failure;
use crate::node::cli::store_arg::StoreArg;
use crate::node::cli::units::{Size, Span};
use crate::node::config::{Config, RETAIN_MS};
use crate::node::running::Node;

/// What `serve` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArg,
    /// UDP address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7480")]
    listen: SocketAddr,
    /// The name or address clients reach this node by, for its URL
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// TCP address for /healthz and /metrics
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Bytes each drive may use unless its authorisation says otherwise, such as 200G
    #[arg(long, value_name = "SIZE")]
    quota: Option<Size>,
    /// Hold each blob for so long against deletion, and delete it then if a device asks; with 30d
    /// (the default) and more nothing is deleted
    #[arg(long, value_name = "DURATION")]
    retain: Option<Span>,
}

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("starting"))?;
    runtime.block_on(serve(args, json))
}

async fn serve(args: &Args, json: bool) -> Result<(), Failure> {
    let signals = Error::io("waiting for signals");
    let (mut term, mut int) = signal(SignalKind::terminate())
        .and_then(|term| Ok((term, signal(SignalKind::interrupt())?)))
        .map_err(signals)?;
    let store: PathBuf = args.store.dir()?;
    let node = Node::start(Config {
        listen: args.listen,
        advertise: args.advertise.clone(),
        http: args.http,
        quota: args.quota.map(|size| size.0),
        retain_ms: args.retain.map_or(RETAIN_MS, |span| span.0),
        ..Config::new(&store)
    })
    .await?;
    announce(&node, args, json);
    // Outside systemd there is nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    node.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

fn announce(node: &Node, args: &Args, json: bool) {
    let url = node.url();
    if json {
        let ready = serde_json::json!({
            "url": url.to_string(),
            "key": node.key().to_string(),
            "listen": node.addr().to_string(),
            "http": node.http_addr().map(|addr| addr.to_string()),
        });
        println!("{ready}");
    } else {
        println!("{url}");
    }
    tracing::info!(store = %args.store.dir().unwrap_or_default().display(), listen = %node.addr(), "ready");
    let everywhere = match node.addr().ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    if everywhere && args.advertise.is_none() {
        eprintln!(
            "This URL works on this machine. From others put its name or address in the place of \
             127.0.0.1, or start with --advertise HOST."
        );
    }
}
