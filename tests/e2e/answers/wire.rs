//! Any message as a tree, read and written by the schemas alone, so that one walk serves all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

/// A value of any type.
#[derive(Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Id([u8; 16]),
    List(Vec<Value>),
    /// Fields by name, in the order of the schema.
    Struct(Vec<(&'static str, Value)>),
}

impl Value {
    /// A field of a struct.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Value::Struct(fields) = self else { return None };
        fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn int(&self) -> Option<i64> {
        if let Value::Int(number) = self { Some(*number) } else { None }
    }

    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    pub fn list(&self) -> &[Value] {
        if let Value::List(items) = self { items } else { &[] }
    }

    /// Calls `see` with every value in it, each before what it holds, and the name of the field that it is (in).
    pub fn visit(&mut self, name: &'static str, see: &mut dyn FnMut(&'static str, &mut Value)) {
        see(name, self);
        match self {
            Value::List(items) => items.iter_mut().for_each(|item| item.visit(name, see)),
            Value::Struct(fields) => fields.iter_mut().for_each(|(name, value)| value.visit(name, see)),
            _ => {}
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(out, "null"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Int(value) => write!(out, "{value}"),
            Value::Float(value) => write!(out, "{value}"),
            Value::Text(value) if value.len() > 300 => write!(out, "{:?}... of {}", &value[..40], value.len()),
            Value::Text(value) => write!(out, "{value:?}"),
            Value::Bytes(value) if value.len() > 24 => write!(out, "bytes({})", value.len()),
            Value::Bytes(value) => write!(out, "{value:02x?}"),
            Value::Id(value) => write!(out, "id-{:02x}{:02x}", value[0], value[15]),
            Value::List(items) => out.debug_list().entries(items).finish(),
            Value::Struct(fields) => {
                write!(out, "{{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    write!(out, "{}{name}: {value:?}", if index > 0 { ", " } else { "" })?;
                }
                write!(out, "}}")
            }
        }
    }
}

/// A run of versions.
#[derive(Debug, Clone, Copy)]
pub struct Versions(pub i16, pub i16);

impl Versions {
    const NONE: Versions = Versions(0, -1);

    fn parse(text: Option<&Json>) -> Versions {
        let Some(text) = text.and_then(Json::as_str).filter(|text| *text != "none") else { return Versions::NONE };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Versions(first.parse().unwrap_or(0), last.parse().unwrap_or(-1))
    }

    pub fn contains(self, version: i16) -> bool {
        (self.0..=self.1).contains(&version)
    }
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// As the schema names it, without what makes it an array.
    pub kind: &'static str,
    pub is_list: bool,
    pub versions: Versions,
    pub nullable: Versions,
    pub tag: Option<u32>,
    pub tagged: Versions,
    default: Json,
    pub fields: Vec<Field>,
}

impl Field {
    fn parse(json: &Json) -> Field {
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned().leak() as &'static str;
        let kind = text("type");
        Field {
            name: text("name"),
            kind: kind.strip_prefix("[]").unwrap_or(kind),
            is_list: kind.starts_with("[]"),
            versions: Versions::parse(json.get("versions")),
            nullable: Versions::parse(json.get("nullableVersions")),
            tag: json["tag"].as_u64().map(|tag| tag as u32),
            tagged: Versions::parse(json.get("taggedVersions")),
            default: json.get("default").cloned().unwrap_or(Json::Bool(false)),
            fields: json["fields"].as_array().into_iter().flatten().map(Field::parse).collect(),
        }
    }

    fn is_tagged(&self, version: i16) -> bool {
        self.tag.is_some() && self.tagged.contains(version)
    }

    /// What the field is when nothing is said.
    pub fn default_value(&self, version: i16) -> Value {
        if self.default.is_null() && self.nullable.contains(version) {
            return Value::Null;
        }
        if self.is_list {
            return Value::List(Vec::new());
        }
        match self.kind {
            "bool" => Value::Bool(self.default.as_bool().unwrap_or(false)),
            "int8" | "int16" | "int32" | "int64" | "uint16" => Value::Int(self.default.as_i64().unwrap_or(0)),
            "float64" => Value::Float(self.default.as_f64().unwrap_or(0.0)),
            "string" => Value::Text(self.default.as_str().unwrap_or_default().to_owned()),
            "bytes" | "records" => Value::Bytes(Vec::new()),
            "uuid" => Value::Id([0; 16]),
            _ => default_struct(&self.fields, version),
        }
    }
}

fn default_struct(fields: &[Field], version: i16) -> Value {
    let present = fields.iter().filter(|field| field.versions.contains(version));
    Value::Struct(present.map(|field| (field.name, field.default_value(version))).collect())
}

/// A request or a response.
#[derive(Debug)]
pub struct Message {
    pub versions: Versions,
    flexible: Versions,
    pub fields: Vec<Field>,
}

/// An API that a node serves.
#[derive(Debug)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    pub request: Message,
    pub response: Message,
}

