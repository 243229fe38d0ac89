//! JSON as Kafka's tool reads it, with the words in which Jackson tells what is wrong and where. What comes after the
//! first value isn't looked at.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use super::json::Json;

/// How deep values may lie in others.
const MAX_DEPTH: usize = 1000;
/// Jackson's exceptions.
const PARSE: &str = "com.fasterxml.jackson.core.JsonParseException";
const END: &str = "com.fasterxml.jackson.core.io.JsonEOFException";
pub(super) const VALUES: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

/// Why a text can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n at {place}")]
pub struct JsonError {
    message: String,
    place: Place,
    /// Jackson's exception.
    pub class: &'static str,
}

/// Where something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    pub(super) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line:";
        write!(to, "{source} {}, column: {}]", self.line, self.column)
    }
}

/// Reads the first value of a text.
pub fn read(text: &str) -> Result<Json, JsonError> {
    let mut reader = Reader { rest: text.chars().peekable(), place: Place { line: 1, column: 1 } };
    reader.skip_blanks();
    let value = match reader.peek() {
        None => return Ok(Json::Missing),
        Some(close @ ('}' | ']')) => return reader.misplaced_close(close, None),
        Some(_) => reader.value(0)?,
    };
    match reader.peek() {
        Some(letter) if matches!(value, Json::Number(_)) && !letter.is_ascii_whitespace() => {
            reader.unexpected(letter, ": Expected space separating root-level values")
        }
        _ => Ok(value),
    }
}

/// What holds values.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Array(Place),
    Object(Place),
}

impl Holder {
    fn name(self) -> &'static str {
        match self {
            Holder::Array(_) => "Array",
            Holder::Object(_) => "Object",
        }
    }

    fn begin(self) -> Place {
        match self {
            Holder::Array(place) | Holder::Object(place) => place,
        }
    }

    fn close(self) -> char {
        match self {
            Holder::Array(_) => ']',
            Holder::Object(_) => '}',
        }
    }
}

/// What is left of a text.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) rest: Peekable<Chars<'a>>,
    pub(super) place: Place,
}

