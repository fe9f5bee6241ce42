//! Keys and authority: from the recovery phrase down to the key of each purpose.
//!
//! - The 24 words ([`Phrase`]) are the root of a drive: from them grow the [`Root`]'s identity,
//!   whose hash is the drive's id, and the wrapping key of recovery. They are shown once and kept
//!   nowhere.
//! - A device, and recovery, hold a wrapping key ([`WrapSecret`]): X25519 and ML-KEM-768 together,
//!   so that breaking one does not help.
//! - An [`Epoch`] is the span of one drive key. Its id commits to the key; every purpose has a key
//!   of its own derived from it; it is wrapped to every member and to recovery, in the one way that
//!   the key itself fixes, so that any member can check that nobody was shut out or let in.
//!
//! Where keys lie at rest is `keybag`'s business, who is a member that of `remote::member`.

mod epoch;
mod phrase;
mod wrap;

pub use epoch::{Epoch, PARENTS_MAX, Recipient};
pub use phrase::{PHRASE_WORDS, Phrase, RecoveryKey, Root};
pub use wrap::{WRAP_OVERHEAD_BYTES, WrapPublic, WrapSecret};
