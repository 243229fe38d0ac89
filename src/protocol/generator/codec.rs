//! Writes each struct's reading and writing, as calls of `crate::codec`.

use super::schema::{Field, Schema, Type, Versions};
use super::structs::{Struct, min_size};
use super::types::differs_from_default;
use std::fmt::Write as _;

/// `impl Message`: what the top struct has over the others.
pub fn message(message: &Schema) -> String {
    let Schema { name, versions, flexible_from, .. } = message;
    let flexible = flexible_from.map_or("i16::MAX".to_string(), |from| from.to_string());
    format!(
        "impl Message for {name} {{\nconst NAME: &'static str = \"{name}\";\nconst MIN_VERSION: i16 = {};\n\
         const MAX_VERSION: i16 = {};\nconst FLEXIBLE_FROM: i16 = {flexible};\n}}\n",
        versions.min, versions.max,
    )
}

/// `impl Fields` for a struct.
pub fn implementation(message: &Schema, of: &Struct, all: &[Struct]) -> String {
    let min_size = min_size(message, of, all);
    let is_top = of.name == message.name;
    assert!(min_size > 0 || is_top, "{} in {} can be empty: an array of it has no bound", of.name, message.name);
    format!(
        "impl Fields for {} {{\nconst MIN_SIZE: usize = {min_size};\n\
         fn read(d: &mut Decoder, v: i16) -> Self {{\n{}\n}}\n\
         fn write(&self, e: &mut Encoder, v: i16) {{\n{}}}\n}}\n",
        of.name,
        reading_or_default(message, of),
        writing(message, of),
    )
}

/// The test of `v` that is true where `versions` apply, if `reach` has others.
fn condition(versions: Versions, reach: Versions) -> Option<String> {
    let Versions { min, max } = versions;
    match (min <= reach.min, max >= reach.max) {
        (true, true) => None,
        (false, true) => Some(format!("v >= {min}")),
        (true, false) => Some(format!("v <= {max}")),
        (false, false) if min == max => Some(format!("v == {min}")),
        (false, false) => Some(format!("({min}..={max}).contains(&v)")),
    }
}

fn when(condition: Option<String>, body: &str) -> String {
    match condition {
        None => format!("{body};\n"),
        Some(condition) => format!("if {condition} {{ {body}; }}\n"),
    }
}

fn tagged(of: &Struct) -> Vec<&Field> {
    let mut fields: Vec<_> = of.fields.iter().filter(|field| field.tag.is_some()).collect();
    fields.sort_by_key(|field| field.tag);
    fields
}

fn reading_or_default(message: &Schema, of: &Struct) -> String {
    match reading(message, of).as_str() {
        "" => "Self::default()".to_string(),
        "d.skip_tags();\n" => "d.skip_tags();\nSelf::default()".to_string(),
        body => format!("let mut s = Self::default();\n{body}s"),
    }
}

fn reading(message: &Schema, of: &Struct) -> String {
    let mut text = String::new();
    for field in of.fields.iter().filter(|field| field.tag.is_none()) {
        let body = format!("s.{} = {}", field.ident, read_value(field));
        text.push_str(&when(condition(field.versions, of.versions), &body));
    }
    if message.flexible_from.is_none_or(|from| from > of.versions.max) {
        return text;
    }
    let tagged = tagged(of);
    if tagged.is_empty() {
        return text + "d.skip_tags();\n";
    }
    text.push_str("d.tags(&mut |tag, d| {\nmatch tag {\n");
    for field in tagged {
        let guard = condition(field.versions, of.versions).map(|test| format!(" if {test}")).unwrap_or_default();
        writeln!(text, "{}{guard} => s.{} = {},", field.tag.unwrap(), field.ident, read_value(field)).unwrap();
    }
    text + "_ => return false,\n}\ntrue\n});\n"
}

/// Whether null is told in the way of tagged fields.
fn in_tag(field: &Field) -> bool {
    field.nullable.is_some() && field.tag.is_some()
}

