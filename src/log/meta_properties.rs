//! `meta.properties` at the top of each log directory: which cluster, node and directory it is. Java properties.
//!
//! Version 1 is KRaft's: `cluster.id`, `node.id` and `directory.id` (KIP-858; older formatting tools left that one out).

use std::collections::BTreeMap;

use ringlog_types::{NodeId, TimestampMs, Uuid};

const VERSION: i32 = 1;

/// The content of a file of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's id: base64 of a UUID as a rule, but any text may be one.
    pub cluster_id: String,
    /// The node's id.
    pub node_id: NodeId,
    /// The directory's id; not there in files of Kafka before 3.7.
    pub directory_id: Option<Uuid>,
}

/// A file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaPropertiesError {
    /// An escape that isn't complete. Lines count from 1.
    #[error("malformed \\uxxxx escape on line {0} of meta.properties")]
    MalformedEscape(usize),
    /// A property that must be there.
    #[error("meta.properties has no {0}")]
    Missing(&'static str),
    /// A property whose value isn't of its type.
    #[error("meta.properties has {name}={value:?}, which is not valid")]
    Invalid {
        /// The property.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Version 0 is that of a cluster with ZooKeeper; others are unknown.
    #[error("meta.properties has version {0}, but only version 1 (KRaft) is supported")]
    UnsupportedVersion(i32),
}

impl MetaProperties {
    /// Reads a file's content. Properties that aren't known are left out.
    pub fn parse(bytes: &[u8]) -> Result<MetaProperties, MetaPropertiesError> {
        let properties = parse_properties(bytes)?;
        let get = |name: &'static str| properties.get(name).ok_or(MetaPropertiesError::Missing(name));
        let number = |name: &'static str| {
            let value = get(name)?;
            value.parse::<i32>().map_err(|_| MetaPropertiesError::Invalid { name, value: value.clone() })
        };
        let version = number("version")?;
        if version != VERSION {
            return Err(MetaPropertiesError::UnsupportedVersion(version));
        }
        let node_id = number("node.id")?;
        if node_id < 0 {
            return Err(MetaPropertiesError::Invalid { name: "node.id", value: node_id.to_string() });
        }
        let directory_id = match properties.get("directory.id") {
            None => None,
            Some(value) => {
                let id = value.parse::<Uuid>().ok().filter(|id| u128::from_be_bytes(id.0) >= Uuid::RESERVED_COUNT);
                let invalid = || MetaPropertiesError::Invalid { name: "directory.id", value: value.clone() };
                Some(id.ok_or_else(invalid)?)
            }
        };
        Ok(MetaProperties { cluster_id: get("cluster.id")?.clone(), node_id: NodeId(node_id), directory_id })
    }

    /// The file's content, with the comment lines that Java writes: an empty one and the date.
    pub fn format(&self, now: TimestampMs) -> String {
        let mut text = format!("#\n#{}\n", java_date(now));
        let mut put = |name: &str, value: &str| {
            escape(name, true, &mut text);
            text.push('=');
            escape(value, false, &mut text);
            text.push('\n');
        };
        put("node.id", &self.node_id.to_string());
        if let Some(id) = self.directory_id {
            put("directory.id", &id.to_string());
        }
        put("version", &VERSION.to_string());
        put("cluster.id", &self.cluster_id);
        text
    }
}

