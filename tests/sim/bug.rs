//! Deliberate mistakes, each of which a checker has to find.

/// One mistake in what drives the cores. None of them is in the cores themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Appends are acknowledged when their writes start.
    AcknowledgeBeforeWrite,
    /// With `flush.messages=1`, appends are acknowledged without `fdatasync`.
    AcknowledgeBeforeSync,
    /// A new segment's name isn't synced before its records are acknowledged as flushed.
    ForgetNameSync,
    /// The first block of a log that is opened again is written without the bytes that only the file has.
    ForgetHead,
    /// Recovery leaves the torn end of a segment in the file.
    KeepTornTail,
    /// Recovery doesn't write the indexes that it built.
    ForgetIndexes,
    /// A segment that is active again keeps its index files from before, and they are there when it is sealed.
    KeepStaleIndexes,
    /// Recovery doesn't sync the segments that it read, which nobody does later.
    TrustReadBytes,
    /// Producers are forgotten when a log is opened.
    ForgetProducers,
    /// A sealed segment gets its indexes, and the recovery point moves past it, without `fdatasync`.
    SealWithoutSync,
    /// DeleteRecords is answered before the log's start is on the disk.
    AnswerDeleteRecordsEarly,
    /// `leader-epoch-checkpoint` isn't written.
    ForgetEpochs,
    /// Group state is answered for before its records are committed.
    AnswerCommitsEarly,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[
        Bug::AcknowledgeBeforeWrite,
        Bug::AcknowledgeBeforeSync,
        Bug::ForgetNameSync,
        Bug::ForgetHead,
        Bug::KeepTornTail,
        Bug::ForgetIndexes,
        Bug::KeepStaleIndexes,
        Bug::TrustReadBytes,
        Bug::ForgetProducers,
        Bug::SealWithoutSync,
        Bug::AnswerDeleteRecordsEarly,
        Bug::ForgetEpochs,
        Bug::AnswerCommitsEarly,
    ];
}
