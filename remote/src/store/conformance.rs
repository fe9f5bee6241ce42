//! What every store must do, as one suite to run against any of them.
//!
//! It is compiled into the library so that stores of other crates and links over a network can be
//! held to it; it panics where a store fails, so it is for tests alone. The store must be empty
//! and take at least 8 MiB.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::error::Error;
use crate::proof::{Outboard, aligned, verify};
use crate::store::{Body, Store};

/// Lengths around the edges of groups and of the pieces in which stores read.
const LENGTHS: [usize; 9] = [0, 1, 4_095, 4_096, 4_097, 8_193, 65_536, 524_289, 1_048_576];

/// Runs the whole suite and leaves the store empty.
///
/// # Panics
/// Where the store does not do what a store must.
pub async fn run(store: &(impl Store + ?Sized)) {
    empty(store).await;
    keeps_what_it_is_given(store).await;
    takes_streams(store).await;
    refuses_what_is_not_the_blob(store).await;
    lists_in_order(store).await;
    survives_many_at_once(store).await;
    forgets_what_is_deleted(store).await;
}

/// Bytes that do not repeat and are the same for the same seed and length.
pub fn sample(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

async fn put(store: &(impl Store + ?Sized), bytes: &Bytes) -> BlobId {
    let id = BlobId::of(bytes);
    store.put(id, Body::bytes(bytes.clone())).await.expect("a store takes a blob");
    id
}

async fn expect_range(store: &(impl Store + ?Sized), bytes: &Bytes, range: Range<u64>) {
    let (id, len) = (BlobId::of(bytes), bytes.len() as u64);
    let slice = store.get(id, range.clone()).await.expect("a store gives what it holds");
    let got = verify(&id, len, range.clone(), slice).expect("what it gives is the blob's");
    let want = aligned(len, &range);
    assert_eq!(got.start, want.start);
    let index = |at: u64| usize::try_from(at).expect("samples are small");
    assert_eq!(got.bytes, bytes[index(want.start)..index(want.end)]);
}

async fn empty(store: &(impl Store + ?Sized)) {
    let id = BlobId::of(b"never stored");
    assert!(store.get(id, 0..1).await.expect_err("it holds nothing").is_missing());
    assert_eq!(store.has(&[id]).await.expect("it answers"), [None]);
    assert_eq!(store.has(&[]).await.expect("it answers"), []);
    assert!(store.list(None, 10).await.expect("it answers").is_empty());
    store.delete(id).await.expect("deleting what is not there succeeds");
    let space = store.space().await.expect("it answers");
    assert_eq!((space.used, space.blobs), (0, 0));
}

async fn keeps_what_it_is_given(store: &(impl Store + ?Sized)) {
    let mut used = 0;
    for (seed, len) in LENGTHS.into_iter().enumerate() {
        let bytes = sample(seed as u64, len);
        let id = put(store, &bytes).await;
        assert_eq!(put(store, &bytes).await, id, "putting it again succeeds");
        let len = len as u64;
        assert_eq!(store.has(&[id]).await.expect("it answers"), [Some(len)]);
        let ends = [0, 1, 4_095, 4_096, 5_000, len / 2, len.saturating_sub(1), len, len + 9];
        for start in ends {
            for end in ends {
                expect_range(store, &bytes, start..end).await;
            }
        }
        expect_range(store, &bytes, 0..u64::MAX).await;
        used += len + Outboard::encoded_len(len);
        let space = store.space().await.expect("it answers");
        assert_eq!((space.used, space.blobs), (used, seed as u64 + 1), "outboards count too");
    }
}

async fn takes_streams(store: &(impl Store + ?Sized)) {
    let bytes = sample(100, 700_000);
    let id = BlobId::of(&bytes);
    let half = |range: Range<usize>| std::io::Cursor::new(bytes.slice(range));
    let halves = half(0..300_001).chain(half(300_001..700_000));
    store.put(id, Body::stream(700_000, Box::new(halves))).await.expect("it takes a stream");
    expect_range(store, &bytes, 0..700_000).await;
    store.delete(id).await.expect("it deletes");
}

async fn refuses_what_is_not_the_blob(store: &(impl Store + ?Sized)) {
    let before = store.space().await.expect("it answers");
    let bytes = sample(200, 600_000);
    let id = BlobId::of(&bytes);
    let mut flipped = bytes.to_vec();
    flipped[599_999] ^= 1;
    let stream = |len, bytes: Bytes| Body::stream(len, Box::new(std::io::Cursor::new(bytes)));
    for wrong in [
        Body::bytes(flipped.into()),
        Body::bytes(bytes.slice(1..)),
        Body::bytes(Bytes::new()),
        stream(600_000, bytes.slice(..599_999)),
        stream(0, Bytes::new()),
    ] {
        let refused = store.put(id, wrong).await.expect_err("these are not its bytes");
        assert!(refused.is_corrupt() || refused.is_transient(), "{refused}");
        assert!(store.get(id, 0..1).await.expect_err("nothing is visible").is_missing());
        assert_eq!(store.has(&[id]).await.expect("it answers"), [None]);
    }
    let endless = stream(BLOB_BYTES_MAX + 1, bytes.clone());
    store.put(id, endless).await.expect_err("longer than a blob can be");
    assert_eq!(store.space().await.expect("it answers"), before, "nothing is left behind");
    put(store, &bytes).await;
    expect_range(store, &bytes, 0..600_000).await;
    store.delete(id).await.expect("it deletes");
}

async fn lists_in_order(store: &(impl Store + ?Sized)) {
    let all = store.list(None, usize::MAX).await.expect("it lists");
    assert_eq!(all.len(), LENGTHS.len());
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "ascending, none twice");
    for held in &all {
        assert!(LENGTHS.contains(&usize::try_from(held.len).expect("samples are small")));
    }
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after, 2).await.expect("it lists");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert!(store.list(None, 0).await.expect("it lists").is_empty());
    let between = BlobId::of(b"an id that is not there");
    let above = store.list(Some(between), usize::MAX).await.expect("it lists");
    assert!(above.iter().eq(all.iter().filter(|held| held.id > between)));
}

