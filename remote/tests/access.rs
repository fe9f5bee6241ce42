//! Who a node lets in, and who it cuts off.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Drive, blob, body, config, deleting, eventually, noise, start, world};
use rdrivefs_remote::Error;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::entry::{Entry, Head, Header, LogId, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::SecretKey;
use rdrivefs_remote::link::{Link, NodeUrl};
use rdrivefs_remote::logs::Logs;
use rdrivefs_remote::node::invite::{Invite, Invites};
use rdrivefs_remote::node::place::Place;
use rdrivefs_remote::node::{Config, Node};
use rdrivefs_remote::store::Store;

#[tokio::test(flavor = "multi_thread")]
async fn s30_a_node_with_another_key_is_a_hard_error() {
    let (_dir, node, drive, _link) = world().await;
    let other = SecretKey::generate(&Env::real()).public();
    let url = NodeUrl { key: other, ..node.url() };
    let error = drive.link(&url, &drive.root).await.err().unwrap();
    let Error::NodeKeyChanged { pinned, shown } = &error else { panic!("{error}") };
    assert_eq!(*pinned, other.fingerprint());
    assert_eq!(*shown, node.key().fingerprint());
    assert!(!error.is_transient(), "nobody should try this again by themselves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_place_is_unreachable() {
    let (_dir, node, drive, _link) = world().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = NodeUrl { port: silent.local_addr().unwrap().port(), ..node.url() };
    let error = drive.link(&url, &drive.root).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let url = NodeUrl { host: "no-such-host.invalid".to_owned(), ..node.url() };
    let error = drive.link(&url, &drive.root).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away() {
    let (dir, node, drive, _link) = world().await;
    let unknown = Drive::new();
    let error = unknown.link(&node.url(), &unknown.root).await.err().unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");

    let stranger = SecretKey::generate(&Env::real());
    let error = drive.link(&node.url(), &stranger).await.err().unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");

    let mut liar = drive.credentials(&drive.root);
    liar.root = unknown.root.public();
    let error = Link::dial(&node.url(), liar, &Env::real()).await.err().unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");

    // A certificate of one's own making.
    let mut forged = Drive { root: unknown.root.clone(), entries: Vec::new() };
    let device = forged.add_device();
    let mut liar = drive.credentials(&device);
    liar.membership = forged.credentials(&device).membership;
    assert!(Link::dial(&node.url(), liar, &Env::real()).await.is_err());
    assert!(!dir.path().join("spaces").join(unknown.id().to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_comes_in_with_nothing_but_itself() {
    let (_dir, node, drive, link) = world().await;
    let mut bare = drive.credentials(&drive.root);
    bare.membership.clear();
    let root = Link::dial(&node.url(), bare, &Env::real()).await.unwrap();
    let heads = root.heads().await.unwrap();
    assert_eq!(heads, link.heads().await.unwrap());
    let entries = root.read(heads[0].log, 1, u64::MAX).await.unwrap();
    assert_eq!(entries, [drive.entries[0].encode()], "what recovery begins with");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_lets_one_drive_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let invites = Invites::new(&Place::open(dir.path()).unwrap());
    let invite = Invite { quota: Some(1 << 20), expires_ms: u64::MAX };
    let secret = invites.create(&invite, &Env::real()).unwrap();
    let url = NodeUrl { invite: Some(hex::encode(secret.0)), ..node.url() };

    let mut first = Drive::new();
    let device = first.add_device();
    // A stranger's try does not use it up.
    let stranger = SecretKey::generate(&Env::real());
    assert!(first.link(&url, &stranger).await.is_err());
    let link = first.link(&url, &device).await.unwrap();
    assert_eq!(link.space().await.unwrap().quota, Some(1 << 20));

    let second = Drive::new();
    let error = second.link(&url, &second.root).await.err().unwrap();
    assert!(matches!(&error, Error::Refused(why) if why.contains("invite")), "{error}");

    // The first is known now, with or without the invite, also after a restart.
    drop(link);
    first.link(&url, &device).await.unwrap();
    node.shutdown().await;
    let node = start(dir.path()).await;
    first.link(&node.url(), &device).await.unwrap();
    let again = NodeUrl { invite: url.invite, ..node.url() };
    assert!(second.link(&again, &second.root).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_race_for_an_invite_one_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let invites = Invites::new(&Place::open(dir.path()).unwrap());
    let invite = Invite { quota: None, expires_ms: u64::MAX };
    let secret = invites.create(&invite, &Env::real()).unwrap();
    let url = NodeUrl { invite: Some(hex::encode(secret.0)), ..node.url() };
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        racers.spawn(async move {
            let drive = Drive::new();
            drive.link(&url, &drive.root).await.is_ok()
        });
    }
    let won = racers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorisations_count_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let drive = Drive::new();
    assert!(drive.link(&node.url(), &drive.root).await.is_err());
    drive.allow(dir.path(), "quota = 4096\n");
    eventually(Duration::from_secs(5), async || drive.link(&node.url(), &drive.root).await.is_ok())
        .await;
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    assert_eq!(link.space().await.unwrap().quota, Some(4096));
    drive.allow(dir.path(), "quota = 8192\n");
    eventually(Duration::from_secs(5), async || link.space().await.unwrap().quota == Some(8192))
        .await;
    drive.deny(dir.path());
    eventually(Duration::from_secs(5), async || !link.is_connected()).await;
    assert!(matches!(link.space().await, Err(Error::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn s31_a_revoked_device_is_cut_and_stays_out() {
    let (_dir, node, mut drive, link) = world().await;
    let lost = drive.add_device();
    let theirs = drive.link(&node.url(), &lost).await.unwrap();
    assert!(theirs.is_connected());
    let certificates = drive.credentials(&lost);
    let revocation = drive.revoke(&lost.public());
    link.append(revocation.encode()).await.unwrap();
    eventually(Duration::from_secs(5), async || !theirs.is_connected()).await;
    let error = theirs.space().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    // Its certificates alone no longer help.
    let error = Link::dial(&node.url(), certificates, &Env::real()).await.err().unwrap();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(link.space().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn s31_a_revocation_shown_at_hello_counts_too() {
    let (_dir, node, mut drive, _link) = world().await;
    let lost = drive.add_device();
    let theirs = drive.link(&node.url(), &lost).await.unwrap();
    drive.revoke(&lost.public());
    drive.link(&node.url(), &drive.root).await.unwrap();
    eventually(Duration::from_secs(5), async || !theirs.is_connected()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_write_logs() {
    let (_dir, node, mut drive, link) = world().await;
    let device = drive.add_device();
    let root = drive.link(&node.url(), &drive.root).await.unwrap();
    let first = drive.commit(&device, None, b"one");
    // Any member may carry anyone's commits.
    link.append(first.encode()).await.unwrap();
    link.append(first.encode()).await.expect("the very same again is no error");
    let fork = drive.commit(&device, None, b"two");
    let error = root.append(fork.encode()).await.unwrap_err();
    assert!(matches!(error, Error::LogConflict { expected: 2, got: 1 }), "{error}");

    let stranger = SecretKey::generate(&Env::real());
    let foreign = drive.commit(&stranger, None, b"x");
    assert!(matches!(root.append(foreign.encode()).await, Err(Error::Refused(_))));
    let elsewhere = Drive::new();
    let other = elsewhere.commit(&device, None, b"x");
    assert!(matches!(root.append(other.encode()).await, Err(Error::Refused(_))));
    let mut broken = first.encode().to_vec();
    broken[200] ^= 1;
    assert!(root.append(broken.into()).await.unwrap_err().is_corrupt());
}

#[tokio::test(flavor = "multi_thread")]
async fn s24_foreign_blobs_and_blobs_that_never_were_look_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let node = Node::start(deleting(dir.path())).await.unwrap();
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    let (id, bytes) = blob(1, 100_000);
    link.put(id, body(&bytes)).await.unwrap();
    let other = Drive::new();
    other.allow(dir.path(), "");
    let mut foreign = None;
    eventually(Duration::from_secs(5), async || {
        foreign = other.link(&node.url(), &other.root).await.ok();
        foreign.is_some()
    })
    .await;
    let foreign = foreign.unwrap();
    let never = BlobId([7; 32]);
    for range in [0..4096, 0..100_000] {
        for asked in [id, never] {
            let error = foreign.get(asked, range.clone()).await.unwrap_err();
            assert!(matches!(error, Error::Missing(m) if m == asked), "{error}");
        }
    }
    assert_eq!(foreign.has(&[id, never]).await.unwrap(), [None, None]);
    assert!(foreign.list(None, 10).await.unwrap().is_empty());
    // S26: deleting by hash alone reaches nobody else's blob.
    foreign.delete(id).await.unwrap();
    assert_eq!(link.has(&[id]).await.unwrap(), [Some(100_000)]);
    // S25: who has the bytes sends them all the same.
    let before = foreign.bytes_sent();
    foreign.put(id, body(&bytes)).await.unwrap();
    assert!(foreign.bytes_sent() - before > 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_the_nodes_hold_is_not_shortened_by_anyone() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let held = Config { retain_ms: 3_600_000, ..config(dir.path()) };
    let node = Node::start(held).await.unwrap();
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    let (id, bytes) = blob(1, 5000);
    link.put(id, body(&bytes)).await.unwrap();
    let error = link.delete(id).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert_eq!(link.has(&[id]).await.unwrap(), [Some(5000)]);
    drop(link);
    node.shutdown().await;
    // Where the keeper did not say so, a hold that is over is no reason to delete.
    let node = start(dir.path()).await;
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    assert!(matches!(link.delete(id).await, Err(Error::Refused(_))));
    assert_eq!(link.has(&[id]).await.unwrap(), [Some(5000)]);
    drop(link);
    node.shutdown().await;
    let node = Node::start(deleting(dir.path())).await.unwrap();
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    link.delete(id).await.unwrap();
    assert_eq!(link.has(&[id]).await.unwrap(), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_fills_its_membership_stops_neither_itself_nor_others() {
    let dir = tempfile::tempdir().unwrap();
    let (drive, other) = (Drive::new(), Drive::new());
    drive.allow(dir.path(), "");
    other.allow(dir.path(), "");
    let node = start(dir.path()).await;
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    let log = LogId { kind: LogKind::Membership, author: drive.root.public(), instance: 0 };
    let mut head = Head::empty(log);
    let full = loop {
        let header = Header::after(drive.id(), &head, [0; 32]);
        let entry = Entry::sign(&drive.root, header, Bytes::from_static(b"no change")).unwrap();
        if let Err(error) = link.append(entry.encode()).await {
            break error;
        }
        head = entry.head();
        assert!(head.number < 4096, "more than can be weighed");
    };
    assert!(matches!(full, Error::Refused(_)), "{full}");
    drop(link);
    node.shutdown().await;
    let node = start(dir.path()).await;
    for drive in [drive, other] {
        drive.link(&node.url(), &drive.root).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_drive_keeps_no_other_from_its_node() {
    let (dir, node, drive, link) = world().await;
    let other = Drive::new();
    other.allow(dir.path(), "");
    drop(link);
    node.shutdown().await;
    let logs = dir.path().join("spaces").join(drive.id().to_string()).join("logs");
    let log = format!("m-{}-0", drive.root.public());
    std::fs::write(logs.join(log).join(format!("{:016x}", 1)), noise(1, 300)).unwrap();
    let node = start(dir.path()).await;
    other.link(&node.url(), &other.root).await.unwrap();
    assert!(drive.link(&node.url(), &drive.root).await.is_err(), "it is told");
}
