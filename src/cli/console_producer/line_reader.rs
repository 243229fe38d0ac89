//! Lines of standard input become records, as Kafka's `LineMessageReader` makes them.

use std::collections::BTreeMap;

use ringlog_client::NewRecord;

/// Keys, and values or null.
type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// How lines are taken apart. Bytes stay bytes: nothing has to be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineReader {
    parse_key: bool,
    parse_headers: bool,
    ignore_error: bool,
    key_separator: Vec<u8>,
    headers_delimiter: Vec<u8>,
    headers_separator: Vec<u8>,
    headers_key_separator: Vec<u8>,
    null_marker: Option<Vec<u8>>,
}

impl LineReader {
    /// From `--reader-property` keys. Others are for readers of one's own and not used.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<LineReader, String> {
        let flag = |key: &str| properties.get(key).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let bytes = |key: &str, default: &str| properties.get(key).map_or(default, String::as_str).as_bytes().to_vec();
        let reader = LineReader {
            parse_key: flag("parse.key"),
            parse_headers: flag("parse.headers"),
            ignore_error: flag("ignore.error"),
            key_separator: bytes("key.separator", "\t"),
            headers_delimiter: bytes("headers.delimiter", "\t"),
            headers_separator: bytes("headers.separator", ","),
            headers_key_separator: bytes("headers.key.separator", ":"),
            null_marker: properties.get("null.marker").map(|marker| marker.as_bytes().to_vec()),
        };
        reader.check()?;
        Ok(reader)
    }

    fn check(&self) -> Result<(), String> {
        let names = [
            ("headers.delimiter", &self.headers_delimiter),
            ("headers.separator", &self.headers_separator),
            ("headers.key.separator", &self.headers_key_separator),
            ("key.separator", &self.key_separator),
        ];
        let same = |a: usize, b: usize| match names[a].1 == names[b].1 {
            true => Err(format!("{} and {} may not be equal", names[a].0, names[b].0)),
            false => Ok(()),
        };
        same(0, 1)?;
        same(0, 2)?;
        same(1, 2)?;
        match names.iter().find(|(_, bytes)| self.null_marker.as_ref() == Some(bytes)) {
            Some((name, _)) => Err(format!("null.marker and {name} may not be equal")),
            None => Ok(()),
        }
    }

    /// The record that a line is. `number` counts from 1.
    pub fn parse(&self, line: &[u8], number: u64) -> Result<NewRecord, String> {
        let mut rest = line;
        let mut record = NewRecord::default();
        let missing =
            |what: &str| format!("No {what} found on line number {number}: '{}'", String::from_utf8_lossy(line));
        if self.parse_headers {
            match split(rest, &self.headers_delimiter) {
                Some((headers, after)) => {
                    rest = after;
                    if Some(headers) != self.null_marker.as_deref() {
                        record.headers = self.headers(headers, number)?;
                    }
                }
                None if self.ignore_error => {}
                None => return Err(missing("headers delimiter")),
            }
        }
        if self.parse_key {
            match split(rest, &self.key_separator) {
                Some((key, after)) => {
                    rest = after;
                    record.key = self.nullable(key);
                }
                None if self.ignore_error => {}
                None => return Err(missing("key separator")),
            }
        }
        record.value = self.nullable(rest);
        Ok(record)
    }

    fn nullable(&self, field: &[u8]) -> Option<Vec<u8>> {
        (self.null_marker.as_deref() != Some(field)).then(|| field.to_vec())
    }

    fn headers(&self, text: &[u8], number: u64) -> Result<Headers, String> {
        let mut headers = Vec::new();
        let mut rest = Some(text);
        while let Some(pairs) = rest {
            let (pair, after) = match split(pairs, &self.headers_separator) {
                Some((pair, after)) => (pair, Some(after)),
                None => (pairs, None),
            };
            rest = after;
            let (key, value) = match split(pair, &self.headers_key_separator) {
                Some((key, value)) => (key, self.nullable(value)),
                None if self.ignore_error => (pair, None),
                None => {
                    let pair = String::from_utf8_lossy(pair);
                    return Err(format!("No header key separator found in pair '{pair}' on line number {number}"));
                }
            };
            if self.nullable(key).is_none() {
                let pair = String::from_utf8_lossy(pair);
                return Err(format!(
                    "Header keys should not be equal to the null marker '{pair}' as they can't be null"
                ));
            }
            headers.push((key.to_vec(), value));
        }
        Ok(headers)
    }
}

/// At the first place where `separator` stands.
fn split<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    // Nothing stands before everything, as in Java.
    let at = match separator.is_empty() {
        true => 0,
        false => text.windows(separator.len()).position(|window| window == separator)?,
    };
    Some((&text[..at], &text[at + separator.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(properties: &[(&str, &str)]) -> Result<LineReader, String> {
        LineReader::new(&properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn a_line_is_a_value_unless_told_otherwise() {
        let record = reader(&[]).unwrap().parse(b"a\tb", 1).unwrap();
        assert_eq!((record.key, record.value), (None, Some(b"a\tb".to_vec())));
    }

    #[test]
    fn headers_key_and_value_are_split_in_this_order() {
        let reader = reader(&[("parse.key", "true"), ("parse.headers", "true"), ("null.marker", "NULL")]).unwrap();
        let record = reader.parse(b"h1:v1,h2:NULL\tk\tv\tw", 1).unwrap();
        let headers = vec![(b"h1".to_vec(), Some(b"v1".to_vec())), (b"h2".to_vec(), None)];
        assert_eq!(record.headers, headers);
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k"[..]), Some(&b"v\tw"[..])));
        let tombstone = reader.parse(b"NULL\tk\tNULL", 2).unwrap();
        assert_eq!((tombstone.headers.len(), tombstone.value), (0, None));
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let keyed = reader(&[("parse.key", "true"), ("key.separator", ":")]).unwrap();
        assert_eq!(keyed.parse(b"xx", 3).unwrap_err(), "No key separator found on line number 3: 'xx'");
        let lenient = reader(&[("parse.key", "true"), ("ignore.error", "true")]).unwrap();
        assert_eq!(lenient.parse(b"xx", 1).unwrap().value.as_deref(), Some(&b"xx"[..]));
        let headers = reader(&[("parse.headers", "true")]).unwrap();
        let fault = headers.parse(b"h1\tv", 7).unwrap_err();
        assert_eq!(fault, "No header key separator found in pair 'h1' on line number 7");
        assert!(reader(&[("headers.separator", ":")]).is_err());
    }
}
