//! Control: what commands ask of a drive, done by the process that has it open.
//!
//! A mounted drive is held by its daemon, which listens on a socket of the person's own; else a
//! command opens the drive itself. Either way the same [`Request`] is carried out by the same
//! function, and says the same.

mod execute;
mod request;
mod socket;

pub use execute::execute;
pub use request::{Half, Request, Which};
pub use socket::{Daemon, Served, ask, is_served, listen};
