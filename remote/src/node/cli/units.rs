//! Sizes and spans of time as people write them.

use std::str::FromStr;

/// Bytes: `4096`, `10G` and `10GiB` (both powers of 1,024), `10GB` (powers of 1,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// Milliseconds: `90s`, `15m`, `12h`, `30d`, `2w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let (letter, base) = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => ('b', 1u64),
            unit => {
                let letter = unit.chars().next().expect("not empty");
                match &unit[letter.len_utf8()..] {
                    "" | "i" | "ib" => (letter, 1024),
                    "b" => (letter, 1000),
                    _ => return Err(format!("'{text}' is not a size such as 10G or 500MiB")),
                }
            }
        };
        let power = "bkmgtp".find(letter).and_then(|at| u32::try_from(at).ok());
        let power = power.ok_or_else(|| format!("'{text}' has a unit nobody knows"))?;
        let bytes = base.checked_pow(power).and_then(|unit| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| format!("'{text}' is too large"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let seconds: u64 = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            "" if number == 0 => 0,
            _ => return Err(format!("'{text}' is not a time such as 90s, 12h or 30d")),
        };
        let ms = number.checked_mul(seconds).and_then(|s| s.checked_mul(1000));
        ms.map(Self).ok_or_else(|| format!("'{text}' is too long"))
    }
}

/// Bytes as people read them, to three digits.
pub(super) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.2} {unit}"),
        _ if value < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().map_err(|_| format!("'{text}' begins with no number"))?;
    Ok((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10gb", 10_000_000_000),
            ("3k", 3072),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "10X", "10GG", "99999999P", "1é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        assert_eq!("30d".parse::<Span>(), Ok(Span(30 * 86_400_000)));
        assert_eq!("2h".parse::<Span>(), Ok(Span(7_200_000)));
        assert_eq!("0".parse::<Span>(), Ok(Span(0)));
        for text in ["", "5", "h", "2y", "-1d", "999999999999999999w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_three_digits() {
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.50 KiB");
        assert_eq!(human(200 << 30), "200 GiB");
    }
}