async fn survives_many_at_once(store: &(impl Store + ?Sized)) {
    let bytes = sample(300, 300_000);
    let others: Vec<Bytes> = (301..305).map(|seed| sample(seed, 50_000)).collect();
    tokio::join!(
        put(store, &bytes),
        put(store, &bytes),
        put(store, &bytes),
        put(store, &others[0]),
        put(store, &others[1]),
        put(store, &others[2]),
        put(store, &others[3]),
    );
    let space = store.space().await.expect("it answers");
    assert_eq!(space.blobs, LENGTHS.len() as u64 + 5, "the same blob counts once");
    for bytes in others.iter().chain([&bytes]) {
        expect_range(store, bytes, 0..u64::MAX).await;
        store.delete(BlobId::of(bytes)).await.expect("it deletes");
    }
}

async fn forgets_what_is_deleted(store: &(impl Store + ?Sized)) {
    let ids: BTreeSet<BlobId> =
        store.list(None, usize::MAX).await.expect("it lists").iter().map(|held| held.id).collect();
    for id in ids {
        store.delete(id).await.expect("it deletes");
        store.delete(id).await.expect("deleting again succeeds");
        assert!(store.get(id, 0..1).await.expect_err("it is gone").is_missing());
    }
    let space = store.space().await.expect("it answers");
    assert_eq!((space.used, space.blobs), (0, 0));
    match store.get(BlobId::of(b""), 0..0).await {
        Err(Error::Missing(id)) => assert_eq!(id, BlobId::of(b"")),
        other => panic!("the empty blob is a blob too: {other:?}"),
    }
}
