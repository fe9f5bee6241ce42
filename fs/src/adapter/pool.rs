//! Threads for what must not hold up the kernel's request loop; made when needed, gone when idle.
//!
//! The queue has no bound of its own: each job is a request some process or the kernel's bounded
//! background queue is waiting for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an idle thread stays for the next job.
const IDLE_MS: u64 = 10_000;

type Job = Box<dyn FnOnce() + Send>;

/// A pool of at most so many threads. Dropping it lets the jobs in it finish.
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    name: &'static str,
    threads_max: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub(super) fn new(name: &'static str, threads_max: usize) -> Self {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { name, threads_max, queue, changed }))
    }

    /// Runs `job` on a thread of the pool, at once or when one is free.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.jobs.len() > queue.idle && queue.threads < self.0.threads_max {
            let shared = Arc::clone(&self.0);
            match std::thread::Builder::new().name(self.0.name.into()).spawn(move || work(&shared))
            {
                Ok(_) => queue.threads += 1,
                Err(error) => {
                    tracing::error!(%error, "no thread for a waiting request");
                    if queue.threads == 0 {
                        // Nobody else would ever come to it.
                        let left = queue.jobs.pop_back();
                        drop(queue);
                        return left.into_iter().for_each(|job| job());
                    }
                }
            }
        }
        drop(queue);
        self.0.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            // A job answers its own panics; this one is for what it forgot.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!(pool = shared.name, "a job panicked");
            }
            queue = shared.lock();
            continue;
        }
        if queue.closed {
            break;
        }
        queue.idle += 1;
        let idle = Duration::from_millis(IDLE_MS);
        let (woken, wait) =
            shared.changed.wait_timeout(queue, idle).unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        queue.idle -= 1;
        if wait.timed_out() && queue.jobs.is_empty() {
            break;
        }
    }
    queue.threads -= 1;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_that_wait_for_each_other_all_get_a_thread() {
        let pool = Pool::new("test", 8);
        let barrier = Arc::new(std::sync::Barrier::new(8));
        let (sent, got) = mpsc::channel();
        for number in 0..8 {
            let (barrier, sent) = (Arc::clone(&barrier), sent.clone());
            pool.run(move || {
                barrier.wait();
                sent.send(number).unwrap();
            });
        }
        let mut done: Vec<_> =
            (0..8).map(|_| got.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_panic_costs_no_thread_and_no_job() {
        let pool = Pool::new("test", 1);
        let (sent, got) = mpsc::channel();
        pool.run(|| panic!("as the test wants it"));
        pool.run(move || sent.send(()).unwrap());
        got.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
