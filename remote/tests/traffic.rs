//! What goes over a link, and what happens when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Drive, blob, body, config, deleting, eventually, start, world};
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::link::NodeUrl;
use rdrivefs_remote::logs::Logs;
use rdrivefs_remote::node::{Config, Limits, Node};
use rdrivefs_remote::store::{Body, Store};
use rdrivefs_remote::{Error, proof};

#[tokio::test(flavor = "multi_thread")]
async fn many_small_gets_at_a_time_each_get_their_own() {
    let (_dir, _node, _drive, link) = world().await;
    let link = Arc::new(link);
    let (id, bytes) = blob(1, 1 << 20);
    link.put(id, body(&bytes)).await.unwrap();
    let mut gets = tokio::task::JoinSet::new();
    for n in 0..1000u64 {
        let link = link.clone();
        let start = n * 4096 % (1 << 20);
        gets.spawn(async move {
            if n % 10 == 9 {
                let error = link.get(BlobId([9; 32]), 0..4096).await.unwrap_err();
                assert!(error.is_missing());
                return None;
            }
            Some((start, link.get(id, start..start + 4096).await.unwrap()))
        });
    }
    for (start, slice) in gets.join_all().await.into_iter().flatten() {
        let verified = proof::verify(&id, 1 << 20, start..start + 4096, slice).unwrap();
        assert_eq!(verified.bytes, bytes[start as usize..start as usize + 4096]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_ends_midway_leaves_nothing() {
    let (dir, _node, drive, link) = world().await;
    let (id, bytes) = blob(1, 3 << 20);
    // The source fails after 2 MiB: the stream ends before the bytes it announced.
    let cut = std::io::Cursor::new(bytes.slice(..2 << 20));
    let error = link.put(id, Body::stream(bytes.len() as u64, Box::new(cut))).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    // The caller goes away while it sends.
    let slow = tokio::io::join(tokio::io::empty(), tokio::io::sink());
    let slow = Body::stream(bytes.len() as u64, Box::new(Stalled(bytes.slice(..1 << 20), slow)));
    let gone = tokio::time::timeout(Duration::from_millis(300), link.put(id, slow)).await;
    assert!(gone.is_err());
    eventually(Duration::from_secs(5), async || {
        let space = dir.path().join("spaces").join(drive.id().to_string()).join("blobs");
        files(&space).is_empty()
    })
    .await;
    assert_eq!(link.has(&[id]).await.unwrap(), [None]);
    assert!(link.list(None, 10).await.unwrap().is_empty());
    assert_eq!(link.space().await.unwrap().blobs, 0);
    // Wrong bytes are refused, and the right ones are welcome afterwards.
    let (other, _) = blob(2, 10);
    let error = link.put(other, body(&bytes)).await.unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    link.put(id, body(&bytes)).await.unwrap();
    assert_eq!(link.has(&[id, other]).await.unwrap(), [Some(3 << 20), None]);
}

/// Gives its bytes and then nothing, for ever.
struct Stalled<T>(Bytes, T);

impl<T: Unpin> tokio::io::AsyncRead for Stalled<T> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return std::task::Poll::Pending;
        }
        let room = buf.remaining().min(self.0.len());
        let some = self.0.split_to(room);
        buf.put_slice(&some);
        std::task::Poll::Ready(Ok(()))
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let (dirs, mut found): (Vec<_>, Vec<_>) =
        entries.map(|entry| entry.unwrap().path()).partition(|path| path.is_dir());
    dirs.iter().for_each(|dir| found.extend(files(dir)));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn s46_parallel_puts_never_pass_the_quota() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    let len = 100_000u64;
    let each = len + proof::Outboard::encoded_len(len);
    let quota = each * 10 + each / 2;
    drive.allow(dir.path(), &format!("quota = {quota}\n"));
    let node = start(dir.path()).await;
    let link = Arc::new(drive.link(&node.url(), &drive.root).await.unwrap());
    let mut puts = tokio::task::JoinSet::new();
    for seed in 0..100 {
        let link = link.clone();
        puts.spawn(async move {
            let (id, bytes) = blob(seed, len as usize);
            match link.put(id, body(&bytes)).await {
                Ok(()) => true,
                Err(Error::Quota { used, quota: allowed }) => {
                    assert!(allowed == quota && used + each > quota && used <= quota);
                    false
                }
                Err(error) => panic!("{error}"),
            }
        });
    }
    let mut stored = 0;
    while !puts.is_empty() {
        tokio::select! {
            done = puts.join_next() => stored += u64::from(done.unwrap().unwrap()),
            space = link.space() => assert!(space.unwrap().used <= quota, "over, if only for a moment"),
        }
    }
    let space = link.space().await.unwrap();
    assert!((1..=10).contains(&stored) && space.blobs == stored && space.used == stored * each);
    // Reservations of those refused are gone: what fits still fits, and a byte more does not.
    for seed in 200..210 - stored {
        let (id, bytes) = blob(seed, len as usize);
        link.put(id, body(&bytes)).await.unwrap();
    }
    while link.space().await.unwrap().used + each <= quota {
        let (id, bytes) = blob(300 + link.space().await.unwrap().blobs, len as usize);
        link.put(id, body(&bytes)).await.unwrap();
    }
    let left = quota - link.space().await.unwrap().used;
    let fits = (0..left).rev().find(|n| n + proof::Outboard::encoded_len(*n) <= left).unwrap();
    let (id, bytes) = blob(400, fits as usize + 1);
    assert!(matches!(link.put(id, body(&bytes)).await, Err(Error::Quota { .. })));
    let (id, bytes) = blob(401, fits as usize);
    link.put(id, body(&bytes)).await.unwrap();
    assert!(link.space().await.unwrap().used <= quota);
}

#[tokio::test(flavor = "multi_thread")]
async fn s46_puts_that_never_end_give_their_reservation_back() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "quota = 3000000\n");
    let node = Node::start(deleting(dir.path())).await.unwrap();
    let link = Arc::new(drive.link(&node.url(), &drive.root).await.unwrap());
    let (id, bytes) = blob(1, 2_000_000);
    let stalled = Body::stream(2_000_000, Box::new(Stalled(bytes.slice(..500_000), ())));
    let never = tokio::spawn({
        let link = link.clone();
        async move { link.put(id, stalled).await }
    });
    let (other, more) = blob(2, 2_000_000);
    eventually(Duration::from_secs(5), async || {
        matches!(link.put(other, body(&more)).await, Err(Error::Quota { .. }))
            || link.delete(other).await.is_err()
    })
    .await;
    never.abort();
    eventually(Duration::from_secs(5), async || link.put(other, body(&more)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_a_device_that_stalls_its_puts_stalls_nobody_else() {
    let (_dir, node, mut drive, link) = world().await;
    let link = Arc::new(link);
    let mut stalled = tokio::task::JoinSet::new();
    for seed in 0..40 {
        let (id, bytes) = blob(seed, 1 << 20);
        let body = Body::stream(1 << 20, Box::new(Stalled(bytes.slice(..1000), ())));
        let link = link.clone();
        stalled.spawn(async move { link.put(id, body).await });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let device = drive.add_device();
    let other = drive.link(&node.url(), &device).await.unwrap();
    let (id, bytes) = blob(100, 1 << 20);
    let put = tokio::time::timeout(Duration::from_secs(5), other.put(id, body(&bytes))).await;
    put.expect("in time").unwrap();
    stalled.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn s40_a_drive_that_stalls_the_puts_of_many_devices_stalls_no_other() {
    let (dir, node, mut drive, link) = world().await;
    let second = drive.add_device();
    let second = drive.link(&node.url(), &second).await.unwrap();
    let third = drive.add_device();
    let third = drive.link(&node.url(), &third).await.unwrap();
    let mut stalled = tokio::task::JoinSet::new();
    for link in [link, second, third].map(Arc::new) {
        for seed in 0..20 {
            let (id, bytes) = blob(seed + 100 * stalled.len() as u64, 1 << 20);
            let body = Body::stream(1 << 20, Box::new(Stalled(bytes.slice(..1000), ())));
            let link = link.clone();
            stalled.spawn(async move { link.put(id, body).await });
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = Drive::new();
    other.allow(dir.path(), "");
    eventually(Duration::from_secs(5), async || other.link(&node.url(), &other.root).await.is_ok())
        .await;
    let other = other.link(&node.url(), &other.root).await.unwrap();
    let (id, bytes) = blob(1, 1 << 20);
    let put = tokio::time::timeout(Duration::from_secs(5), other.put(id, body(&bytes))).await;
    put.expect("in time").unwrap();
    stalled.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_met_while_a_slice_is_sent_is_told_as_rot() {
    let (dir, _node, drive, link) = world().await;
    let (id, bytes) = blob(1, 8 << 20);
    let blobs = dir.path().join("spaces").join(drive.id().to_string()).join("blobs");
    let name = id.to_string();
    let path = blobs.join(&name[..2]).join(&name[2..4]).join(&name);
    let tree = path.with_file_name(format!("{name}.obao4"));
    for (damage, at) in [(&path, 5 << 20), (&path, 0), (&tree, 0)] {
        link.put(id, body(&bytes)).await.unwrap();
        link.get(id, 0..8 << 20).await.unwrap();
        let file = std::fs::File::options().write(true).open(damage).unwrap();
        if damage == &path {
            file.set_len(at).unwrap();
        } else {
            // Another length, of a blob that would have fewer parts.
            std::os::unix::fs::FileExt::write_all_at(&file, &(3u64 << 20).to_le_bytes(), at)
                .unwrap();
        }
        let error = link.get(id, 0..8 << 20).await.unwrap_err();
        assert!(error.is_corrupt(), "{} cut at {at}: {error}", damage.display());
        std::fs::remove_file(&tree).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_hides_no_other() {
    let (_dir, node, drive, _link) = world().await;
    let port = node.addr().port();
    let found: Vec<_> = tokio::net::lookup_host(("localhost", port)).await.unwrap().collect();
    if found.first().is_none_or(|first| first.is_ipv4()) {
        eprintln!("skipped: localhost is not first of all an address without a node");
        return;
    }
    let url = NodeUrl { host: "localhost".to_owned(), ..node.url() };
    drive.link(&url, &drive.root).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_watch_ends_the_one_before() {
    let (_dir, _node, _drive, link) = world().await;
    let link = Arc::new(link);
    let seen = link.heads().await.unwrap();
    let watch = || {
        let (link, seen) = (link.clone(), seen.clone());
        tokio::spawn(async move { link.watch(seen, 30_000).await })
    };
    let first = watch();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = watch();
    let ended = tokio::time::timeout(Duration::from_secs(5), first).await;
    assert_eq!(ended.expect("in time").unwrap().unwrap(), seen);
    assert!(!second.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_finds_its_node_again() {
    let (dir, node, _drive, link) = world().await;
    let (id, bytes) = blob(1, 200_000);
    link.put(id, body(&bytes)).await.unwrap();
    let (port, sent) = (node.addr().port(), link.bytes_sent());
    assert!(sent > 200_000 && link.rtt_ms().is_some());
    node.shutdown().await;
    let error = link.space().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let again = Config { listen: ([127, 0, 0, 1], port).into(), ..config(dir.path()) };
    let node = Node::start(again).await.unwrap();
    assert_eq!(link.has(&[id]).await.unwrap(), [Some(200_000)]);
    assert!(link.bytes_sent() > sent, "counted over all connections");
    assert_eq!(node.url().key, link.url().key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_what_it_began() {
    let (dir, node, drive, link) = world().await;
    let link = Arc::new(link);
    let (id, bytes) = blob(1, 8 << 20);
    let (mut feed, source) = tokio::io::duplex(64 << 10);
    let put = tokio::spawn({
        let link = link.clone();
        async move { link.put(id, Body::stream(8 << 20, Box::new(source))).await }
    });
    use tokio::io::AsyncWriteExt as _;
    feed.write_all(&bytes[..1 << 20]).await.unwrap();
    let watching = tokio::spawn({
        let link = link.clone();
        async move { link.watch(link.heads().await.unwrap(), 60_000).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopped = tokio::spawn(node.shutdown());
    tokio::time::sleep(Duration::from_millis(100)).await;
    feed.write_all(&bytes[1 << 20..]).await.unwrap();
    put.await.unwrap().unwrap();
    watching.await.unwrap().expect("a watch ends at once, with what is known");
    stopped.await.unwrap();
    let node = start(dir.path()).await;
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    assert_eq!(link.has(&[id]).await.unwrap(), [Some(8 << 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_hears_of_a_new_commit() {
    let (_dir, node, mut drive, link) = world().await;
    let device = drive.add_device();
    let theirs = drive.link(&node.url(), &device).await.unwrap();
    let seen = link.heads().await.unwrap();
    let watching = tokio::spawn(async move { link.watch(seen, 30_000).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let commit = drive.commit(&device, None, b"news");
    theirs.append(commit.encode()).await.unwrap();
    let heads = tokio::time::timeout(Duration::from_secs(5), watching).await.unwrap().unwrap();
    assert!(heads.contains(&commit.head()));
    let back = theirs.read(commit.log, 1, 1).await.unwrap();
    assert_eq!(back, [commit.encode()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_takes_no_more_than_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let limits = Limits { connections_per_device: 3, ..Limits::default() };
    let node = Node::start(Config { limits, ..config(dir.path()) }).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(drive.link(&node.url(), &drive.root).await.unwrap());
    }
    let error = drive.link(&node.url(), &drive.root).await.err().unwrap();
    assert!(matches!(error, Error::Busy { .. }) && error.is_transient(), "{error}");
    open.pop().unwrap().close().await;
    eventually(Duration::from_secs(5), async || drive.link(&node.url(), &drive.root).await.is_ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_may_not_ask_is_refused() {
    let (_dir, _node, _drive, link) = world().await;
    let too_long = rdrivefs_remote::blob::BLOB_BYTES_MAX + 1;
    let body = Body::stream(too_long, Box::new(tokio::io::repeat(0)));
    assert!(link.put(BlobId([1; 32]), body).await.unwrap_err().is_corrupt());
    assert!(link.has(&[BlobId([1; 32])]).await.is_ok(), "the connection goes on");
    let entry = Bytes::from(vec![0; rdrivefs_remote::entry::ENTRY_BYTES_MAX + 1]);
    assert!(link.append(entry).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_lists_beyond_one_message_come_whole() {
    let (_dir, _node, _drive, link) = world().await;
    let (id, bytes) = blob(1, 10);
    link.put(id, body(&bytes)).await.unwrap();
    let mut ids: Vec<_> = (0..9000u32).map(|n| BlobId::of(&n.to_le_bytes())).collect();
    ids[8999] = id;
    let found = link.has(&ids).await.unwrap();
    assert_eq!(found.len(), 9000);
    assert_eq!(found[8999], Some(10));
    assert_eq!(link.list(None, usize::MAX).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let http = Some("127.0.0.1:0".parse().unwrap());
    let node = Node::start(Config { http, ..config(dir.path()) }).await.unwrap();
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    let (id, bytes) = blob(1, 10_000);
    link.put(id, body(&bytes)).await.unwrap();
    let _ = link.get(BlobId([1; 32]), 0..1).await;
    let stranger = Drive::new();
    assert!(stranger.link(&node.url(), &stranger.root).await.is_err());
    let at = node.http_addr().unwrap();
    assert!(fetch(at, "/healthz").await.ends_with("ok\n"));
    // A disk that takes nothing any more, as far as a test can make one.
    std::fs::remove_file(dir.path().join("touched")).unwrap();
    std::fs::create_dir(dir.path().join("touched")).unwrap();
    assert!(fetch(at, "/healthz").await.starts_with("HTTP/1.1 500"));
    let metrics = fetch(at, "/metrics").await;
    for line in [
        "rdrivefs_node_connections 1",
        "rdrivefs_node_blobs 1",
        "rdrivefs_node_in_bytes_total 10000",
        "rdrivefs_node_requests_total{call=\"put\"} 1",
        "rdrivefs_node_requests_total{call=\"hello\"} 2",
        "rdrivefs_node_failures_total{kind=\"refused\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    assert!(fetch(at, "/").await.starts_with("HTTP/1.1 404"));
}

async fn fetch(at: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_never_share_a_store_or_a_port() {
    let (dir, node, _drive, _link) = world().await;
    let busy = Node::start(config(dir.path())).await.err().unwrap();
    assert!(
        matches!(&busy, Error::Io { source, .. }
        if source.kind() == std::io::ErrorKind::ResourceBusy),
        "{busy}"
    );
    let other = tempfile::tempdir().unwrap();
    let taken = Config { listen: node.addr(), ..config(other.path()) };
    let taken = Node::start(taken).await.err().unwrap();
    assert!(
        matches!(&taken, Error::Io { source, .. }
        if source.kind() == std::io::ErrorKind::AddrInUse),
        "{taken}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_address_families_reach_a_node_that_listens_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let everywhere = "[::]:0".parse().unwrap();
    let Ok(node) = Node::start(Config { listen: everywhere, ..config(dir.path()) }).await else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    assert_eq!(node.url().host, "127.0.0.1");
    for host in ["127.0.0.1", "::1", "localhost"] {
        let url = NodeUrl { host: host.to_owned(), ..node.url() };
        let link = drive.link(&url, &drive.root).await;
        assert!(link.is_ok(), "{host}: {}", link.err().unwrap());
    }
    let _ = Env::real();
}