fn read_value(field: &Field) -> String {
    let (plain, nullable) = match &field.ty {
        Type::Fixed { method, .. } => (format!("d.{method}()"), String::new()),
        Type::String if field.never_compact => {
            ("d.plain_string()".to_string(), "d.plain_nullable_string()".to_string())
        }
        Type::String => ("d.string()".to_string(), "d.nullable_string()".to_string()),
        Type::Bytes => ("d.bytes()".to_string(), "d.nullable_bytes()".to_string()),
        Type::Records => ("Some(d.records())".to_string(), "d.nullable_records()".to_string()),
        Type::Struct(_) if in_tag(field) => (String::new(), "d.nullable_tagged_struct(v)".to_string()),
        Type::Struct(name) => (format!("{name}::read(d, v)"), "d.nullable_struct(v)".to_string()),
        Type::Array(_) => ("d.array(v)".to_string(), "d.nullable_array(v)".to_string()),
    };
    match field.nullable.map(|versions| condition(versions, field.versions)) {
        None => plain,
        Some(None) => nullable,
        Some(Some(test)) => format!("if {test} {{ {nullable} }} else {{ Some({plain}) }}"),
    }
}

fn writing(message: &Schema, of: &Struct) -> String {
    let mut text = String::new();
    for field in &of.fields {
        let present = condition(field.versions, of.versions);
        if field.tag.is_none() {
            text.push_str(&when(present.clone(), &write_value(field, &of.name)));
        }
        if let (true, Some(test)) = (field.non_ignorable, present) {
            let (differs, name) = (differs_from_default(field), format!("{}.{}", of.name, field.name));
            writeln!(text, "if !({test}) && {differs} {{ e.not_in_version(\"{name}\", v); }}").unwrap();
        }
    }
    if message.flexible_from.is_none_or(|from| from > of.versions.max) {
        return text;
    }
    let tagged = tagged(of);
    if tagged.is_empty() {
        return text + "e.no_tags();\n";
    }
    for field in &tagged {
        let test = condition(field.versions, of.versions).map(|test| format!("{test} && ")).unwrap_or_default();
        let tag = field.tag.unwrap();
        writeln!(text, "let tag{tag} = {test}{};", differs_from_default(field)).unwrap();
    }
    let count: Vec<_> = tagged.iter().map(|field| format!("u32::from(tag{})", field.tag.unwrap())).collect();
    writeln!(text, "e.tag_count({});", count.join(" + ")).unwrap();
    for field in &tagged {
        let (tag, body) = (field.tag.unwrap(), write_value(field, &of.name));
        writeln!(text, "if tag{tag} {{ e.tag({tag}, &|e| {body}); }}").unwrap();
    }
    text
}

fn write_value(field: &Field, owner: &str) -> String {
    let ident = &field.ident;
    let (plain, nullable) = match &field.ty {
        Type::Fixed { method, .. } => return format!("e.{method}(self.{ident})"),
        Type::Struct(_) if field.nullable.is_none() => return format!("self.{ident}.write(e, v)"),
        Type::String if field.never_compact => ("plain_string", "plain_nullable_string"),
        Type::String => ("string", "nullable_string"),
        Type::Bytes => ("bytes", "nullable_bytes"),
        Type::Records => ("records", "nullable_records"),
        Type::Struct(_) if in_tag(field) => ("", "nullable_tagged_struct"),
        Type::Struct(_) => ("", "nullable_struct"),
        Type::Array(_) => ("array", "nullable_array"),
    };
    let version = if matches!(field.ty, Type::Struct(_) | Type::Array(_)) { ", v" } else { "" };
    match field.nullable.map(|versions| condition(versions, field.versions)) {
        None if field.ty == Type::Records => {
            format!(
                "if let Some(x) = &self.{ident} {{ e.records(x) }} else {{ e.null(\"{owner}.{}\", v) }}",
                field.name
            )
        }
        None => format!("e.{plain}(&self.{ident}{version})"),
        Some(None) => format!("e.{nullable}(&self.{ident}{version})"),
        Some(Some(test)) => format!(
            "if {test} {{ e.{nullable}(&self.{ident}{version}) }} else if let Some(x) = &self.{ident} \
             {{ e.{plain}(x{version}) }} else {{ e.null(\"{owner}.{}\", v) }}",
            field.name
        ),
    }
}
