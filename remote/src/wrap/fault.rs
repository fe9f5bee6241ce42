//! Failing as a test tells it to: a store that loses answers, runs full, dawdles or lies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::blob::BlobId;
use crate::error::{Error, Result};
use crate::store::{Body, Held, Slice, Space, Store};

/// A method of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`Store::put`].
    Put,
    /// [`Store::get`].
    Get,
    /// [`Store::has`].
    Has,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
    /// [`Store::space`].
    Space,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injury {
    /// It never arrives.
    Unreachable,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// The disk is full.
    Full,
    /// The store asks to come back later.
    BusyMs(u64),
    /// The store denies what it has.
    Missing,
    /// The answer comes late.
    DelayMs(u64),
    /// A bit of the slice is flipped; other calls are left alone.
    Corrupt,
}

/// A store that fails by script and otherwise does as the one inside.
pub struct Fault<S> {
    inner: Arc<S>,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    calls: BTreeMap<Op, u64>,
    at: BTreeMap<(Op, u64), Injury>,
    every: Option<(u64, Injury)>,
    total: u64,
    now: usize,
    most: usize,
}

impl<S: Store> Fault<S> {
    /// Wraps a store that does not fail yet.
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// The `nth` call of `op`, counted from 1 and from the beginning, is injured.
    pub fn at(&self, op: Op, nth: u64, injury: Injury) {
        self.script().at.insert((op, nth), injury);
    }

    /// Every `n`th call of any kind is injured, save puts from streams, which nobody can repeat.
    pub fn every(&self, n: u64, injury: Injury) {
        self.script().every = Some((n, injury));
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&self) {
        let mut script = self.script();
        script.at.clear();
        script.every = None;
    }

    /// How often `op` was called.
    pub fn calls(&self, op: Op) -> u64 {
        self.script().calls.get(&op).copied().unwrap_or(0)
    }

    /// The largest number of calls that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.script().most
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic while the lock is held")
    }

    async fn run<T>(
        &self,
        op: Op,
        spared: bool,
        id: Option<BlobId>,
        work: impl Future<Output = Result<T>>,
        corrupt: impl FnOnce(&mut T),
    ) -> Result<T> {
        let injury = self.script().begin(op, spared);
        let _under_way = UnderWay(&self.script);
        match injury {
            None => work.await,
            Some(Injury::Unreachable) => Err(lost()),
            Some(Injury::AnswerLost) => work.await.and(Err(lost())),
            Some(Injury::Full) => Err(Error::Full),
            Some(Injury::BusyMs(retry_ms)) => Err(Error::Busy { retry_ms }),
            Some(Injury::Missing) => Err(id.map_or_else(lost, Error::Missing)),
            Some(Injury::DelayMs(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                work.await
            }
            Some(Injury::Corrupt) => work.await.map(|mut answer| {
                corrupt(&mut answer);
                answer
            }),
        }
    }
}

impl Script {
    fn begin(&mut self, op: Op, spared: bool) -> Option<Injury> {
        let nth = self.calls.entry(op).or_default();
        *nth += 1;
        let here = self.at.get(&(op, *nth)).copied();
        self.total += 1;
        self.now += 1;
        self.most = self.most.max(self.now);
        let every = self.every.filter(|(n, _)| !spared && self.total.is_multiple_of(*n));
        here.or(every.map(|(_, injury)| injury))
    }
}

/// Counts a call as under way until it is dropped.
struct UnderWay<'a>(&'a Mutex<Script>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Ok(mut script) = self.0.lock() {
            script.now -= 1;
        }
    }
}

#[async_trait]
impl<S: Store> Store for Fault<S> {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let spared = body.again().is_none();
        self.run(Op::Put, spared, Some(id), self.inner.put(id, body), |()| {}).await
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let work = self.inner.get(id, range);
        self.run(Op::Get, false, Some(id), work, |slice| {
            let mut bytes = slice.0.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            slice.0 = bytes.into();
        })
        .await
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        self.run(Op::Has, false, ids.first().copied(), self.inner.has(ids), |_| {}).await
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        self.run(Op::List, false, None, self.inner.list(after, limit), |_| {}).await
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        self.run(Op::Delete, false, Some(id), self.inner.delete(id), |()| {}).await
    }

    async fn space(&self) -> Result<Space> {
        self.run(Op::Space, false, None, self.inner.space(), |_| {}).await
    }
}

fn lost() -> Error {
    Error::Unreachable("as the test told it".to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proof::verify;
    use crate::store::conformance;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn conforms_when_nothing_is_scripted() {
        conformance::run(&Fault::new(Arc::new(MemoryStore::new()))).await;
    }

    #[tokio::test]
    async fn each_injury_does_what_it_says() {
        let store = Fault::new(Arc::new(MemoryStore::new()));
        let bytes = Bytes::from_static(b"bytes");
        let id = BlobId::of(&bytes);
        let put = || store.put(id, Body::bytes(bytes.clone()));
        store.at(Op::Put, 1, Injury::Unreachable);
        store.at(Op::Put, 2, Injury::Full);
        store.at(Op::Put, 3, Injury::BusyMs(9));
        assert!(put().await.unwrap_err().is_transient());
        assert!(matches!(put().await, Err(Error::Full)));
        assert!(matches!(put().await, Err(Error::Busy { retry_ms: 9 })));
        assert_eq!(store.has(&[id]).await.unwrap(), [None]);
        store.at(Op::Put, 4, Injury::AnswerLost);
        assert!(put().await.unwrap_err().is_transient());
        assert_eq!(store.has(&[id]).await.unwrap(), [Some(5)], "it was carried out");
        store.at(Op::Get, 1, Injury::Missing);
        store.at(Op::Get, 2, Injury::Corrupt);
        store.at(Op::Get, 3, Injury::DelayMs(1));
        assert!(store.get(id, 0..5).await.unwrap_err().is_missing());
        let slice = store.get(id, 0..5).await.unwrap();
        assert!(verify(&id, 5, 0..5, slice).unwrap_err().is_corrupt());
        let slice = store.get(id, 0..5).await.unwrap();
        assert_eq!(verify(&id, 5, 0..5, slice).unwrap().bytes, bytes);
        store.every(1, Injury::Unreachable);
        assert!(store.space().await.is_err());
        store.heal();
        assert!(store.space().await.is_ok());
    }
}