/// All APIs by key.
pub fn apis() -> Result<BTreeMap<i16, Api>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/protocol/schema/messages");
    let read = |name: &str| -> Result<Message> {
        let json: Json = serde_json::from_slice(&fs::read(folder.join(name))?)?;
        let fields = json["fields"].as_array().context("fields")?.iter().map(Field::parse).collect();
        let (versions, flexible) = (json.get("validVersions"), json.get("flexibleVersions"));
        Ok(Message { versions: Versions::parse(versions), flexible: Versions::parse(flexible), fields })
    };
    let mut apis = BTreeMap::new();
    for entry in fs::read_dir(&folder)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix("Request.json") else { continue };
        let json: Json = serde_json::from_slice(&fs::read(folder.join(&file))?)?;
        let Some(key) = json["apiKey"].as_i64() else { continue };
        let (request, response) = (read(&file)?, read(&format!("{name}Response.json"))?);
        apis.insert(key as i16, Api { key: key as i16, name: name.to_owned().leak(), request, response });
    }
    Ok(apis)
}

impl Api {
    /// A whole request frame, with its size.
    pub fn encode_request(&self, version: i16, correlation_id: i32, client_id: &str, body: &Value) -> Vec<u8> {
        let mut out = Writer { out: vec![0; 4], version, is_flexible: false };
        out.out.extend(self.key.to_be_bytes());
        out.out.extend(version.to_be_bytes());
        out.out.extend(correlation_id.to_be_bytes());
        out.out.extend((client_id.len() as i16).to_be_bytes());
        out.out.extend(client_id.as_bytes());
        out.is_flexible = self.request.flexible.contains(version);
        if out.is_flexible {
            out.out.push(0);
        }
        out.fields(&self.request.fields, body);
        let size = (out.out.len() - 4) as i32;
        out.out[..4].copy_from_slice(&size.to_be_bytes());
        out.out
    }

    /// A response frame without its size: the correlation id and the body.
    pub fn decode_response(&self, version: i16, frame: &[u8]) -> Result<(i32, Value)> {
        let mut input = Reader { input: frame, version, is_flexible: self.response.flexible.contains(version) };
        let correlation_id = input.int::<4>()? as i32;
        // ApiVersions is answered with the old header, since the client can't know better.
        if input.is_flexible && self.name != "ApiVersions" {
            input.tags(&[], &mut Vec::new())?;
        }
        let body = input.fields(&self.response.fields)?;
        ensure!(input.input.is_empty(), "{} bytes follow the response", input.input.len());
        Ok((correlation_id, body))
    }
}

struct Writer {
    out: Vec<u8>,
    version: i16,
    is_flexible: bool,
}

impl Writer {
    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A length, or null, in the form that lists, strings and bytes of this version have.
    fn length(&mut self, length: Option<usize>, is_short: bool) {
        match (self.is_flexible, is_short) {
            (true, _) => self.varint(length.map_or(0, |length| length as u32 + 1)),
            (false, true) => self.out.extend((length.map_or(-1, |length| length as i16)).to_be_bytes()),
            (false, false) => self.out.extend((length.map_or(-1, |length| length as i32)).to_be_bytes()),
        }
    }

    fn fields(&mut self, fields: &[Field], value: &Value) {
        let version = self.version;
        let present = || fields.iter().filter(|field| field.versions.contains(version));
        let own = |field: &Field| value.get(field.name).cloned().unwrap_or_else(|| field.default_value(version));
        for field in present().filter(|field| !field.is_tagged(version)) {
            self.field(field, &own(field), false);
        }
        if !self.is_flexible {
            return;
        }
        let tagged: Vec<(&Field, Value)> = present()
            .filter(|field| field.is_tagged(version))
            .map(|field| (field, own(field)))
            .filter(|(field, value)| *value != field.default_value(version))
            .collect();
        self.varint(tagged.len() as u32);
        for (field, value) in tagged {
            let mut inner = Writer { out: Vec::new(), version, is_flexible: true };
            inner.field(field, &value, true);
            self.varint(field.tag.unwrap_or(0));
            self.varint(inner.out.len() as u32);
            self.out.extend(inner.out);
        }
    }

    fn field(&mut self, field: &Field, value: &Value, in_tag: bool) {
        if !field.is_list {
            return self.one(field, value, in_tag);
        }
        match value {
            Value::List(items) => {
                self.length(Some(items.len()), false);
                items.iter().for_each(|item| self.one(field, item, false));
            }
            _ => self.length(None, false),
        }
    }

