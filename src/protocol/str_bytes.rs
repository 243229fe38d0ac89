//! Strings that share the buffer they were read from.

use bytes::Bytes;
use bytestring::ByteString;
use std::borrow::Borrow;

/// A UTF-8 string that is cheap to clone. One that was decoded keeps its whole request buffer alive: state that
/// outlives the request holds [`StrBytes::copy_from`] of it instead.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StrBytes(ByteString);

impl StrBytes {
    /// A copy with a buffer of its own.
    pub fn copy_from(text: &str) -> StrBytes {
        StrBytes(ByteString::from(text))
    }

    /// A string over a static one, without a buffer.
    pub const fn from_static(text: &'static str) -> StrBytes {
        StrBytes(ByteString::from_static(text))
    }

    /// The string that shares `bytes`.
    pub fn from_utf8(bytes: Bytes) -> Result<StrBytes, std::str::Utf8Error> {
        ByteString::try_from(bytes).map(StrBytes)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text's bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl std::ops::Deref for StrBytes {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for StrBytes {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StrBytes {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for StrBytes {
    fn from(text: &'static str) -> StrBytes {
        StrBytes::from_static(text)
    }
}

impl From<String> for StrBytes {
    fn from(text: String) -> StrBytes {
        StrBytes(ByteString::from(text))
    }
}

impl From<StrBytes> for String {
    fn from(text: StrBytes) -> String {
        text.as_str().to_string()
    }
}

impl PartialEq<str> for StrBytes {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for StrBytes {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl std::fmt::Display for StrBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self.as_str(), f)
    }
}

impl std::fmt::Debug for StrBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::StrBytes;
    use rustc_hash::FxHashMap;

    #[test]
    fn a_map_keyed_by_it_is_searched_by_text() {
        let map: FxHashMap<StrBytes, i32> = [(StrBytes::copy_from("topic"), 1)].into_iter().collect();
        assert_eq!(map.get("topic"), Some(&1));
        assert_eq!(map.get("other"), None);
    }
}
