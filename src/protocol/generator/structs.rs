//! Finds the structs of a message: its own and those of its fields, each once.

use super::schema::{Field, Schema, Type, Versions};

/// A struct to generate.
pub struct Struct {
    pub name: String,
    /// The versions that hold a value of it.
    pub versions: Versions,
    pub fields: Vec<Field>,
}

/// The message's own struct first, then those of its fields in order. A struct that several fields use is one
/// type, with each of its fields at the union of the versions.
pub fn collect(message: &Schema) -> Vec<Struct> {
    let mut found =
        vec![Struct { name: message.name.clone(), versions: message.versions, fields: message.fields.clone() }];
    collect_fields(&message.fields, &mut found);
    found
}

fn collect_fields(fields: &[Field], found: &mut Vec<Struct>) {
    for field in fields {
        let Some(name) = field.ty.struct_name() else { continue };
        match found.iter_mut().find(|each| each.name == name) {
            Some(known) => {
                known.versions = known.versions.union(field.versions);
                merge(&mut known.fields, &field.fields, name);
            }
            None => {
                found.push(Struct { name: name.to_string(), versions: field.versions, fields: field.fields.clone() });
            }
        }
        collect_fields(&field.fields, found);
    }
}

fn merge(known: &mut [Field], fields: &[Field], owner: &str) {
    assert_eq!(known.len(), fields.len(), "{owner} differs between its uses");
    for (known, field) in known.iter_mut().zip(fields) {
        let same = known.name == field.name && known.ty == field.ty && known.tag == field.tag;
        assert!(same && known.default == field.default, "{owner}.{} differs between its uses", field.name);
        known.versions = known.versions.union(field.versions);
        known.nullable = match (known.nullable, field.nullable) {
            (Some(a), Some(b)) => Some(a.union(b)),
            (None, None) => None,
            _ => panic!("{owner}.{} is nullable in one use only", field.name),
        };
    }
}

/// The fewest bytes that a value takes in any of its versions, for bounding an array's count while decoding.
pub fn min_size(message: &Schema, of: &Struct, all: &[Struct]) -> usize {
    (of.versions.min..=of.versions.max).map(|version| struct_size(message, of, all, version)).min().unwrap_or(0)
}

fn struct_size(message: &Schema, of: &Struct, all: &[Struct], version: i16) -> usize {
    let flexible = message.flexible_from.is_some_and(|from| version >= from);
    let present = of.fields.iter().filter(|field| field.tag.is_none() && field.versions.contains(version));
    let fields = present.map(|field| match &field.ty {
        Type::Fixed { size, .. } => *size,
        Type::String => {
            if flexible {
                1
            } else {
                2
            }
        }
        Type::Bytes | Type::Records | Type::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Type::Struct(_) if field.nullable.is_some() => 1,
        Type::Struct(name) => struct_size(message, by_name(all, name), all, version),
    });
    fields.sum::<usize>() + usize::from(flexible)
}

fn by_name<'a>(all: &'a [Struct], name: &str) -> &'a Struct {
    all.iter().find(|each| each.name == name).unwrap_or_else(|| panic!("no struct {name}"))
}
