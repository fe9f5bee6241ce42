//! One case: its inputs by name, and the outcome.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

/// What must come of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes mean this.
    Result(String),
    /// The bytes are refused with this sentence.
    Refused(String),
}

/// One file of vectors.
#[derive(Debug)]
pub struct Case {
    /// What it is about.
    pub comment: String,
    /// What must come of it.
    pub outcome: Outcome,
    inputs: Vec<(String, String)>,
    read: RefCell<BTreeSet<String>>,
}

impl Case {
    /// A case from its parts.
    pub fn new(comment: &str, inputs: Vec<(String, String)>, outcome: Outcome) -> Self {
        Self { comment: comment.to_owned(), outcome, inputs, read: RefCell::default() }
    }

    /// Reads the text of a case.
    ///
    /// # Errors
    /// What is no line of a case, or that it has no comment or not one outcome.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut comment, mut inputs, mut outcomes) = (String::new(), Vec::new(), Vec::new());
        for line in text.lines() {
            if let Some(more) = line.strip_prefix("# ") {
                comment.push_str(more);
                continue;
            }
            let pair = line.split_once(": ");
            let (name, value) = pair.ok_or_else(|| format!("no line of a case: {line}"))?;
            match name {
                "result" => outcomes.push(Outcome::Result(value.to_owned())),
                "refused" => outcomes.push(Outcome::Refused(value.to_owned())),
                _ => inputs.push((name.to_owned(), value.to_owned())),
            }
        }
        match <[Outcome; 1]>::try_from(outcomes) {
            Ok([outcome]) if !comment.is_empty() => Ok(Self::new(&comment, inputs, outcome)),
            _ => Err("a case has a comment and one outcome".to_owned()),
        }
    }

    /// The one value of this name, if it is there.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.read.borrow_mut().insert(name.to_owned());
        self.inputs.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn text(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("a case without {name}"))
    }

    /// The bytes of this name; `-` stands for none.
    ///
    /// # Panics
    /// When there is no such input, or it is not hexadecimal.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(self.text(name))
    }

    /// The `N` bytes of this name.
    ///
    /// # Panics
    /// When there is no such input, or it has not `N` bytes.
    pub fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap_or_else(|_| panic!("{name} has not {N} bytes"))
    }

    /// The names of inputs nobody asked for.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let unread = self.inputs.iter().filter(|(name, _)| !read.contains(name));
        unread.map(|(name, _)| name.clone()).collect()
    }
}

/// Bytes from hexadecimal digits; `-` stands for none.
///
/// # Panics
/// When they are not.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    hex::decode(text).unwrap_or_else(|e| panic!("not hexadecimal ({e}): {text}"))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.comment)?;
        for (name, value) in &self.inputs {
            writeln!(f, "{name}: {value}")?;
        }
        match &self.outcome {
            Outcome::Result(result) => writeln!(f, "result: {result}"),
            Outcome::Refused(reason) => writeln!(f, "refused: {reason}"),
        }
    }
}
