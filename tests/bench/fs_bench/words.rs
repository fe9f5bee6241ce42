//! The words of the command line: a command, `--flag VALUE`, `--flag`, and the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// What was said after the command.
#[derive(Debug, Default)]
pub(crate) struct Words {
    flags: BTreeMap<String, Vec<String>>,
    /// Whatever is no flag.
    pub(crate) rest: Vec<String>,
}

impl Words {
    /// Reads them; `valued` flags take the next word, `bare` ones none, and no others are known.
    pub(crate) fn parse(
        args: impl IntoIterator<Item = String>,
        valued: &[&str],
        bare: &[&str],
    ) -> Result<Self, String> {
        let mut words = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--") else {
                words.rest.push(arg);
                continue;
            };
            let value = match flag {
                _ if bare.contains(&flag) => String::new(),
                _ if valued.contains(&flag) => args.next().ok_or(format!("{arg} needs a value"))?,
                _ => return Err(format!("{arg} is not known here")),
            };
            words.flags.entry(flag.to_owned()).or_default().push(value);
        }
        Ok(words)
    }

    /// Whether a bare flag was said.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.contains_key(flag)
    }

    /// Every value of a flag.
    pub(crate) fn all(&self, flag: &str) -> &[String] {
        self.flags.get(flag).map_or(&[], Vec::as_slice)
    }

    /// The value of a flag, or another.
    pub(crate) fn or<T: FromStr>(&self, flag: &str, otherwise: T) -> Result<T, String> {
        let Some(text) = self.all(flag).last() else { return Ok(otherwise) };
        text.parse().map_err(|_| format!("--{flag} does not take {text:?}"))
    }

    /// A path, if one was given.
    pub(crate) fn path(&self, flag: &str) -> Option<PathBuf> {
        self.all(flag).last().map(PathBuf::from)
    }

    /// Numbers with commas between them.
    pub(crate) fn numbers(&self, flag: &str, otherwise: &[usize]) -> Result<Vec<usize>, String> {
        let Some(text) = self.all(flag).last() else { return Ok(otherwise.to_vec()) };
        let numbers = text.split(',').map(str::parse).collect::<Result<_, _>>();
        numbers.map_err(|_| format!("--{flag} does not take {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Words, String> {
        let args = line.split_whitespace().map(str::to_owned);
        Words::parse(args, &["sizes", "gib", "dir"], &["quick"])
    }

    #[test]
    fn words_are_understood_or_refused() {
        let words = parse("big --sizes 10,200 --quick --dir a=/x --dir b=/y").unwrap();
        assert_eq!(words.numbers("sizes", &[]).unwrap(), [10, 200]);
        assert_eq!(words.all("dir"), ["a=/x", "b=/y"]);
        assert_eq!((words.rest, words.flags.len()), (vec!["big".to_owned()], 3));
        assert!(parse("--slow").is_err() && parse("--gib").is_err());
        assert!(parse("--gib many").unwrap().or("gib", 1_u64).is_err());
    }
}
