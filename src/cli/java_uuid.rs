//! UUIDs as Java's decoder takes and refuses them. It is more patient than ours: bits that fall off the end may be set.

use ringlog_types::Uuid;

/// The longest text that is looked at: 16 bytes with their padding.
const MAX_LENGTH: usize = 24;

/// Reads URL-safe base64. The error is in the words of Kafka's tools.
pub fn parse(text: &str) -> Result<Uuid, String> {
    if text.encode_utf16().count() > MAX_LENGTH {
        let prefix: String = text.chars().take(MAX_LENGTH).collect();
        return Err(format!("Input string with prefix `{prefix}` is too long to be decoded as a base64 UUID"));
    }
    let bytes = decode(text)?;
    let length = bytes.len();
    let not_16 = |_| {
        format!(
            "Input string `{text}` decoded as {length} bytes, which is not equal to the expected 16 bytes of a \
             base64-encoded UUID"
        )
    };
    bytes.try_into().map(Uuid).map_err(not_16)
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    // Java reads the text as ISO-8859-1, and bytes are signed.
    let letters: Vec<u8> = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?')).collect();
    if letters.len() == 1 {
        return Err("Input byte[] should at least have 2 bytes for base64 bytes".to_owned());
    }
    let mut bytes = Vec::new();
    let (mut bits, mut filled) = (0u32, 0);
    let mut rest = letters.iter().copied();
    while let Some(letter) = rest.next() {
        if letter == b'=' {
            // Two letters need two of them, three one, and none may stand alone.
            if filled == 0 || filled == 2 && rest.next() != Some(b'=') {
                return Err("Input byte array has wrong 4-byte ending unit".to_owned());
            }
            break;
        }
        bits = bits << 6 | u32::from(value(letter).ok_or_else(|| illegal(letter))?);
        filled += 1;
        if filled == 4 {
            bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, filled) = (0, 0);
        }
    }
    match filled {
        0 => {}
        1 => return Err("Last unit does not have enough valid bits".to_owned()),
        2 => bytes.push((bits >> 4).to_be_bytes()[3]),
        _ => bytes.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
    }
    match rest.len() {
        0 => Ok(bytes),
        left => Err(format!("Input byte array has incorrect ending byte at {}", letters.len() - left)),
    }
}

fn value(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

fn illegal(letter: u8) -> String {
    let signed = letter.cast_signed();
    let sign = if signed < 0 { "-" } else { "" };
    format!("Illegal base64 character {sign}{:x}", signed.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_as_java_takes_them() {
        for text in ["dRzIH-JZUKJPhdqVcU5J_g", "dRzIH-JZUKJPhdqVcU5J_h", "dRzIH-JZUKJPhdqVcU5J_g=="] {
            assert_eq!(parse(text).map(|id| id.to_string()).as_deref(), Ok("dRzIH-JZUKJPhdqVcU5J_g"), "{text}");
        }
    }

    #[test]
    fn refusals_are_javas() {
        let decoded = |text: &str, length: usize| {
            format!(
                "Input string `{text}` decoded as {length} bytes, which is not equal to the expected 16 bytes of a \
                 base64-encoded UUID"
            )
        };
        let unit = "Input byte array has wrong 4-byte ending unit".to_owned();
        let bits = "Last unit does not have enough valid bits".to_owned();
        let short = "Input byte[] should at least have 2 bytes for base64 bytes".to_owned();
        let long = "Input string with prefix `dRzIH-JZUKJPhdqVcU5J_gab` is too long to be decoded as a base64 UUID";
        for (text, expected) in [
            ("", decoded("", 0)),
            ("a", short.clone()),
            ("=", short),
            ("ab", decoded("ab", 1)),
            ("ab==", decoded("ab==", 1)),
            ("abcde", bits.clone()),
            ("a=b", bits),
            ("ab=", unit.clone()),
            ("dRzIH-JZUKJPhdqVcU5J_g=x", unit),
            ("ab!e", "Illegal base64 character 21".to_owned()),
            ("abé", "Illegal base64 character -17".to_owned()),
            ("dRzIH-JZUKJPhdqVcU5J", decoded("dRzIH-JZUKJPhdqVcU5J", 15)),
            ("dRzIH-JZUKJPhdqVcU5J_gab", decoded("dRzIH-JZUKJPhdqVcU5J_gab", 18)),
            ("dRzIH-JZUKJPhdqVcU5J_gab!", long.to_owned()),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }
}