    fn one(&mut self, field: &Field, value: &Value, in_tag: bool) {
        match (field.kind, value) {
            ("bool", Value::Bool(value)) => self.out.push(u8::from(*value)),
            ("int8", Value::Int(value)) => self.out.push(*value as u8),
            ("int16" | "uint16", Value::Int(value)) => self.out.extend((*value as u16).to_be_bytes()),
            ("int32", Value::Int(value)) => self.out.extend((*value as i32).to_be_bytes()),
            ("int64", Value::Int(value)) => self.out.extend(value.to_be_bytes()),
            ("float64", Value::Float(value)) => self.out.extend(value.to_be_bytes()),
            ("uuid", Value::Id(value)) => self.out.extend(value),
            ("string", Value::Text(text)) => {
                self.length(Some(text.len()), true);
                self.out.extend(text.as_bytes());
            }
            ("bytes" | "records", Value::Bytes(bytes)) => {
                self.length(Some(bytes.len()), false);
                self.out.extend(bytes);
            }
            ("string", _) => self.length(None, true),
            ("bytes" | "records", _) => self.length(None, false),
            (_, value) => {
                let is_null = *value == Value::Null;
                if field.nullable.contains(self.version) && !field.is_list {
                    self.out.push(match (in_tag, is_null) {
                        (true, is_null) => u8::from(!is_null),
                        (false, true) => 0xff,
                        (false, false) => 1,
                    });
                }
                if !is_null {
                    self.fields(&field.fields, value);
                }
            }
        }
    }
}

struct Reader<'a> {
    input: &'a [u8],
    version: i16,
    is_flexible: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.input.split_at_checked(length).context("the response is cut off")?;
        self.input = rest;
        Ok(taken)
    }

    /// A signed number of so many bytes.
    fn int<const N: usize>(&mut self) -> Result<i64> {
        let bytes = self.take(N)?;
        let sign = if bytes[0] & 0x80 != 0 { -1_i64 } else { 0 };
        Ok(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
    }

    fn varint(&mut self) -> Result<u32> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u32::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a varint is too long")
    }

    fn length(&mut self, is_short: bool) -> Result<Option<usize>> {
        let length = match (self.is_flexible, is_short) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => self.int::<2>()?,
            (false, false) => self.int::<4>()?,
        };
        Ok(usize::try_from(length).ok())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<Value> {
        let version = self.version;
        let mut values = Vec::new();
        for field in fields.iter().filter(|field| field.versions.contains(version)) {
            let value = match field.is_tagged(version) {
                true => field.default_value(version),
                false => self.field(field, false).with_context(|| field.name)?,
            };
            values.push((field.name, value));
        }
        if self.is_flexible {
            self.tags(fields, &mut values)?;
        }
        Ok(Value::Struct(values))
    }

    fn tags(&mut self, fields: &[Field], values: &mut Vec<(&'static str, Value)>) -> Result<()> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            let bytes = self.take(length)?;
            let known = fields.iter().find(|field| field.tag == Some(tag) && field.is_tagged(self.version));
            let field = known.with_context(|| format!("unknown tag {tag}"))?;
            let mut inner = Reader { input: bytes, version: self.version, is_flexible: true };
            let value = inner.field(field, true)?;
            ensure!(inner.input.is_empty(), "bytes follow tag {tag}");
            if let Some((_, known)) = values.iter_mut().find(|(name, _)| *name == field.name) {
                *known = value;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, in_tag: bool) -> Result<Value> {
        if !field.is_list {
            return self.one(field, in_tag);
        }
        let Some(length) = self.length(false)? else { return Ok(Value::Null) };
        Ok(Value::List((0..length).map(|_| self.one(field, false)).collect::<Result<_>>()?))
    }

    fn one(&mut self, field: &Field, in_tag: bool) -> Result<Value> {
        Ok(match field.kind {
            "bool" => Value::Bool(self.int::<1>()? != 0),
            "int8" => Value::Int(self.int::<1>()?),
            "int16" => Value::Int(self.int::<2>()?),
            "uint16" => Value::Int(self.int::<2>()? & 0xffff),
            "int32" => Value::Int(self.int::<4>()?),
            "int64" => Value::Int(self.int::<8>()?),
            "float64" => Value::Float(f64::from_be_bytes(self.take(8)?.try_into()?)),
            "uuid" => Value::Id(self.take(16)?.try_into()?),
            "string" => match self.length(true)? {
                Some(length) => Value::Text(String::from_utf8(self.take(length)?.to_vec())?),
                None => Value::Null,
            },
            "bytes" | "records" => match self.length(false)? {
                Some(length) => Value::Bytes(self.take(length)?.to_vec()),
                None => Value::Null,
            },
            _ => {
                if field.nullable.contains(self.version) && !field.is_list {
                    let is_there = if in_tag { self.varint()? != 0 } else { self.int::<1>()? >= 0 };
                    if !is_there {
                        return Ok(Value::Null);
                    }
                }
                self.fields(&field.fields)?
            }
        })
    }
}