/// Writes a key or value as `java.util.Properties` stores it.
fn escape(text: &str, is_key: bool, out: &mut String) {
    for (index, unit) in text.encode_utf16().enumerate() {
        match char::from_u32(u32::from(unit)) {
            Some(' ') if is_key || index == 0 => out.push_str("\\ "),
            Some('\t') => out.push_str("\\t"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\x0c') => out.push_str("\\f"),
            Some(plain @ ('\\' | '=' | ':' | '#' | '!')) => out.extend(['\\', plain]),
            Some(plain @ ' '..='~') => out.push(plain),
            _ => out.push_str(&format!("\\u{unit:04X}")),
        }
    }
}

/// Reads Java properties: ISO-8859-1, `#` and `!` comments, `=`, `:` or white space after the key, lines continued by a
/// backslash. The last of equal keys counts.
fn parse_properties(bytes: &[u8]) -> Result<BTreeMap<String, String>, MetaPropertiesError> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut properties = BTreeMap::new();
    let mut lines = text.split('\n').enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_with_open_escape(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let (key, value) = split_property(&logical);
        let fault = MetaPropertiesError::MalformedEscape(number);
        let key = unescape(key).ok_or_else(|| fault.clone())?;
        properties.insert(key, unescape(value).ok_or(fault)?);
    }
    Ok(properties)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0c')
}

fn ends_with_open_escape(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split_property(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|character: char| {
        let ends = !escaped && (matches!(character, '=' | ':') || is_blank(character));
        escaped = character == '\\' && !escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(is_blank))
}

/// `None`: a `\u` escape without four hex digits, or half a surrogate pair.
fn unescape(text: &str) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let plain = match character {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    let digits = characters.as_str().get(..4)?;
                    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return None;
                    }
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    characters = characters.as_str()[4..].chars();
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

/// The date as `java.util.Date` writes it, in UTC: `Sun Nov 22 05:11:52 UTC 2026`.
fn java_date(now: TimestampMs) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.0.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that the leap day is the last; eras are 400 years of 146097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let (weekday, month) = (WEEKDAYS[days.rem_euclid(7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> MetaProperties {
        MetaProperties {
            cluster_id: " a=b:c#d!e\\f é𝄞\tg".to_owned(),
            node_id: NodeId(1),
            directory_id: Some("TuL3ztmWU-cEItk2vNcz0Q".parse().unwrap()),
        }
    }

    #[test]
    fn escapes_round_trip() {
        let text = sample().format(TimestampMs(0));
        assert!(text.is_ascii());
        assert!(text.contains("cluster.id=\\ a\\=b\\:c\\#d\\!e\\\\f \\u00E9\\uD834\\uDD1E\\tg\n"), "{text}");
        assert_eq!(MetaProperties::parse(text.as_bytes()), Ok(sample()));
    }

    #[test]
    fn every_form_of_java_properties_is_read() {
        let text = "! comment\r\n  version : 1\r node.id   7\ncluster.id = ab\\\n   cd\\u0041 \nother\nnode.id=8\n";
        let read = MetaProperties::parse(text.as_bytes()).unwrap();
        assert_eq!(read, MetaProperties { cluster_id: "abcdA ".into(), node_id: NodeId(8), directory_id: None });
    }

    #[test]
    fn faults_are_found() {
        let fault = |text: &str| MetaProperties::parse(text.as_bytes()).unwrap_err();
        assert_eq!(fault(""), MetaPropertiesError::Missing("version"));
        assert_eq!(fault("version=0\nbroker.id=1"), MetaPropertiesError::UnsupportedVersion(0));
        assert_eq!(fault("version=1\nnode.id=1"), MetaPropertiesError::Missing("cluster.id"));
        assert_eq!(fault("version=1\ncluster.id=x\\u12"), MetaPropertiesError::MalformedEscape(2));
        for (name, value) in [("node.id", "-1"), ("node.id", "x"), ("directory.id", "AAAAAAAAAAAAAAAAAAAAAA")] {
            let text = format!("version=1\ncluster.id=c\nnode.id=1\n{name}={value}");
            assert_eq!(fault(&text), MetaPropertiesError::Invalid { name, value: value.into() });
        }
    }

    #[test]
    fn dates_are_those_of_java() {
        assert_eq!(java_date(TimestampMs(0)), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(java_date(TimestampMs(1_795_324_312_000)), "Sun Nov 22 05:11:52 UTC 2026");
        assert_eq!(java_date(TimestampMs(951_782_400_000)), "Tue Feb 29 00:00:00 UTC 2000");
    }
}
