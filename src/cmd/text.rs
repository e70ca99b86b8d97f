//! Sizes, times and UUIDs as people write them.

use cairn_types::{Fsid, OsdId};
use std::time::Duration;

/// Binary units, largest first.
const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes of `10GiB`, `512MiB`, `1.5TiB` or `4096`. Units are powers of 1024; `G` is short for `GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = || format!("`{text}` is not a size: write bytes or a unit of 1024, as 4096, 512MiB, 1.5TiB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let scale = match unit {
        "" | "B" => 1,
        unit => UNITS
            .iter()
            .find(|(name, _)| unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(&name[..1]))
            .map(|(_, scale)| *scale)
            .ok_or_else(wanted)?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wanted())?;
    let mut bytes = whole.checked_mul(scale).ok_or_else(|| format!("`{text}` is too large"))?;
    if number.contains('.') {
        // Thousandths are as fine as a size needs.
        if fraction.is_empty() || fraction.len() > 3 || scale == 1 {
            return Err(wanted());
        }
        let digits: u64 = fraction.parse().map_err(|_| wanted())?;
        let part = u128::from(scale) * u128::from(digits) / 10_u128.pow(fraction.len() as u32);
        bytes = bytes.checked_add(part as u64).ok_or_else(|| format!("`{text}` is too large"))?;
    }
    Ok(bytes)
}

/// `1.5 GiB`; bytes below 1 KiB.
pub fn size(bytes: u64) -> String {
    match UNITS.iter().find(|(_, scale)| bytes >= *scale) {
        None => format!("{bytes} B"),
        Some((name, scale)) if bytes.is_multiple_of(*scale) => format!("{} {name}", bytes / scale),
        Some((name, scale)) => format!("{:.2} {name}", bytes as f64 / *scale as f64),
    }
}

/// A cluster's number: a UUID, or its 32 hexadecimal digits alone.
pub fn parse_fsid(text: &str) -> Result<Fsid, String> {
    let wanted =
        |_| format!("`{text}` is not a UUID: 32 hexadecimal digits are wanted, in groups of 8-4-4-4-12");
    if text.len() == 32 && text.is_ascii() {
        let groups = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
        return groups.join("-").parse().map_err(wanted);
    }
    text.parse().map_err(wanted)
}

/// A time such as `10s`, `500ms` or `2m`; seconds without a unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("`{text}` is not a time: write it as 10s, 500ms or 2m");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| wanted())?;
    let unit_ms = match &text[split..] {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        _ => return Err(wanted()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wanted)
}

/// `osd.3`, or that it has no number yet.
pub fn osd(number: i32) -> String {
    if number < 0 { "not known yet".to_owned() } else { OsdId(number).to_string() }
}

/// A cluster's UUID, or that there is none yet.
pub fn cluster(fsid: Option<Fsid>) -> String {
    fsid.map_or_else(|| "not known yet".to_owned(), |fsid| fsid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_units_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("4KiB", 4096),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10g", 10 << 30),
            ("512MiB", 512 << 20),
            ("1.5TiB", 3 << 39),
            ("0.25KiB", 256),
            ("16383PiB", 16383 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "GiB",
            "-1",
            "+1",
            "1.",
            ".5GiB",
            "1.5",
            "1.5B",
            "10GB",
            "1 2",
            "1.2345GiB",
            "16384PiB",
            "1e3",
            "é",
        ] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (4096, "4 KiB"), (3 << 29, "1.50 GiB"), (1 << 40, "1 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_cluster_is_named_by_its_uuid_with_or_without_hyphens() {
        let text = "0d5f3a51-6f0e-4b36-8a36-3f2f6d1c9e70";
        for spelling in [text.to_owned(), text.replace('-', ""), text.to_uppercase()] {
            assert_eq!(parse_fsid(&spelling).map(|fsid| fsid.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0d5f", "0d5f3a516f0e4b368a363f2f6d1c9e7g", "0d5f3a516f-0e4b368a363f2f6d1c9e70", "é"]
        {
            assert!(parse_fsid(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, ms) in [("10s", 10_000), ("10", 10_000), ("500ms", 500), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "1.5s", "18446744073709551615s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }
}
