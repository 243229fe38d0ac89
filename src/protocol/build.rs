//! Generates the message types and the API table from `schema/` into `OUT_DIR`.

mod generator;

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=generator");
    let schema = std::path::Path::new("schema");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    generator::generate(schema, std::path::Path::new(&out));
}
