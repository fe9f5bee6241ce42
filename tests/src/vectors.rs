//! Vectors: for every format small text files, each with bytes and what must come of them.
//!
//! `tests/vectors/FORMAT/CASE.txt` is a comment that says what the case is about, the inputs as
//! `name: value` (bytes in hexadecimal, a name may come several times), and the outcome: either
//! `result: …`, what the bytes mean, or `refused: …`, the whole sentence of the refusal. Most must
//! be refused. `cargo run -p rdrivefs-tests --example make_vectors` writes them, the same every
//! time; what reads them here shares no code with it but this module.
//!
//! A format is added by a function here, a line in [`FORMATS`] and a folder.

mod blobs;
mod case;
mod keys;
mod layers;
mod logs;
mod members;
mod pairings;

pub use case::{Case, Outcome};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a reader makes of a case: the meaning of its bytes, or why it refuses them.
pub type Check = fn(&Case) -> Result<String, String>;

/// A format that has vectors.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Its folder.
    pub name: &'static str,
    /// Its reader.
    pub check: Check,
    /// Cases that must be there to be read.
    pub valid_min: usize,
    /// Cases that must be there to be refused.
    pub refused_min: usize,
}

/// Every format that has vectors.
pub const FORMATS: &[Format] = &[
    format("phrase", keys::phrase),
    format("keybag", keys::keybag),
    format("wrap", keys::wrap),
    format("entry", logs::entry),
    format("record", logs::record),
    format("commit", logs::commit),
    format("layer", layers::layer),
    format("member", members::member),
    format("pairing", pairings::pairing),
    format("slice", blobs::slice),
    // Whatever the bytes, they have cuts: nothing is refused.
    Format { name: "cut", check: blobs::cut, valid_min: 10, refused_min: 0 },
];

const fn format(name: &'static str, check: Check) -> Format {
    Format { name, check, valid_min: 10, refused_min: 25 }
}

/// Where the vectors lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// The format of this name.
///
/// # Panics
/// When there is none.
pub fn format_of(name: &str) -> Format {
    let found = FORMATS.iter().find(|format| format.name == name);
    *found.unwrap_or_else(|| panic!("no reader for {name}"))
}

/// Reads all cases in a folder and says everything that is wrong with them: cases that come out
/// otherwise, and too few of them.
pub fn check_folder(folder: &Path, format: Format) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut valid, mut refused) = (0, 0);
    for path in files(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        match Case::parse(&text).and_then(|case| check_case(&case, format.check).map(|()| case)) {
            Err(why) => wrong.push(format!("{name}: {why}")),
            Ok(case) if matches!(case.outcome, Outcome::Result(_)) => valid += 1,
            Ok(_) => refused += 1,
        }
    }
    let Format { valid_min, refused_min, .. } = format;
    if valid < valid_min || refused < refused_min {
        let came = format!("{valid} cases read and {refused} refused");
        wrong.push(format!("{came}, where {valid_min} and {refused_min} are to be"));
    }
    wrong
}

fn check_case(case: &Case, check: Check) -> Result<(), String> {
    let came = match check(case) {
        Ok(result) => Outcome::Result(result),
        Err(reason) => Outcome::Refused(reason),
    };
    if came != case.outcome {
        return Err(format!("expected {:?}, came {came:?}", case.outcome));
    }
    let unread = case.unread();
    if !unread.is_empty() {
        return Err(format!("inputs that nothing reads: {unread:?}"));
    }
    Ok(())
}

/// The cases in a folder, in order.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Folders of vectors that no reader knows.
pub fn strays() -> Vec<String> {
    let known = |name: &str| FORMATS.iter().any(|format| format.name == name);
    let names = files(&folder())
        .into_iter()
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    names.filter(|name| !known(name)).collect()
}
