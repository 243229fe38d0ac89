//! The generator that `build.rs` runs: schema files in, Rust source out. A fault in a schema stops the build.
//!
//! `schema` reads the files, `structs` finds the structs in them, `types` writes their definitions, `codec` their
//! reading and writing, `lists` the tables and enums over many messages.

mod codec;
mod lists;
mod names;
mod schema;
mod structs;
mod types;

use schema::Schema;
use std::fmt::Write as _;
use std::path::Path;

/// Writes one file for each Rust module that includes generated code, and `registry.rs` for the tests.
pub fn generate(schema: &Path, out: &Path) {
    let messages = schema::read_folder(&schema.join("messages"));
    let metadata = schema::read_folder(&schema.join("metadata-records"));
    let raft = schema::read_folder(&schema.join("raft-records"));
    let storage = schema::read_folder(&schema.join("storage-records"));
    let consumer = schema::read_folder(&schema.join("consumer-protocol"));
    let mut registry = Vec::new();

    let text = modules(&messages, "messages", &mut registry) + &lists::requests(&messages);
    write(out, "messages.rs", &text);
    write(
        out,
        "metadata_records.rs",
        &(modules(&metadata, "metadata_records", &mut registry) + &lists::metadata(&metadata)),
    );
    write(out, "raft_records.rs", &modules(&raft, "raft_records", &mut registry));
    write(out, "storage_records.rs", &modules(&storage, "storage_records", &mut registry));
    write(out, "consumer_protocol.rs", &modules(&consumer, "consumer_protocol", &mut registry));
    for family in ["group", "share", "transaction"] {
        let records = schema::read_folder(&schema.join("coordinator-records").join(family));
        let text = modules(&records, &format!("coordinator_records::{family}"), &mut registry);
        write(out, &format!("{family}_records.rs"), &(text + &lists::coordinator(&records, family)));
    }
    let apis = schema::read_apis(&schema.join("apis.tsv"));
    write(out, "api_key.rs", &lists::api_keys(&apis));
    write(out, "bodies.rs", &lists::bodies(&apis));
    write(out, "registry.rs", &lists::registry(&registry));
}

/// What generated code may do: it is plain rather than idiomatic.
const LINTS: &str = "clippy::too_many_lines, clippy::field_reassign_with_default, clippy::collapsible_if, \
    clippy::collapsible_else_if, clippy::manual_range_contains, clippy::nonminimal_bool";

/// A module for each message, with its top struct re-exported beside it.
fn modules(messages: &[Schema], path: &str, registry: &mut Vec<String>) -> String {
    let mut text = String::new();
    for message in messages {
        let module = names::snake(&message.name);
        registry.push(format!("{path}::{}", message.name));
        let found = structs::collect(message);
        writeln!(text, "#[doc = \"`{}`, versions {}.\"]", message.name, message.versions).unwrap();
        writeln!(text, "#[allow(unused_variables, {LINTS})]\npub mod {module} {{\nuse crate::codec::*;\n").unwrap();
        for each in &found {
            text.push_str(&types::definition(message, each));
            text.push_str(&codec::implementation(message, each, &found));
        }
        text.push_str(&codec::message(message));
        writeln!(text, "}}\npub use self::{module}::{};", message.name).unwrap();
    }
    text
}

fn write(out: &Path, name: &str, text: &str) {
    std::fs::write(out.join(name), text).unwrap_or_else(|error| panic!("writing {name}: {error}"));
}
