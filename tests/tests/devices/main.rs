//! Several devices of one drive, with the programs a person runs.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod conflicts;
mod history;
mod keys;
mod live;
