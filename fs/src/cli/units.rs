//! Numbers and times as people read them.

use jiff::{Timestamp, tz::TimeZone};

/// A number of bytes in powers of 1024.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 file`, `2 files`.
pub(super) fn things(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// How long something took or lies back: the largest unit that fits.
pub(super) fn span(ms: u64) -> String {
    let secs = ms / 1_000;
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// When something was, seen from `now_ms`; a time to come is shown as such, for a clock is wrong.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.checked_sub(then_ms) {
        Some(0..5_000) => "just now".into(),
        Some(past) => format!("{} ago", span(past)),
        None => format!("in {}", span(then_ms - now_ms)),
    }
}

/// A time in this computer's zone, to the minute.
pub(super) fn local(secs: i64) -> String {
    let Ok(time) = Timestamp::from_second(secs) else { return "?".into() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([bytes(0), bytes(1_023), bytes(1_536)], ["0 B", "1023 B", "1.5 KiB"]);
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!([count(7), count(1_000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([things(1, "file"), things(1_000, "file")], ["1 file", "1,000 files"]);
        assert_eq!([span(59_999), span(60_000), span(7_200_000)], ["59 s", "1 min", "2 h"]);
        assert_eq!(span(86_400_000 * 3), "3 days");
        assert_eq!([ago(1_000, 2_000), ago(0, 120_000)], ["just now", "2 min ago"]);
        assert_eq!(ago(3_600_000, 0), "in 1 h");
    }

    #[test]
    fn times_are_minutes_of_the_zone() {
        assert_eq!(local(0).len(), "1970-01-01 00:00".len());
        assert_eq!(local(i64::MAX), "?");
    }
}
