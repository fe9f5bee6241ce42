//! What a link to a node on the same machine carries: `cargo run --release -p rdrivefs-remote
//! --example link_bench [LAYERS]`. Node and client share the process and its cores.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, SecretKey};
use rdrivefs_remote::link::{Credentials, Link};
use rdrivefs_remote::node::{Config, Node};
use rdrivefs_remote::proof;
use rdrivefs_remote::store::{Body, Store};

const LAYER_BYTES: usize = 16 << 20;
const CHALLENGE_BYTES: u64 = 4096;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let layers = std::env::args().nth(1).map_or(Ok(32), |n| n.parse())?;
    let dir = std::env::var_os("LINK_BENCH_DIR");
    let dir = dir.map_or_else(std::env::temp_dir, Into::into);
    let store = tempfile::tempdir_in(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(store.path(), layers))
}

async fn bench(store: &std::path::Path, layers: usize) -> Outcome<()> {
    let env = Env::real();
    let root = SecretKey::generate(&env);
    let allowed = store.join("authorized_keys");
    std::fs::create_dir_all(&allowed)?;
    std::fs::write(allowed.join(root.public().to_string()), "")?;
    let config = Config { listen: "127.0.0.1:0".parse()?, ..Config::new(store) };
    let node = Node::start(config).await?;
    let who = Credentials {
        drive: DriveId::of(&root.public()),
        root: root.public(),
        device: root,
        membership: Vec::new(),
        invite: None,
    };
    let link = Arc::new(Link::dial(&node.url(), who, &env).await?);
    let blobs: Vec<(BlobId, Bytes)> = (0..layers).map(|n| layer(n as u64)).collect();

    let mut cpu = cpu_s();
    let began = env.instant();
    let puts = blobs.iter().map(|(id, bytes)| {
        let (link, id, body) = (link.clone(), *id, Body::bytes(bytes.clone()));
        async move { link.put(id, body).await }
    });
    all(puts, 4).await?;
    cpu = report("put", layers, env.instant().since(began), cpu);

    let began = env.instant();
    let gets = blobs.iter().map(|(id, _)| {
        let (link, id) = (link.clone(), *id);
        async move { link.get(id, 0..LAYER_BYTES as u64).await.map(drop) }
    });
    all(gets, 2).await?;
    cpu = report("get", layers, env.instant().since(began), cpu);

    let count = 40_000;
    let began = env.instant();
    let challenges = (0..count).map(|_| {
        let id = blobs[usize::try_from(env.random_below(layers as u64)).expect("small")].0;
        let start = env.random_below(LAYER_BYTES as u64 / CHALLENGE_BYTES) * CHALLENGE_BYTES;
        let link = link.clone();
        async move {
            let range = start..start + CHALLENGE_BYTES;
            let slice = link.get(id, range.clone()).await?;
            proof::verify(&id, LAYER_BYTES as u64, range, slice).map(drop)
        }
    });
    all(challenges, 512).await?;
    let took = env.instant().since(began).as_secs_f64();
    let each = (cpu_s() - cpu) * 1e6 / f64::from(count);
    println!("challenges  {:.0}/s (verified; {each:.0} µs of CPU each)", f64::from(count) / took);

    let began = env.instant();
    for n in 0..200 {
        let start = env.random_below(4096) * CHALLENGE_BYTES;
        link.get(blobs[n % layers].0, start..start + CHALLENGE_BYTES).await?;
    }
    println!("one at a time  {:.0} µs", env.instant().since(began).as_secs_f64() * 1e6 / 200.0);
    println!("resident  {} MiB (both ends)", resident_mib());
    link.close().await;
    node.shutdown().await;
    Ok(())
}

/// Runs the futures, `width` at a time.
async fn all<F>(futures: impl Iterator<Item = F>, width: usize) -> Outcome<()>
where
    F: Future<Output = rdrivefs_remote::Result<()>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    for future in futures {
        if running.len() == width
            && let Some(done) = running.join_next().await
        {
            done??;
        }
        running.spawn(future);
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

fn layer(seed: u64) -> (BlobId, Bytes) {
    let mut bytes = vec![0; LAYER_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    (BlobId::of(&bytes), bytes.into())
}

fn report(what: &str, layers: usize, took: Duration, cpu: f64) -> f64 {
    let mb = (layers * LAYER_BYTES) as f64 / 1e6;
    let now = cpu_s();
    let per_gb = (now - cpu) / mb * 1000.0;
    println!("{what}  {:.0} MB/s ({per_gb:.1} s of CPU per GB)", mb / took.as_secs_f64());
    now
}

/// What the process used of all cores so far, in seconds; the kernel counts in hundredths.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
