//! Colours, where they are wanted.

use std::io::IsTerminal as _;

use crate::cli::args::Common;

/// Whether to colour, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

/// What a word means to who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Head,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Paint {
    /// For standard output.
    pub(super) fn out(common: &Common) -> Self {
        Self(wanted(&common.color, std::io::stdout().is_terminal()))
    }

    /// For standard error.
    pub(super) fn err(color: &str) -> Self {
        Self(wanted(color, std::io::stderr().is_terminal()))
    }

    /// Never.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(false)
    }

    /// Whether anything is coloured.
    pub(super) fn is_on(self) -> bool {
        self.0
    }

    /// The text in its style.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => "",
            Style::Head => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
        };
        if self.0 && !code.is_empty() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// <https://no-color.org> and dumb terminals are heeded unless somebody says `always`.
fn wanted(color: &str, terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        "always" => true,
        "never" => false,
        _ => terminal && !refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_come_only_where_they_are_wanted() {
        assert!(wanted("always", false) && !wanted("never", true) && !wanted("auto", false));
        assert_eq!(Paint(true).paint(Style::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(Paint(true).paint(Style::Plain, "up"), "up");
        assert_eq!(Paint(false).paint(Style::Bad, "down"), "down");
    }
}
