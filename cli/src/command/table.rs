//! Lists for people: columns, and how long ago something was.

use std::fmt;
use std::time::SystemTime;

use console::measure_text_width;

/// Columns as wide as their widest field.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// With a heading.
    pub(crate) fn new(heading: &[&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    /// One line.
    pub(crate) fn row(&mut self, fields: [String; N]) {
        self.rows.push(fields);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, field) in widths.iter_mut().zip(row) {
                *width = measure_text_width(field).max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, field) in widths.iter().zip(row) {
                line.push_str(field);
                line.push_str(&" ".repeat(width - measure_text_width(field) + 3));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// How long ago an RFC 3339 time was, in the largest unit of which it was two or more.
pub(crate) fn age(created: Option<&str>, now: SystemTime) -> String {
    let Some(created) = created.and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "-".to_owned();
    };
    since(created, now)
}

/// The same for a time.
pub(crate) fn age_of(time: SystemTime, now: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or("-".to_owned(), |time| since(time, now))
}

fn since(time: jiff::Timestamp, now: SystemTime) -> String {
    let now = jiff::Timestamp::try_from(now).unwrap_or_default().as_second();
    let seconds = now.saturating_sub(time.as_second());
    if seconds < 0 {
        return "in the future".to_owned();
    }
    const UNITS: [(i64, &str); 6] = [
        (365 * 86_400, "years"),
        (30 * 86_400, "months"),
        (7 * 86_400, "weeks"),
        (86_400, "days"),
        (3600, "hours"),
        (60, "minutes"),
    ];
    match UNITS.iter().find(|(length, _)| seconds >= 2 * length) {
        Some((length, name)) => format!("{} {name} ago", seconds / length),
        None => format!("{seconds} seconds ago"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["größe".into(), "1MB".into()]);
        table.row(["a-long-name".into(), "12MB".into()]);
        insta::assert_snapshot!(table.to_string(), @"
        NAME          SIZE
        größe         1MB
        a-long-name   12MB
        ");
    }

    #[test]
    fn ages_are_in_units_that_people_use() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let cases = [
            (Some("2023-11-14T22:13:20Z"), "0 seconds ago"),
            (Some("2023-11-14T22:12:00Z"), "80 seconds ago"),
            (Some("2023-11-14T20:13:20Z"), "2 hours ago"),
            (Some("2023-11-01T00:00:00+01:00"), "13 days ago"),
            (Some("1970-01-01T00:00:00Z"), "53 years ago"),
            (Some("2030-01-01T00:00:00Z"), "in the future"),
            (Some("0001-01-01T00:00:00Z"), "2024 years ago"),
            (Some("nonsense"), "-"),
            (None, "-"),
        ];
        for (created, expected) in cases {
            assert_eq!(age(created, now), expected, "{created:?}");
        }
    }
}
