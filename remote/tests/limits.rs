//! What a link keeps to: a pace each way that links share, and a number of requests at a time.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Drive, blob, body, noise, start};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::link::Link;
use rdrivefs_remote::logs::Logs;
use rdrivefs_remote::node::Node;
use rdrivefs_remote::store::{Body, Store};
use rdrivefs_remote::wrap::{Limits, Pace};

const RATE: u64 = 200_000;

/// A node, an authorised drive and a device of it.
async fn world() -> (tempfile::TempDir, Node, Drive, rdrivefs_remote::identity::SecretKey) {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive::new();
    drive.allow(dir.path(), "");
    let node = start(dir.path()).await;
    let device = drive.add_device();
    (dir, node, drive, device)
}

fn pace() -> Option<Arc<Pace>> {
    Some(Arc::new(Pace::new(RATE, Env::real())))
}

/// How long something takes, in milliseconds.
async fn took_ms<T>(what: impl Future<Output = T>) -> (T, u128) {
    let env = Env::real();
    let began = env.instant();
    let done = what.await;
    (done, env.instant().since(began).as_millis())
}

/// A body that never comes.
struct Stalled;

impl tokio::io::AsyncRead for Stalled {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_share_a_pace_and_reads_do_not_wait_for_what_is_sent() {
    let (_dir, node, drive, device) = world().await;
    let limits = Limits { sent: pace(), requests_max: Some(2), ..Limits::default() };
    let link = || Link::lazy(&node.url(), drive.credentials(&device), &Env::real(), limits.clone());
    let (one, other) = (link(), link());
    let (small, bytes) = blob(9, 10_000);
    one.put(small, body(&bytes)).await.unwrap();
    let [(a, first), (b, second)] = [blob(1, 300_000), blob(2, 300_000)];
    let reads = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        took_ms(one.get(small, 0..10_000)).await
    };
    let both = async { tokio::join!(one.put(a, body(&first)), other.put(b, body(&second))) };
    let ((read, read_ms), ((a, b), put_ms)) = tokio::join!(reads, took_ms(both));
    assert!(a.is_ok() && b.is_ok() && read.is_ok());
    assert!((1_200..6_000).contains(&put_ms), "600 KB at 200 KB/s took {put_ms} ms");
    assert!(read_ms < 500, "a read took {read_ms} ms beside them");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_keeps_to_its_pace_however_it_is_asked_for() {
    let (_dir, node, drive, device) = world().await;
    let limits = Limits { received: pace(), ..Limits::default() };
    let link = Link::lazy(&node.url(), drive.credentials(&device), &Env::real(), limits);
    let (id, bytes) = blob(1, 200_000);
    let entry = drive.commit(&device, None, &noise(2, 100_000));
    let sending = async {
        link.put(id, body(&bytes)).await.unwrap();
        link.append(entry.encode()).await.unwrap();
    };
    let ((), sent_ms) = took_ms(sending).await;
    assert!(sent_ms < 1_000, "sending has no limit and took {sent_ms} ms");
    // The second a pace allows at once is used up by this.
    link.get(id, 0..200_000).await.unwrap();
    let (read, read_ms) = took_ms(link.read(entry.log, 1, 1 << 20)).await;
    assert_eq!(read.unwrap().len(), 1);
    assert!((400..4_000).contains(&read_ms), "100 KB at 200 KB/s took {read_ms} ms");
    let (slice, get_ms) = took_ms(link.get(id, 0..50_000)).await;
    assert!(slice.is_ok());
    assert!((200..4_000).contains(&get_ms), "50 KB at 200 KB/s took {get_ms} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_sent_count() {
    let (_dir, node, drive, device) = world().await;
    let limits = Limits { sent: pace(), ..Limits::default() };
    let link = Link::lazy(&node.url(), drive.credentials(&device), &Env::real(), limits);
    let first = drive.commit(&device, None, &noise(1, 200_000));
    let second = drive.commit(&device, Some(&first.head()), &noise(2, 200_000));
    link.append(first.encode()).await.unwrap();
    let (done, ms) = took_ms(link.append(second.encode())).await;
    done.unwrap();
    assert!((500..4_000).contains(&ms), "200 KB at 200 KB/s took {ms} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_than_allowed_and_one_is_left_by_puts() {
    let (_dir, node, drive, device) = world().await;
    let link = |requests_max| {
        let limits = Limits { requests_max: Some(requests_max), ..Limits::default() };
        Arc::new(Link::lazy(&node.url(), drive.credentials(&device), &Env::real(), limits))
    };
    let puts = |link: &Arc<Link>| {
        let mut puts = tokio::task::JoinSet::new();
        for seed in 0..3 {
            let link = link.clone();
            let stalled = Body::stream(1_000, Box::new(Stalled));
            puts.spawn(async move { link.put(blob(seed, 1_000).0, stalled).await });
        }
        puts
    };
    let soon = Duration::from_millis(700);
    let (one, two) = (link(1), link(2));
    let watched = one.clone();
    let watch = tokio::spawn(async move { watched.watch(Vec::new(), 20_000).await });
    tokio::time::timeout(soon, one.space()).await.expect("a watch is none of them").unwrap();
    let _puts = (puts(&one), puts(&two));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(tokio::time::timeout(soon, one.space()).await.is_err(), "one at a time");
    tokio::time::timeout(soon, two.space()).await.expect("one is left").unwrap();
    watch.abort();
}
