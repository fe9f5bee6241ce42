//! Moments as people say them: `2026-11-25T18:00:00Z`, `2026-11-25 18:00`, `2h ago`,
//! `yesterday 18:00`.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::cli::places::duration_ms;

/// The moment in milliseconds since 1970; what names none is by the clock and the time zone here.
pub(super) fn moment_ms(text: &str) -> Result<u64, String> {
    moment_from(text, &Zoned::now())
}

fn moment_from(text: &str, now: &Zoned) -> Result<u64, String> {
    let text = text.trim();
    let none =
        || format!("'{text}' is no moment; say 2026-11-25T18:00:00Z, 2h ago or yesterday 18:00");
    let moment = if let Ok(moment) = text.parse::<Timestamp>() {
        moment
    } else if text == "now" {
        now.timestamp()
    } else if let Some(ago) = text.strip_suffix("ago") {
        let ms = duration_ms(&ago.replace(' ', ""))?;
        let ms = i64::try_from(ms).map_err(|_| none())?;
        now.timestamp().checked_sub(ms.milliseconds()).map_err(|_| none())?
    } else {
        let civil = civil(text, now).ok_or_else(none)?;
        now.time_zone().to_timestamp(civil).map_err(|_| none())?
    };
    u64::try_from(moment.as_millisecond()).map_err(|_| none())
}

/// A day, with or without a time of it.
fn civil(text: &str, now: &Zoned) -> Option<DateTime> {
    if let Ok(exact) = text.parse::<DateTime>() {
        return Some(exact);
    }
    let (day, time) = text.split_once(' ').unwrap_or((text, ""));
    let day: Date = match day {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        day => day.parse().ok()?,
    };
    let time = match time.trim() {
        "" => Time::midnight(),
        time => time.parse().ok()?,
    };
    Some(day.to_datetime(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_understood_as_people_say_them() {
        let now: Zoned = "2026-11-25T12:00:00+01:00[+01:00]".parse().unwrap();
        let at = |text: &str| moment_from(text, &now);
        let exact = |text: &str| {
            let moment: Timestamp = text.parse().unwrap();
            Ok(u64::try_from(moment.as_millisecond()).unwrap())
        };
        for (said, meant) in [
            ("2026-11-25T18:00:00Z", "2026-11-25T18:00:00Z"),
            ("2026-11-25T18:00:00+02:00", "2026-11-25T16:00:00Z"),
            ("2026-11-24 18:00", "2026-11-24T17:00:00Z"),
            ("2026-11-24 18:00:01", "2026-11-24T17:00:01Z"),
            ("2026-11-24", "2026-11-23T23:00:00Z"),
            ("2h ago", "2026-11-25T09:00:00Z"),
            ("90 s ago", "2026-11-25T10:58:30Z"),
            ("yesterday 18:00", "2026-11-24T17:00:00Z"),
            ("yesterday", "2026-11-23T23:00:00Z"),
            ("today 08:30", "2026-11-25T07:30:00Z"),
            ("now", "2026-11-25T11:00:00Z"),
        ] {
            assert_eq!(at(said), exact(meant), "{said}");
        }
        for said in ["", "soon", "2026-13-01", "25:00", "-2h ago", "1960-01-01"] {
            assert!(at(said).is_err(), "{said}");
        }
    }
}
