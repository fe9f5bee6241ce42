//! The computer's side: what the kernel and the terminal see of a drive.
//!
//! The modules are listed from roof to ground, and a module imports only modules below it.

pub mod mount;
pub mod adapter;
