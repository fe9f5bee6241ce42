//! Writes the vectors of `tests/vectors`, the same bytes every time.
//!
//! `cargo run -p rdrivefs-tests --example make_vectors`. Each case says by hand what must come of
//! it; a case that comes out otherwise stops the writing. A change of a format shows in the diff.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rdrivefs_remote::env::{Env, Instant, World};
use rdrivefs_tests::vectors::{self, Case, Outcome};

mod commit;
mod cut;
mod entry;
mod keybag;
mod layer;
mod member;
mod pairing;
mod phrase;
mod record;
mod slice;
mod wrap;

/// Inputs of a case, by name.
type Inputs = Vec<(&'static str, String)>;

fn main() {
    phrase::write(&Folder::clean("phrase"));
    keybag::write(&Folder::clean("keybag"));
    wrap::write(&Folder::clean("wrap"));
    entry::write(&Folder::clean("entry"));
    record::write(&Folder::clean("record"));
    commit::write(&Folder::clean("commit"));
    layer::write(&Folder::clean("layer"));
    member::write(&Folder::clean("member"));
    pairing::write(&Folder::clean("pairing"));
    slice::write(&Folder::clean("slice"));
    cut::write(&Folder::clean("cut"));
}

/// The cases of one format.
struct Folder {
    format: &'static str,
    path: PathBuf,
}

impl Folder {
    fn clean(format: &'static str) -> Self {
        let path = vectors::folder().join(format);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder can be made");
        Self { format, path }
    }

    /// A case that must be read; `means` is part of what it means.
    fn valid(&self, name: &str, comment: &str, inputs: Inputs, means: &str) {
        let came = self.read(comment, &inputs);
        let result = came.unwrap_or_else(|e| panic!("{}/{name} was refused: {e}", self.format));
        assert!(result.contains(means), "{}/{name} means {result}", self.format);
        self.put(&format!("valid_{name}"), comment, inputs, Outcome::Result(result));
    }

    /// A case that must be refused; `why` is part of the reason.
    fn refused(&self, name: &str, comment: &str, inputs: Inputs, why: &str) {
        let came = self.read(comment, &inputs);
        let reason = came.err().unwrap_or_else(|| panic!("{}/{name} was read", self.format));
        assert!(reason.contains(why), "{}/{name} was refused because: {reason}", self.format);
        self.put(&format!("refused_{name}"), comment, inputs, Outcome::Refused(reason));
    }

    fn read(&self, comment: &str, inputs: &Inputs) -> Result<String, String> {
        let outcome = Outcome::Result(String::new());
        (vectors::format_of(self.format).check)(&Case::new(comment, owned(inputs.clone()), outcome))
    }

    fn put(&self, name: &str, comment: &str, inputs: Inputs, outcome: Outcome) {
        let path = self.path.join(format!("{name}.txt"));
        assert!(!path.exists(), "{}/{name} is named twice", self.format);
        let case = Case::new(comment, owned(inputs), outcome);
        std::fs::write(path, case.to_string()).expect("the case can be written");
    }
}

fn owned(inputs: Inputs) -> Vec<(String, String)> {
    inputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Bytes as a case spells them.
fn hexed(bytes: impl AsRef<[u8]>) -> String {
    if bytes.as_ref().is_empty() { "-".to_owned() } else { hex::encode(bytes) }
}

/// A copy with some bytes flipped.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    copy[at] ^= 1;
    copy
}

/// A world whose randomness grows from a seed.
fn seeded(seed: &str) -> Env {
    let stream = blake3::Hasher::new_derive_key("rdrivefs vectors").update(seed.as_bytes()).clone();
    Env::of(Seeded(Arc::new(Mutex::new(stream.finalize_xof()))))
}

struct Seeded(Arc<Mutex<blake3::OutputReader>>);

impl World for Seeded {
    fn wall_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn instant(&self) -> Instant {
        Instant(0)
    }

    fn fill(&self, out: &mut [u8]) {
        self.0.lock().expect("nobody panics in here").fill(out);
    }
}
