//! Progress of long work, told to whoever asked for it, and the way to stop it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::report::{Phase, ProgressEvent};

/// Adds up steps forward and tells the sums; cheap to clone, safe from any thread.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    tell: Box<dyn Fn(ProgressEvent) + Send + Sync>,
    cancelled: AtomicBool,
    /// The sums of each phase.
    sums: Mutex<HashMap<Phase, ProgressEvent>>,
}

impl Progress {
    /// Tells `tell`, which must be quick.
    pub fn new(tell: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            tell: Box::new(tell),
            cancelled: AtomicBool::default(),
            sums: Mutex::default(),
        }))
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Says how much more there is to do.
    pub fn expect(&self, phase: Phase, bytes: u64, items: u64) {
        self.add(phase, |sum| {
            sum.total_bytes += bytes;
            sum.total_items += items;
        });
    }

    /// Says how much was done.
    pub fn advance(&self, phase: Phase, bytes: u64, items: u64) {
        self.add(phase, |sum| {
            sum.done_bytes += bytes;
            sum.done_items += items;
        });
    }

    /// Asks the work to stop at its next safe point.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Error::Refused`] once it was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.0.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Refused("cancelled".into()));
        }
        Ok(())
    }

    fn add(&self, phase: Phase, change: impl FnOnce(&mut ProgressEvent)) {
        let event = {
            let mut sums = self.0.sums.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = sums.entry(phase).or_insert(ProgressEvent { phase, ..Default::default() });
            change(sum);
            sum.clone()
        };
        (self.0.tell)(event);
    }
}
