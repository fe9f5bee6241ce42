//! Words and numbers out of a report.

use serde_json::Value;

use crate::cli::units;

/// A value as text that no terminal takes for a command: control characters are written `\xNN`,
/// as bytes that are no UTF-8 are already.
pub(super) fn text(value: &Value) -> String {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c.is_control() {
            true => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

/// A number; 0 where there is none.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A number of bytes.
pub(super) fn bytes(value: &Value) -> String {
    units::bytes(number(value))
}

/// The elements of a list.
pub(super) fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The beginning of an id.
pub(super) fn short(value: &Value) -> String {
    text(value).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let value = Value::String("a\u{1b}[31mb\nc\\xff".into());
        assert_eq!(text(&value), "a\\x1b[31mb\\x0ac\\xff");
        assert_eq!(text(&Value::Null), "null");
    }
}
