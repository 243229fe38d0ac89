//! `server.properties`: the file format, the command line's overrides, and writing.

use java_properties::{LineEnding, PropertiesError, PropertiesIter, PropertiesWriter};

use crate::ConfigMap;

/// Text that isn't a properties file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesFormatError {
    /// The parser's reason.
    #[error("{reason}{}", .line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Malformed {
        /// What is wrong.
        reason: String,
        /// Where, counted from 1.
        line: Option<usize>,
    },
    /// More text than any configuration has.
    #[error("the properties file has {0} bytes; at most {MAX_FILE_BYTES} are read")]
    TooLarge(usize),
}

/// An `--override` without a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid command line properties: {0}")]
pub struct OverrideError(pub String);

/// The largest properties file read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// Reads properties text as `java.util.Properties` does: ISO-8859-1 with `\uXXXX` escapes, `#` and `!` comments,
/// continued lines, `=`, `:` or blanks between key and value. Of a repeated key the last value holds.
pub fn parse(text: &[u8]) -> Result<ConfigMap, PropertiesFormatError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(PropertiesFormatError::TooLarge(text.len()));
    }
    let mut map = ConfigMap::new();
    let mut insert = |key, value| drop(map.insert(key, value));
    PropertiesIter::new(text).read_into(&mut insert).map_err(|error: PropertiesError| {
        PropertiesFormatError::Malformed { reason: error.to_string(), line: error.line_number() }
    })?;
    Ok(map)
}

/// Applies the command line's `--override KEY=VALUE` arguments in order: each replaces what the file says. The value
/// may hold further `=`; without any `=` it is empty, as in Kafka.
pub fn apply_overrides<S: AsRef<str>>(map: &mut ConfigMap, overrides: &[S]) -> Result<(), OverrideError> {
    for argument in overrides {
        let argument = argument.as_ref();
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        if key.is_empty() {
            return Err(OverrideError(argument.to_owned()));
        }
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(())
}

/// Writes properties text that [`parse`] and Java read back to the same map, keys in order. `comment` goes first, a
/// line for each of its lines.
pub fn write(map: &ConfigMap, comment: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut writer = PropertiesWriter::new(&mut text);
    writer.set_line_ending(LineEnding::LF);
    let written = comment
        .lines()
        .try_for_each(|line| writer.write_comment(line))
        .and_then(|()| map.iter().try_for_each(|(key, value)| writer.write(key, value)))
        .and_then(|()| writer.finish());
    written.expect("memory can be written, and characters outside ISO-8859-1 are escaped");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_what_java_reads() {
        let text = b"# comment\n! other\n\n a = 1 \nb:2\nc 3\nd=one,\\\n   two\ne=\nf\ng=\\u00e9\\t|\nh=caf\xe9\na=2\npath=C:\\\\x\nu=http\\://x\r\nlast=x";
        let expected = map(&[
            ("a", "2"),
            ("b", "2"),
            ("c", "3"),
            ("d", "one,two"),
            ("e", ""),
            ("f", ""),
            ("g", "é\t|"),
            ("h", "café"),
            ("last", "x"),
            ("path", "C:\\x"),
            ("u", "http://x"),
        ]);
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(b"a=1 \n").expect("properties")["a"], "1 ", "blanks after a value belong to it");
    }

    #[test]
    fn refuses_a_broken_escape_and_an_endless_file() {
        assert!(matches!(parse(b"a=1\nb=\\u00zz"), Err(PropertiesFormatError::Malformed { line: Some(2), .. })));
        let endless = vec![b'#'; MAX_FILE_BYTES + 1];
        assert_eq!(parse(&endless), Err(PropertiesFormatError::TooLarge(MAX_FILE_BYTES + 1)));
    }

    #[test]
    fn overrides_replace_and_keep_later_equal_signs() {
        let mut properties = map(&[("a", "1"), ("b", "2")]);
        apply_overrides(&mut properties, &["a=x=y", "c=", "d"]).expect("overrides");
        assert_eq!(properties, map(&[("a", "x=y"), ("b", "2"), ("c", ""), ("d", "")]));
        for bad in ["=1", ""] {
            assert_eq!(apply_overrides(&mut properties, &[bad]), Err(OverrideError(bad.to_owned())));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let properties = map(&[("a b", " x "), ("c", "é→\n#"), ("d", "")]);
        let text = write(&properties, "first\nsecond");
        assert!(text.starts_with(b"# first\n# second\n"), "{}", String::from_utf8_lossy(&text));
        assert_eq!(parse(&text), Ok(properties));
    }
}
