//! Threads: where blocking and long work is done, so that it keeps no other task waiting.

use tokio::task::spawn_blocking;

use crate::error::{Error, Result};

/// Does the work on a thread of its own; a panic in it goes on in the caller.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Unreachable("the program is shutting down".to_owned())),
        },
    }
}
