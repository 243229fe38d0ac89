//! `storage info`.

use std::path::Path;

use ringlog_log::meta_properties::MetaProperties;

use super::{directories, read_config};
use crate::cli::output::Output;

/// Prints what the directories are and returns the exit code: 1 if something is wrong with one.
pub fn run(config: &str, out: &mut dyn Output) -> Result<u8, String> {
    let directories = directories(&read_config(config)?);
    let mut found = Vec::new();
    let mut problems = Vec::new();
    let mut first: Option<MetaProperties> = None;
    for directory in &directories {
        let path = Path::new(directory);
        if !path.is_dir() {
            let what = if path.exists() { "is not a directory" } else { "does not exist" };
            problems.push(format!("{directory} {what}"));
            continue;
        }
        found.push(directory.clone());
        let file = path.join("meta.properties");
        if !file.exists() {
            problems.push(format!("{directory} is not formatted."));
            continue;
        }
        let parsed = std::fs::read(&file)
            .map_err(|fault| fault.to_string())
            .and_then(|bytes| MetaProperties::parse(&bytes).map_err(|fault| fault.to_string()));
        match (parsed, &first) {
            (Err(fault), _) => problems.push(format!("Error loading {}: {fault}", file.display())),
            (Ok(properties), None) => first = Some(properties),
            (Ok(properties), Some(first)) if properties.cluster_id != first.cluster_id => {
                problems.push(format!("Mismatched cluster IDs between storage directories: {directory}"));
            }
            (Ok(properties), Some(first)) if properties.node_id != first.node_id => {
                problems.push(format!("Mismatched node IDs between storage directories: {directory}"));
            }
            (Ok(_), Some(_)) => {}
        }
    }
    section(out, ["Found log directory:", "Found log directories:"], &found);
    if let Some(first) = first {
        let directory_id = first.directory_id.map(|id| format!("directory.id={id}, ")).unwrap_or_default();
        let (cluster_id, node_id) = (first.cluster_id, first.node_id);
        out.line(&format!("Found metadata: {{cluster.id={cluster_id}, {directory_id}node.id={node_id}, version=1}}"));
        out.line("");
    }
    section(out, ["Found problem:", "Found problems:"], &problems);
    Ok(u8::from(!problems.is_empty()))
}

fn section(out: &mut dyn Output, [one, many]: [&str; 2], lines: &[String]) {
    if !lines.is_empty() {
        out.line(if lines.len() == 1 { one } else { many });
        lines.iter().for_each(|line| out.line(&format!("  {line}")));
        out.line("");
    }
}
