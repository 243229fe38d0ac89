//! Values of JSON, shown as Jackson shows them.

use std::fmt;

use super::json_reader::{self, JsonError};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// There was nothing at all.
    Missing,
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// A text.
    String(String),
    /// Values.
    Array(Vec<Json>),
    /// Values by name, in their order; of several of one name the last counts.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads the first value of a text.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        json_reader::read(text)
    }
}

/// As Jackson writes it.
impl fmt::Display for Json {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Missing => Ok(()),
            Json::Null => to.write_str("null"),
            Json::Bool(value) => write!(to, "{value}"),
            Json::Number(text) if text.contains(['.', 'e', 'E']) => to.write_str(&java_double(text)),
            Json::Number(text) => to.write_str(text),
            Json::String(text) => write_string(text, to),
            Json::Array(items) => {
                to.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(to, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                to.write_str("]")
            }
            Json::Object(fields) => {
                to.write_str("{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    to.write_str(if at == 0 { "" } else { "," })?;
                    write_string(name, to)?;
                    write!(to, ":{value}")?;
                }
                to.write_str("}")
            }
        }
    }
}

fn write_string(text: &str, to: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(to, "{}", serde_json::Value::from(text))
}

/// A number as Java shows a double.
fn java_double(text: &str) -> String {
    let number: f64 = text.parse().unwrap_or(f64::INFINITY);
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let shown = format!("{number:E}");
    match shown.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => shown,
    }
}
