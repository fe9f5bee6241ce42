//! A path of the drive, as JSON can carry it whatever its bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path of the drive beginning with `/`, of any bytes but NUL.
///
/// In JSON it is a string in which every byte that is not part of valid UTF-8, and the backslash
/// itself, is written as `\xNN`: no two paths look the same, and each can be read back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DrivePath(pub Vec<u8>);

impl fmt::Display for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for (i, part) in chunk.valid().split('\\').enumerate() {
                f.write_str(if i == 0 { "" } else { "\\x5c" })?;
                f.write_str(part)?;
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrivePath({self})")
    }
}

impl Serialize for DrivePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DrivePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a bad \\x escape"))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\\');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.strip_prefix('x')?.get(..2)?;
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
        bytes.extend_from_slice(&part.as_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_json_whatever_their_bytes() {
        let all: Vec<u8> = (1..=255).collect();
        for path in [&b"/plain"[..], b"/\xff\xfe", b"/a\\x41", "/ä\u{1f600}".as_bytes(), &all] {
            let json = serde_json::to_string(&DrivePath(path.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<DrivePath>(&json).unwrap().0, path, "{json}");
        }
        let json = serde_json::to_string(&DrivePath(b"/\xff\\".to_vec())).unwrap();
        assert_eq!(json, r#""/\\xff\\x5c""#);
    }

    #[test]
    fn bad_escapes_are_refused() {
        for text in [r#""\\""#, r#""\\n""#, r#""\\x""#, r#""\\x4""#, r#""\\x+4""#, r#""\\xg0""#] {
            assert!(serde_json::from_str::<DrivePath>(text).is_err(), "{text}");
        }
    }
}
