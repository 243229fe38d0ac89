//! Reads the schema files. `schema/README.md` tells their format.

use serde_json::Value;
use std::path::Path;

/// A run of versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Versions {
    fn parse(text: &str) -> Versions {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("version '{text}'"));
        Versions { min: number(min), max: number(max) }
    }

    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Both runs as one; they must touch or overlap.
    pub fn union(self, other: Versions) -> Versions {
        assert!(self.min <= other.max + 1 && other.min <= self.max + 1, "a gap between {self} and {other}");
        Versions { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}-{}", self.min, self.max) }
    }
}

/// A field's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// bool, int8 ... float64, uuid: the Rust type, the codec's method, the size in bytes.
    Fixed {
        rust: &'static str,
        method: &'static str,
        size: usize,
    },
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Type {
        if let Some(element) = text.strip_prefix("[]") {
            return Type::Array(Box::new(Type::parse(element)));
        }
        let fixed = |rust, method, size| Type::Fixed { rust, method, size };
        match text {
            "bool" => fixed("bool", "bool", 1),
            "int8" => fixed("i8", "i8", 1),
            "int16" => fixed("i16", "i16", 2),
            "uint16" => fixed("u16", "u16", 2),
            "int32" => fixed("i32", "i32", 4),
            "uint32" => fixed("u32", "u32", 4),
            "int64" => fixed("i64", "i64", 8),
            "float64" => fixed("f64", "f64", 8),
            "uuid" => fixed("Uuid", "uuid", 16),
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            _ if text.starts_with(char::is_uppercase) => Type::Struct(text.to_string()),
            _ => panic!("unknown type '{text}'"),
        }
    }

    /// The struct that this is, or an array of.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Type::Struct(name) => Some(name),
            Type::Array(element) => element.struct_name(),
            _ => None,
        }
    }
}

/// A field of a message or of a struct in it.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub ident: String,
    pub wire_type: String,
    pub ty: Type,
    pub versions: Versions,
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    /// As the file has it; `None` is the type's zero, `Value::Null` is null.
    pub default: Option<Value>,
    pub non_ignorable: bool,
    /// A string that keeps the two-byte length in flexible versions.
    pub never_compact: bool,
    pub fields: Vec<Field>,
}

impl Field {
    fn parse(json: &Value) -> Field {
        let versions = |key: &str| json[key].as_str().map(Versions::parse);
        let name = text(json, "name");
        let tag = json["tag"].as_u64().map(|tag| u32::try_from(tag).expect("a tag fits 32 bits"));
        assert!(tag.is_none() || json["taggedVersions"] == json["versions"], "{name}: tagged in some versions only");
        assert!(matches!(json["compactVersions"].as_str(), None | Some("none")), "{name}: compactVersions");
        Field {
            ident: super::names::field(&name),
            wire_type: text(json, "type"),
            ty: Type::parse(&text(json, "type")),
            versions: versions("versions").unwrap_or_else(|| panic!("{name}: no versions")),
            nullable: versions("nullableVersions"),
            tag,
            default: json.get("default").cloned(),
            non_ignorable: json["nonIgnorable"].as_bool().unwrap_or(false),
            never_compact: json["compactVersions"].is_string(),
            fields: Field::parse_all(json),
            name,
        }
    }

    fn parse_all(json: &Value) -> Vec<Field> {
        json["fields"].as_array().map(|fields| fields.iter().map(Field::parse).collect()).unwrap_or_default()
    }
}

/// One message or record.
#[derive(Debug)]
pub struct Schema {
    /// The file's name without `.json`, which is the Rust type's name.
    pub name: String,
    pub versions: Versions,
    /// The first flexible version; every later one is flexible too.
    pub flexible_from: Option<i16>,
    /// An API's key, or a record's type id.
    pub type_id: Option<i64>,
    pub fields: Vec<Field>,
}

impl Schema {
    fn read(path: &Path) -> Schema {
        let text_of_file = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: Value =
            serde_json::from_str(&text_of_file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let versions = Versions::parse(&text(&json, "validVersions"));
        let flexible = Some(text(&json, "flexibleVersions")).filter(|text| text != "none");
        let flexible = flexible.map(|text| Versions::parse(&text));
        assert!(flexible.is_none_or(|flexible| flexible.max == versions.max), "{}: flexibleVersions", path.display());
        Schema {
            name: path.file_stem().expect("a file has a name").to_string_lossy().into_owned(),
            versions,
            flexible_from: flexible.map(|flexible| flexible.min),
            type_id: json["recordType"].as_i64().or(json["apiKey"].as_i64()),
            fields: Field::parse_all(&json),
        }
    }
}

/// Every schema of a folder, by name.
pub fn read_folder(folder: &Path) -> Vec<Schema> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| Schema::read(path)).collect()
}

/// A row of `apis.tsv`.
pub struct Api {
    columns: Vec<(String, String)>,
}

impl Api {
    pub fn get(&self, column: &str) -> &str {
        let found = self.columns.iter().find(|(name, _)| name == column);
        &found.unwrap_or_else(|| panic!("apis.tsv has no column {column}")).1
    }

    /// A column with a run of versions, or nothing.
    pub fn versions(&self, column: &str) -> Option<Versions> {
        Some(self.get(column)).filter(|text| !matches!(*text, "no" | "none")).map(Versions::parse)
    }
}

/// The APIs of `apis.tsv` that still exist, by key.
pub fn read_apis(path: &Path) -> Vec<Api> {
    let table = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = table.lines().map(|line| line.split('\t').map(str::to_string).collect::<Vec<_>>());
    let header = lines.next().expect("apis.tsv has a header");
    let rows = lines.map(|row| Api { columns: header.iter().cloned().zip(row).collect() });
    rows.filter(|api| api.get("max_stable") != "-1").collect()
}

fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_else(|| panic!("no text '{key}' in {json}")).to_string()
}