impl Reader<'_> {
    pub(super) fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        let ends_line = letter == '\n' || letter == '\r' && self.peek() != Some('\n');
        self.place = match ends_line {
            true => Place { line: self.place.line + 1, column: 1 },
            // Columns count the units of UTF-16.
            false => Place { column: self.place.column + letter.len_utf16(), ..self.place },
        };
        Some(letter)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|letter| matches!(letter, ' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> JsonError {
        JsonError { message: message.into(), place: self.place, class: PARSE }
    }

    /// The same at another place.
    pub(super) fn wrong_at(&self, place: Place, message: impl Into<String>) -> JsonError {
        JsonError { place, ..self.wrong(message) }
    }

    /// The next letter isn't what it should be.
    pub(super) fn unexpected<T>(&mut self, found: char, what: &str) -> Result<T, JsonError> {
        let comment = "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not \
                       enabled for parser)";
        let what = if found == '/' { format!(": {comment}") } else { what.to_owned() };
        Err(self.wrong(format!("Unexpected character ('{found}' (code {})){what}", u32::from(found))))
    }

    pub(super) fn end<T>(&self, what: &str) -> Result<T, JsonError> {
        let message = format!("Unexpected end-of-input{what}");
        Err(JsonError { class: END, ..self.wrong(message) })
    }

    /// After a comma.
    fn end_between<T>(&self, holder: Holder) -> Result<T, JsonError> {
        Err(self.wrong(format!("Unexpected end-of-input within/between {} entries", holder.name())))
    }

    fn unclosed<T>(&self, holder: Holder) -> Result<T, JsonError> {
        let (name, begin) = (holder.name(), holder.begin());
        self.end(&format!(": expected close marker for {name} (start marker at {begin})"))
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        let place = self.place;
        match self.peek() {
            Some('{' | '[') if depth == MAX_DEPTH => Err(self.wrong(format!(
                "Document nesting depth ({}) exceeds the maximum allowed ({MAX_DEPTH}, from \
                 `StreamReadConstraints.getMaxNestingDepth()`)",
                MAX_DEPTH + 1
            ))),
            Some('{') => self.object(Holder::Object(place), depth),
            Some('[') => self.array(Holder::Array(place), depth),
            Some('"') => self.string("was expecting closing quote for a string value").map(Json::String),
            Some('-' | '0'..='9') => self.number().map(Json::Number),
            Some('+') => self.plus(),
            Some(letter) if letter.is_alphabetic() => self.token(),
            Some(letter) => self.unexpected(letter, &format!(": expected a valid value {VALUES}")),
            None => self.end(""),
        }
    }

    /// A closing bracket that closes nothing of its kind.
    fn misplaced_close<T>(&self, found: char, holder: Option<Holder>) -> Result<T, JsonError> {
        let (name, what) = match (found, holder) {
            (_, Some(holder)) => {
                let (name, begin) = (holder.name(), holder.begin());
                (found, format!("expected '{}' (for {name} starting at {begin})", holder.close()))
            }
            ('}', None) => (found, "no open Object to close".to_owned()),
            (_, None) => (found, "no open Array to close".to_owned()),
        };
        Err(self.wrong(format!("Unexpected close marker '{name}': {what}")))
    }

    fn array(&mut self, holder: Holder, depth: usize) -> Result<Json, JsonError> {
        let mut items = Vec::new();
        self.next();
        self.skip_blanks();
        if self.peek() == Some(']') {
            self.next();
            return Ok(Json::Array(items));
        }
        loop {
            match self.peek() {
                None if items.is_empty() => return self.unclosed(holder),
                None => return self.end_between(holder),
                Some('}') if items.is_empty() => return self.misplaced_close('}', Some(holder)),
                Some('}') => return self.unexpected('}', ": expected a value"),
                Some(_) => items.push(self.value(depth + 1)?),
            }
            if self.is_last(holder)? {
                return Ok(Json::Array(items));
            }
        }
    }

    fn object(&mut self, holder: Holder, depth: usize) -> Result<Json, JsonError> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        self.next();
        self.skip_blanks();
        if self.peek() == Some('}') {
            self.next();
            return Ok(Json::Object(fields));
        }
        loop {
            match self.peek() {
                None if fields.is_empty() => return self.unclosed(holder),
                None => return self.end_between(holder),
                Some(']') if fields.is_empty() => return self.misplaced_close(']', Some(holder)),
                Some('"') => {}
                Some(letter) => return self.unexpected(letter, ": was expecting double-quote to start field name"),
            }
            let name = self.string("in field name")?;
            self.skip_blanks();
            match self.peek() {
                Some(':') => self.next(),
                Some(letter) => {
                    return self.unexpected(letter, ": was expecting a colon to separate field name and value");
                }
                None => return self.end(" within/between Object entries"),
            };
            self.skip_blanks();
            if self.peek().is_none() {
                return self.end(" within/between Object entries");
            }
            let value = self.value(depth + 1)?;
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => fields.push((name, value)),
            }
            if self.is_last(holder)? {
                return Ok(Json::Object(fields));
            }
        }
    }

    /// What follows an entry: a comma, or the end of its holder.
    fn is_last(&mut self, holder: Holder) -> Result<bool, JsonError> {
        self.skip_blanks();
        match self.peek() {
            Some(letter) if letter == holder.close() => {
                self.next();
                Ok(true)
            }
            Some(',') => {
                self.next();
                self.skip_blanks();
                Ok(false)
            }
            Some(letter @ (']' | '}')) => self.misplaced_close(letter, Some(holder)),
            Some(letter) => {
                self.unexpected(letter, &format!(": was expecting comma to separate {} entries", holder.name()))
            }
            None => self.unclosed(holder),
        }
    }
}
