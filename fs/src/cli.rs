//! The terminal: words in, work done, words out.

mod args;
mod daemon;
mod files;
mod places;
mod run;
mod say;
mod secrets;
mod start;

pub use start::main;
