//! `partition.metadata`: two lines, `version: 0` and `topic_id: <id>`, without a newline at the end.

use ringlog_types::Uuid;

const VERSION: i32 = 0;

/// A partition's file that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionMetadataError {
    /// A line that isn't `name: value`, or a value that isn't of its type. Lines count from 1.
    #[error("malformed line {0} in partition.metadata")]
    MalformedLine(usize),
    /// Another version.
    #[error("partition.metadata version {0} is not supported")]
    UnsupportedVersion(i32),
    /// Version or topic id is missing, or the topic id is zero.
    #[error("partition.metadata has no {0}")]
    Missing(&'static str),
}

/// The topic id in a file's content.
pub fn parse_partition_metadata(bytes: &[u8]) -> Result<Uuid, PartitionMetadataError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PartitionMetadataError::MalformedLine(1))?;
    let (mut version, mut topic_id) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let malformed = || PartitionMetadataError::MalformedLine(index + 1);
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        match name.trim() {
            "version" => version = Some(value.trim().parse::<i32>().map_err(|_| malformed())?),
            "topic_id" => topic_id = Some(value.trim().parse::<Uuid>().map_err(|_| malformed())?),
            _ => return Err(malformed()),
        }
    }
    match version.ok_or(PartitionMetadataError::Missing("version"))? {
        VERSION => {}
        other => return Err(PartitionMetadataError::UnsupportedVersion(other)),
    }
    topic_id.filter(|id| !id.is_zero()).ok_or(PartitionMetadataError::Missing("topic_id"))
}

/// The file's content.
pub fn format_partition_metadata(topic_id: Uuid) -> String {
    format!("version: {VERSION}\ntopic_id: {topic_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        let id: Uuid = "n6YqSH1sTxOJOrNXfaHaOw".parse().unwrap();
        let text = format_partition_metadata(id);
        assert_eq!(parse_partition_metadata(text.as_bytes()), Ok(id));
        assert_eq!(parse_partition_metadata(format!("{text}\n").as_bytes()), Ok(id));
        let fault = |text: &str| parse_partition_metadata(text.as_bytes()).unwrap_err();
        assert_eq!(fault(""), PartitionMetadataError::Missing("version"));
        assert_eq!(fault("version: 0\n"), PartitionMetadataError::Missing("topic_id"));
        assert_eq!(fault("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA"), PartitionMetadataError::Missing("topic_id"));
        assert_eq!(fault("version: 1\ntopic_id: x"), PartitionMetadataError::MalformedLine(2));
        assert_eq!(fault("version: 7"), PartitionMetadataError::UnsupportedVersion(7));
    }
}
