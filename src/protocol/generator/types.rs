//! Writes struct definitions and their defaults.

use super::schema::{Field, Schema, Type};
use super::structs::Struct;
use serde_json::Value;
use std::fmt::Write as _;

/// The struct, and its `Default` where that isn't all zeros.
pub fn definition(message: &Schema, of: &Struct) -> String {
    let mut text = String::new();
    let derived = of.fields.iter().all(default_is_rusts);
    if of.name == message.name {
        writeln!(text, "/// `{}`, versions {}.", of.name, of.versions).unwrap();
    } else {
        writeln!(text, "/// `{}` in `{}`, versions {}.", of.name, message.name, of.versions).unwrap();
    }
    let default = if derived { ", Default" } else { "" };
    writeln!(text, "#[derive(Debug, Clone, PartialEq{default})]\npub struct {} {{", of.name).unwrap();
    for field in &of.fields {
        writeln!(text, "/// {}\npub {}: {},", describe(field), field.ident, rust_type(field)).unwrap();
    }
    text.push_str("}\n");
    if !derived {
        writeln!(text, "impl Default for {} {{\nfn default() -> Self {{\nSelf {{", of.name).unwrap();
        for field in &of.fields {
            writeln!(text, "{}: {},", field.ident, default_value(field)).unwrap();
        }
        text.push_str("}\n}\n}\n");
    }
    text
}

/// The doc comment: wire type, versions, and what else the schema says.
fn describe(field: &Field) -> String {
    let mut text =
        format!("`{}` {}, versions {}", field.name, field.wire_type.replace("[]", "array of "), field.versions);
    if let Some(tag) = field.tag {
        write!(text, ", tag {tag}").unwrap();
    }
    if let Some(nullable) = field.nullable {
        write!(text, ", nullable in {nullable}").unwrap();
    }
    if let Some(default) = &field.default {
        write!(text, ", default {default}").unwrap();
    }
    text + "."
}

/// The field's Rust type.
fn rust_type(field: &Field) -> String {
    let base = base_type(&field.ty);
    if is_option(field) { format!("Option<{base}>") } else { base }
}

/// Whether the Rust type has null: what is nullable in any version, and all records, whose default is null.
fn is_option(field: &Field) -> bool {
    field.nullable.is_some() || field.ty == Type::Records
}

fn base_type(ty: &Type) -> String {
    match ty {
        Type::Fixed { rust, .. } => (*rust).to_string(),
        Type::String => "StrBytes".to_string(),
        Type::Bytes => "Bytes".to_string(),
        Type::Records => "Records".to_string(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", base_type(element)),
    }
}

fn default_is_rusts(field: &Field) -> bool {
    if is_option(field) { field.default == Some(Value::Null) } else { field.default.is_none() }
}

/// The field's default as an expression.
pub fn default_value(field: &Field) -> String {
    let base = match (&field.default, &field.ty) {
        (Some(Value::Null), _) => return "None".to_string(),
        (Some(value), Type::Fixed { .. }) => value.to_string(),
        (Some(value), _) => panic!("{}: default {value}", field.name),
        (None, _) => "Default::default()".to_string(),
    };
    if is_option(field) { format!("Some({base})") } else { base }
}

/// An expression that tells whether `self`'s field has another value than its default.
pub fn differs_from_default(field: &Field) -> String {
    let ident = &field.ident;
    match (&field.ty, &field.default, field.nullable) {
        (_, Some(Value::Null), _) => format!("self.{ident}.is_some()"),
        (Type::Fixed { rust: "bool", .. }, Some(_), None) => format!("!self.{ident}"),
        (Type::Fixed { rust: "bool", .. }, None, None) => format!("self.{ident}"),
        (Type::Fixed { rust: "Uuid", .. }, None, None) => format!("!self.{ident}.is_zero()"),
        (Type::Fixed { rust: "f64", .. }, None, None) => format!("self.{ident} != 0.0"),
        (Type::Fixed { .. }, None, None) => format!("self.{ident} != 0"),
        (Type::Fixed { .. }, Some(value), None) => format!("self.{ident} != {value}"),
        (Type::Struct(name), None, None) => format!("self.{ident} != {name}::default()"),
        (Type::Struct(name), None, Some(_)) => format!("self.{ident} != Some({name}::default())"),
        (_, None, None) => format!("!self.{ident}.is_empty()"),
        (_, None, Some(_)) => format!("self.{ident}.as_ref().is_none_or(|value| !value.is_empty())"),
        (_, Some(value), _) => panic!("{}: default {value}", field.name),
    }
}
