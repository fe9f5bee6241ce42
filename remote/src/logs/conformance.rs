//! What every keeper of logs must do, as one suite to run against any of them.
//!
//! It is compiled into the library so that links over a network can be held to it; it panics
//! where one fails, so it is for tests alone. The logs must be empty and belong to [`drive`].

use std::time::Duration;

use bytes::Bytes;

use crate::entry::{Entry, Head, Header, LogId, LogKind};
use crate::error::Error;
use crate::identity::{DriveId, SecretKey};
use crate::logs::Logs;

/// Runs the whole suite.
///
/// # Panics
/// Where the logs do not do what they must.
pub async fn run(logs: &(impl Logs + ?Sized)) {
    empty(logs).await;
    takes_only_what_comes_next(logs).await;
    refuses_what_is_not_an_entry_of_the_drive(logs).await;
    reads_from_any_number(logs).await;
    tells_heads_in_order(logs).await;
    wakes_who_watches(logs).await;
    lets_one_of_many_win(logs).await;
}

/// The drive the suite writes for; its root is `author(0)`.
pub fn drive() -> DriveId {
    DriveId::of(&author(0).public())
}

/// A device of the suite.
pub fn author(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

/// A log of `n` entries of growing size.
///
/// # Panics
/// Never for a sensible `n`.
pub fn chain(author: &SecretKey, kind: LogKind, n: usize) -> Vec<Entry> {
    let mut head = Head::empty(LogId { kind, author: author.public(), instance: 0 });
    let mut entries = Vec::new();
    for i in 0..n {
        let entry = next(author, &head, vec![7; i * 100].into());
        head = entry.head();
        entries.push(entry);
    }
    entries
}

fn next(author: &SecretKey, head: &Head, body: Bytes) -> Entry {
    let header = Header::after(drive(), head, [9; 32]);
    Entry::sign(author, header, body).expect("a small entry")
}

fn bytes(entries: &[Entry]) -> Vec<Bytes> {
    entries.iter().map(Entry::encode).collect()
}

async fn empty(logs: &(impl Logs + ?Sized)) {
    let log = LogId { kind: LogKind::Commits, author: author(99).public(), instance: 0 };
    assert!(logs.heads().await.expect("it answers").is_empty());
    assert!(logs.read(log, 1, 1 << 20).await.expect("it answers").is_empty());
    assert!(logs.watch(Vec::new(), 1).await.expect("it answers").is_empty());
}

async fn takes_only_what_comes_next(logs: &(impl Logs + ?Sized)) {
    let log = chain(&author(1), LogKind::Commits, 4);
    let conflict = |result, expected, got| match result {
        Err(Error::LogConflict { expected: e, got: g }) => assert_eq!((e, g), (expected, got)),
        other => panic!("{got} came where {expected} was next: {other:?}"),
    };
    conflict(logs.append(log[1].encode()).await, 1, 2);
    logs.append(log[0].encode()).await.expect("it takes the first");
    logs.append(log[0].encode()).await.expect("it takes the same again");
    conflict(logs.append(log[2].encode()).await, 2, 3);
    logs.append(log[1].encode()).await.expect("it takes the next");
    logs.append(log[0].encode()).await.expect("it takes an old one again");
    let fork = next(&author(1), &log[0].head(), Bytes::from_static(b"another second"));
    conflict(logs.append(fork.encode()).await, 3, 2);
    let after_fork = next(&author(1), &fork.head(), Bytes::new());
    conflict(logs.append(after_fork.encode()).await, 3, 3);
    let all = logs.read(log[0].log, 1, 1 << 20).await.expect("it reads");
    assert_eq!(all, bytes(&log[..2]), "what was refused left no trace");
    logs.append(log[2].encode()).await.expect("it takes the next");
    logs.append(log[3].encode()).await.expect("it takes the next");
}

async fn refuses_what_is_not_an_entry_of_the_drive(logs: &(impl Logs + ?Sized)) {
    let before = logs.heads().await.expect("it answers");
    let good = chain(&author(2), LogKind::Commits, 1)[0].encode();
    let mut flipped = good.to_vec();
    *flipped.last_mut().expect("not empty") ^= 1;
    let mut header = Header::after(drive(), &before[0], [9; 32]);
    header.drive = DriveId([1; 32]);
    let elsewhere = Entry::sign(&author(1), header, Bytes::new()).expect("a small entry").encode();
    let long = Bytes::from([&good[..], &[0]].concat());
    for bad in [Bytes::new(), good.slice(1..), long, flipped.into(), elsewhere] {
        logs.append(bad).await.expect_err("not an entry of this drive");
    }
    assert_eq!(logs.heads().await.expect("it answers"), before);
}

async fn reads_from_any_number(logs: &(impl Logs + ?Sized)) {
    let log = bytes(&chain(&author(1), LogKind::Commits, 4));
    let id = LogId { kind: LogKind::Commits, author: author(1).public(), instance: 0 };
    for from in 0..7u64 {
        let skip = usize::try_from(from.saturating_sub(1)).expect("small");
        let got = logs.read(id, from, 1 << 20).await.expect("it reads");
        assert_eq!(got, log.iter().skip(skip).cloned().collect::<Vec<_>>(), "from {from}");
    }
    let two = (log[0].len() + log[1].len()) as u64;
    for (room, count) in [(0, 1), (1, 1), (two - 1, 1), (two, 2), (u64::MAX, 4)] {
        assert_eq!(logs.read(id, 1, room).await.expect("it reads").len(), count, "{room} bytes");
    }
    assert!(logs.read(id, u64::MAX, 1).await.expect("it reads").is_empty());
    let other = LogId { instance: 1, ..id };
    assert!(logs.read(other, 1, 1 << 20).await.expect("it reads").is_empty());
}

async fn tells_heads_in_order(logs: &(impl Logs + ?Sized)) {
    let mut newest = vec![chain(&author(1), LogKind::Commits, 4)[3].clone()];
    for seed in [5, 3, 4] {
        for kind in [LogKind::Commits, LogKind::Membership] {
            let entry = chain(&author(seed), kind, 1).remove(0);
            logs.append(entry.encode()).await.expect("it takes the first");
            newest.push(entry);
        }
    }
    let mut heads: Vec<Head> = newest.iter().map(Entry::head).collect();
    heads.sort_unstable();
    assert_eq!(logs.heads().await.expect("it answers"), heads);
}

async fn wakes_who_watches(logs: &(impl Logs + ?Sized)) {
    let seen = logs.heads().await.expect("it answers");
    let mut shuffled = seen.clone();
    shuffled.reverse();
    assert_eq!(logs.watch(shuffled, 1).await.expect("it answers"), seen, "nothing happened");
    let at_once = logs.watch(seen[1..].to_vec(), 60_000).await.expect("it answers");
    assert_eq!(at_once, seen, "who has seen less is told at once");
    let entry = chain(&author(6), LogKind::Commits, 1).remove(0);
    let (told, ()) = tokio::join!(logs.watch(seen.clone(), 60_000), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        logs.append(entry.encode()).await.expect("it takes the first");
    });
    assert!(told.expect("it answers").contains(&entry.head()), "an append wakes");
}

async fn lets_one_of_many_win(logs: &(impl Logs + ?Sized)) {
    let first = chain(&author(7), LogKind::Commits, 1).remove(0);
    logs.append(first.encode()).await.expect("it takes the first");
    let rival = |body: &'static [u8]| next(&author(7), &first.head(), body.into());
    let rivals = [rival(b"a"), rival(b"b"), rival(b"c")];
    let [a, b, c] = rivals.each_ref().map(|entry| logs.append(entry.encode()));
    let (a, b, c) = tokio::join!(a, b, c);
    assert_eq!([a, b, c].iter().filter(|result| result.is_ok()).count(), 1, "a log never forks");
    let head = logs.heads().await.expect("it answers");
    assert!(head.iter().any(|head| head.log == first.log && head.number == 2));
}
