//! The drive: what the floor above holds in its hands.

pub mod report;
