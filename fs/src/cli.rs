//! The terminal: words in, work done, words out.

mod args;
mod ask;
mod bars;
mod copy;
mod daemon;
mod device;
mod doctor;
mod init;
mod key;
mod paint;
mod places;
mod run;
mod say;
mod secrets;
mod start;
mod table;
mod units;
mod unmount;
mod users;
mod versions;
mod when;

pub use start::main;
