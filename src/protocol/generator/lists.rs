//! Writes what spans many messages: the API table, and the lists from which macros make enums.

use super::schema::{Api, Schema, Versions};
use std::fmt::Write as _;

/// `impl Request` for each request.
pub fn requests(messages: &[Schema]) -> String {
    let mut text = String::new();
    for message in messages {
        let Some(api) = message.name.strip_suffix("Request").filter(|_| message.type_id.is_some()) else { continue };
        writeln!(
            text,
            "impl crate::Request for {api}Request {{\nconst KEY: crate::ApiKey = crate::ApiKey::{api};\n\
             type Response = {api}Response;\n}}"
        )
        .unwrap();
    }
    text
}

/// `ApiKey` and what is known of each key.
pub fn api_keys(apis: &[Api]) -> String {
    let mut text = String::from(
        "/// A Kafka API: what a request's first two bytes name. The four that Kafka 4 removed have no value here.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for api in apis {
        writeln!(text, "/// {0}, key {1}.\n{0} = {1},", api.get("name"), api.get("key")).unwrap();
    }
    text.push_str("}\nimpl ApiKey {\n/// Every key, in order.\npub const ALL: &'static [ApiKey] = &[\n");
    for api in apis {
        writeln!(text, "ApiKey::{},", api.get("name")).unwrap();
    }
    text.push_str("];\n/// The key with this number; `None` for an unknown or removed one.\n");
    text.push_str("#[allow(clippy::too_many_lines)]\npub fn from_code(code: i16) -> Option<ApiKey> {\nmatch code {\n");
    for api in apis {
        writeln!(text, "{} => Some(ApiKey::{}),", api.get("key"), api.get("name")).unwrap();
    }
    text.push_str(
        "_ => None,\n}\n}\n#[allow(clippy::too_many_lines)]\nfn facts(self) -> &'static Facts {\nmatch self {\n",
    );
    for api in apis {
        writeln!(text, "ApiKey::{} => &{},", api.get("name"), facts(api)).unwrap();
    }
    text + "}\n}\n}\n"
}

fn facts(api: &Api) -> String {
    let range = |column| match api.versions(column) {
        None => "None".to_string(),
        Some(Versions { min, max }) => format!("Some(({min}, {max}))"),
    };
    let from = |column| match api.get(column) {
        "none" => "None".to_string(),
        version => format!("Some({version})"),
    };
    let listeners = api.get("listeners");
    format!(
        "Facts {{ name: \"{}\", min: {}, max: {}, max_unstable: {}, on_broker: {}, on_controller: {}, \
         cluster_action: {}, forwardable: {}, delayed_allocation: {}, request_flexible_from: {}, \
         response_flexible_from: {}, throttle_time_from: {}, advertised_on_broker: {}, advertised_on_controller: {} }}",
        api.get("name"),
        api.get("min"),
        api.get("max_stable"),
        api.get("max_incl_unstable"),
        listeners.split(',').any(|each| each == "broker"),
        listeners.split(',').any(|each| each == "controller"),
        api.get("cluster_action"),
        api.get("forwardable"),
        api.get("requires_delayed_allocation"),
        from("request_flexible_from"),
        from("response_flexible_from"),
        from("throttle_time_in_response_from"),
        range("advertised_on_broker_listener"),
        range("advertised_on_controller_listener"),
    )
}

/// The list for `RequestBody` and `ResponseBody`.
pub fn bodies(apis: &[Api]) -> String {
    let mut text = String::new();
    for (name, kind) in [("RequestBody", "Request"), ("ResponseBody", "Response")] {
        writeln!(text, "body_enum! {{ \"The {}s of every API.\" {name} {{", kind.to_lowercase()).unwrap();
        for api in apis {
            writeln!(text, "{0}({0}{kind}),", api.get("name")).unwrap();
        }
        text.push_str("} }\n");
    }
    text
}

/// The list for `MetadataRecord`.
pub fn metadata(records: &[Schema]) -> String {
    let mut text = String::from("crate::metadata_record_enum! {\n");
    for record in by_type(records) {
        let variant = record.name.trim_end_matches("Record");
        writeln!(text, "{} {variant}({}),", record.type_id.unwrap(), record.name).unwrap();
    }
    text + "}\n"
}

/// The list for a coordinator's key and value enums.
pub fn coordinator(records: &[Schema], family: &str) -> String {
    let family = super::names::snake(family);
    let prefix = family[..1].to_uppercase() + &family[1..];
    let mut text =
        format!("crate::coordinator_record_enums! {{ \"{family}\" {prefix}RecordKey {prefix}RecordValue {{\n");
    for record in by_type(records) {
        let Some(variant) = record.name.strip_suffix("Key") else { continue };
        writeln!(text, "{} {variant}({variant}Key, {variant}Value),", record.type_id.unwrap()).unwrap();
    }
    text + "} }\n"
}

fn by_type(records: &[Schema]) -> Vec<&Schema> {
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by_key(|record| record.type_id.unwrap_or_else(|| panic!("{} has no type id", record.name)));
    sorted
}

/// The list of every message with its path, for tests that go through all of them.
pub fn registry(paths: &[String]) -> String {
    format!("every_message! {{\n{},\n}}\n", paths.join(",\n"))
}
