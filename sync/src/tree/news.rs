//! News: what came from elsewhere and changed what a program may be showing, kept for those who ask.
//!
//! The kernel has no way to tell watchers of a change that did not come through it, so programs that
//! want to know ask for it here. Only the latest are kept; who asks too rarely is told that some were
//! missed and looks at everything again.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::tree::words::Change;

/// Changes that are kept.
const KEPT_MAX: usize = 65_536;

/// The latest changes.
#[derive(Default)]
pub(super) struct News {
    latest: Mutex<Latest>,
    came: Condvar,
}

#[derive(Default)]
struct Latest {
    /// The number of the next.
    next: u64,
    kept: VecDeque<Change>,
}

/// What came after a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewsSince {
    /// What to ask for next.
    pub next: u64,
    /// Whether some were missed.
    pub missed: bool,
    /// The changes, in their order.
    pub changes: Vec<Change>,
}

impl News {
    /// Numbered from here on: those of another life of this process must not pass for its own.
    pub(super) fn from(next: u64) -> Self {
        Self { latest: Mutex::new(Latest { next, kept: VecDeque::new() }), came: Condvar::new() }
    }

    pub(super) fn add(&self, change: Change) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.kept.len() == KEPT_MAX {
            latest.kept.pop_front();
        }
        latest.kept.push_back(change);
        latest.next += 1;
        drop(latest);
        self.came.notify_all();
    }

    pub(super) fn after(&self, from: Option<u64>, wait: Duration) -> NewsSince {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // Numbers of another life of this process mean nothing.
        let from_here = from.filter(|from| *from <= latest.next);
        let begin = from_here.unwrap_or(latest.next);
        let waited = self.came.wait_timeout_while(latest, wait, |latest| {
            from.is_some() && from_here.is_some() && latest.next == begin
        });
        let (latest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let oldest = latest.next - latest.kept.len() as u64;
        let skip = usize::try_from(begin.saturating_sub(oldest)).unwrap_or(usize::MAX);
        NewsSince {
            next: latest.next,
            missed: from.is_some() && (from_here.is_none() || begin < oldest),
            changes: latest.kept.iter().skip(skip).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::id::Ino;

    use super::*;

    fn change(n: u64) -> Change {
        Change::Inode { ino: Ino(n) }
    }

    #[test]
    fn each_change_is_heard_once_and_what_was_missed_is_said() {
        let news = News::default();
        news.add(change(1));
        let none = Duration::ZERO;
        let begin = news.after(None, none);
        assert_eq!(begin, NewsSince { next: 1, missed: false, changes: vec![] });
        assert_eq!(news.after(Some(1), none).changes, []);
        (2..5).for_each(|n| news.add(change(n)));
        let heard = news.after(Some(1), none);
        assert_eq!(
            heard,
            NewsSince { next: 4, missed: false, changes: vec![change(2), change(3), change(4)] }
        );
        (0..KEPT_MAX as u64).for_each(|n| news.add(change(n)));
        let late = news.after(Some(3), none);
        assert!(late.missed && late.changes.len() == KEPT_MAX);
        assert!(news.after(Some(u64::MAX), Duration::from_secs(60)).missed, "of another life");
    }

    #[test]
    fn who_waits_hears_at_once() {
        let news = News::default();
        std::thread::scope(|scope| {
            let heard = scope.spawn(|| news.after(Some(0), Duration::from_secs(60)));
            news.add(change(7));
            assert_eq!(heard.join().unwrap().changes, [change(7)]);
        });
    }
}
