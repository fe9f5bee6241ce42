//! The computer's side: what the kernel and the terminal see of a drive.
//!
//! The modules are listed from roof to ground, and a module imports only modules below it.

pub mod cli;
pub mod control;
pub mod failure;
pub mod mount;
pub mod adapter;
