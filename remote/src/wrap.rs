//! Wrappers: stores around stores.
//!
//! Each adds one thing to any store and is a store itself, so they stack: `Retry` asks again,
//! `Limit` keeps to a rate, `Fault` fails as a test tells it to. None of them interprets bytes.

mod fault;
mod limit;
mod pace;
mod retry;

pub use fault::{Fault, Injury, Op};
pub use limit::{Limit, Limits};
pub use pace::Pace;
pub use retry::{Patience, Retry};
