//! Meeting at a node: a member opens a mailbox, and who belongs to no drive may use it and no more.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Drive, config, world};
use rdrivefs_remote::Error;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::error::NoPairing;
use rdrivefs_remote::identity::SecretKey;
use rdrivefs_remote::link::{Link, NodeUrl};
use rdrivefs_remote::logs::Logs as _;
use rdrivefs_remote::node::Node;
use rdrivefs_remote::wire::{
    MailboxId, PAIR_ANSWER_BYTES_MAX, PAIR_MS_MAX, PAIR_REQUEST_BYTES_MAX,
};

/// Nobody waits longer here, so that a mailbox that keeps its guests too long is noticed.
const WAIT: Duration = Duration::from_secs(20);
const BOX: MailboxId = MailboxId([7; 32]);

async fn join(url: &NodeUrl, key: &SecretKey, request: &'static str) -> Result<Bytes, Error> {
    let env = Env::real();
    let joining = Link::pair_join(url, key, BOX, Bytes::from(request), &env);
    tokio::time::timeout(WAIT, joining).await.expect("it is answered in time")
}

fn key() -> SecretKey {
    SecretKey::generate(&Env::real())
}

fn why<T>(result: Result<T, Error>) -> NoPairing {
    match result.err() {
        Some(Error::Pairing(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_name_the_same_mailbox_leave_each_other_one_message() {
    let (_dir, node, _drive, link) = world().await;
    let url = node.url();
    link.pair_open(BOX, PAIR_MS_MAX).await.unwrap();
    assert_eq!(link.pair_wait(BOX, 50).await.unwrap(), None, "nobody came yet");
    let (guest, at) = (key(), url.clone());
    let joining = tokio::spawn({
        let guest = guest.clone();
        async move { join(&at, &guest, "hello").await }
    });
    assert_eq!(link.pair_wait(BOX, 10_000).await.unwrap().unwrap(), "hello");
    assert_eq!(why(join(&url, &key(), "hello").await), NoPairing::Used);
    let big = Bytes::from(vec![9; PAIR_ANSWER_BYTES_MAX]);
    link.pair_answer(BOX, big.clone()).await.unwrap();
    assert_eq!(joining.await.unwrap().unwrap(), big);
    assert_eq!(join(&url, &guest, "hello").await.unwrap(), big, "the same once more");
    assert_eq!(why(join(&url, &key(), "hello").await), NoPairing::Used);
    let other = MailboxId([8; 32]);
    let unknown = Link::pair_join(&url, &guest, other, Bytes::new(), &Env::real()).await;
    assert_eq!(why(unknown), NoPairing::Unknown);
    let long = Bytes::from(vec![0; PAIR_REQUEST_BYTES_MAX + 1]);
    let long = Link::pair_join(&url, &guest, BOX, long, &Env::real()).await;
    assert!(matches!(long, Err(Error::Malformed { .. })), "{long:?}");
    let long = link.pair_answer(BOX, Bytes::from(vec![0; PAIR_ANSWER_BYTES_MAX + 1])).await;
    assert!(matches!(long, Err(Error::Malformed { .. })), "{long:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_ends_by_the_nodes_clock_also_for_those_who_wait_at_it() {
    let (_dir, node, _drive, link) = world().await;
    link.pair_open(BOX, 700).await.unwrap();
    let (url, guest) = (node.url(), key());
    assert_eq!(why(join(&url, &guest, "hello").await), NoPairing::Expired);
    assert_eq!(why(join(&url, &key(), "late").await), NoPairing::Expired);
    assert_eq!(why(link.pair_wait(BOX, 0).await), NoPairing::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_its_drives_and_a_guest_is_no_member() {
    let (dir, node, drive, link) = world().await;
    link.pair_open(BOX, PAIR_MS_MAX).await.unwrap();
    let mut other = Drive::new();
    other.allow(dir.path(), "");
    let device = other.add_device();
    common::eventually(Duration::from_secs(5), async || {
        other.link(&node.url(), &device).await.is_ok()
    })
    .await;
    let stranger = other.link(&node.url(), &device).await.unwrap();
    assert_eq!(why(stranger.pair_wait(BOX, 0).await), NoPairing::Unknown);
    assert_eq!(why(stranger.pair_answer(BOX, Bytes::from("x")).await), NoPairing::Unknown);
    assert_eq!(why(stranger.pair_open(BOX, 9).await), NoPairing::Used);
    // Waiting at a mailbox makes nobody a member.
    let guest = key();
    let waiting = tokio::spawn({
        let (url, guest) = (node.url(), guest.clone());
        async move { join(&url, &guest, "hello").await }
    });
    assert!(link.pair_wait(BOX, 10_000).await.unwrap().is_some());
    let error = drive.link(&node.url(), &guest).await.err().unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    waiting.abort();
    assert_eq!(link.heads().await.unwrap().len(), 1, "and nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_lets_its_guests_go_and_forgets_their_mailboxes() {
    let (dir, node, drive, link) = world().await;
    link.pair_open(BOX, PAIR_MS_MAX).await.unwrap();
    let (guest, url) = (key(), node.url());
    let waiting = tokio::spawn({
        let (guest, url) = (guest.clone(), url.clone());
        async move { join(&url, &guest, "hello").await }
    });
    assert!(link.pair_wait(BOX, 10_000).await.unwrap().is_some());
    node.shutdown().await;
    let left = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert!(matches!(left, Err(Error::Unreachable(_))), "{left:?}");
    let node = Node::start(config(dir.path())).await.unwrap();
    assert_eq!(why(join(&node.url(), &guest, "hello").await), NoPairing::Unknown);
    let member = drive.link(&node.url(), &drive.root).await.unwrap();
    assert_eq!(why(member.pair_wait(BOX, 0).await), NoPairing::Unknown);
}
