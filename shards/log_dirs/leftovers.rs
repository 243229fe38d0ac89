//! What a crash leaves in a partition's directory, settled before the log is looked at.
//!
//! * `*.deleted` was to be unlinked, `*.cleaned` is the cleaner's unfinished output, `*.tmp` a text file on its way:
//!   they go.
//! * `*.swap` is the cleaner's finished output: the segments that it replaces go, then it gets its name. Output that has
//!   `*.cleaned` files below it belongs to a split that wasn't finished, and goes too.
//! * An index without its log goes.

use std::io;
use std::path::Path;

use ringlog_log::names::{FileKind, FileState, SegmentFile, TEMPORARY_SUFFIX};
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader};
use ringlog_ring::fs::Fs;
use ringlog_types::Offset;
use tracing::info;

/// Settles the directory of one partition. On the helper thread.
pub(super) async fn settle(fs: &Fs, path: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    let mut temporary = Vec::new();
    for entry in fs.names(path).await? {
        let Ok(name) = entry.name.into_string() else { continue };
        match SegmentFile::parse(&name) {
            Some(file) => files.push(file),
            None if name.ends_with(TEMPORARY_SUFFIX) => temporary.push(name),
            None => {}
        }
    }
    let unfinished_from = in_state(&files, FileState::Cleaned).map(|file| file.offset).min();
    let is_dropped = |file: &SegmentFile| match file.state {
        FileState::Deleted | FileState::Cleaned => true,
        FileState::Swap => unfinished_from.is_some_and(|from| file.offset >= from),
        FileState::Live => false,
    };
    for name in temporary {
        fs.remove_file(&path.join(name)).await?;
    }
    for file in files.iter().filter(|file| is_dropped(file)) {
        fs.remove_file(&path.join(file.to_string())).await?;
    }
    files.retain(|file| !is_dropped(file));
    if in_state(&files, FileState::Swap).next().is_some() {
        finish_swap(fs, path, &mut files).await?;
    }
    remove_orphans(fs, path, &files).await
}

fn in_state(files: &[SegmentFile], state: FileState) -> impl Iterator<Item = &SegmentFile> {
    files.iter().filter(move |file| file.state == state)
}

async fn finish_swap(fs: &Fs, path: &Path, files: &mut Vec<SegmentFile>) -> io::Result<()> {
    let mut replaced: Option<(Offset, Offset)> = None;
    for swap in in_state(files, FileState::Swap).filter(|file| file.kind == FileKind::Log) {
        let end = next_offset(fs, &path.join(swap.to_string()), swap.offset).await?;
        let (from, to) = replaced.unwrap_or((swap.offset, end));
        replaced = Some((from.min(swap.offset), to.max(end)));
    }
    // Renaming over a file of the same base offset replaces it; the others in the range go first.
    if let Some((from, to)) = replaced {
        let has_swap = |file: &SegmentFile| {
            in_state(files, FileState::Swap).any(|swap| (swap.offset, swap.kind) == (file.offset, file.kind))
        };
        let goes = |file: &SegmentFile| {
            file.state == FileState::Live
                && file.kind != FileKind::ProducerSnapshot
                && (from..to).contains(&file.offset)
                && !has_swap(file)
        };
        for file in files.iter().filter(|file| goes(file)) {
            fs.remove_file(&path.join(file.to_string())).await?;
        }
        let keeps: Vec<SegmentFile> = files.iter().filter(|file| !goes(file)).copied().collect();
        *files = keeps;
        info!(directory = %path.display(), "finished a compaction that a crash interrupted");
    }
    // Indexes first: once the log has its name, nothing of the old segment is left beside it.
    files.sort_unstable_by_key(|file| (file.kind == FileKind::Log, file.offset));
    for file in files.iter_mut().filter(|file| file.state == FileState::Swap) {
        let live = SegmentFile { state: FileState::Live, ..*file };
        fs.rename(&path.join(file.to_string()), &path.join(live.to_string())).await?;
        *file = live;
    }
    fs.sync_dir(path).await
}

/// The offset after a segment's last batch.
async fn next_offset(fs: &Fs, log: &Path, base_offset: Offset) -> io::Result<Offset> {
    let file = fs.open(log).await?;
    let len = file.len().await?;
    let mut next = base_offset;
    let mut position = 0;
    let mut header = [0; BATCH_HEADER_LEN];
    while position + BATCH_HEADER_LEN as u64 <= len {
        file.read_exact_at(position, &mut header).await?;
        let Ok(parsed) = BatchHeader::parse(&header) else { break };
        next = parsed.next_offset();
        position += parsed.size_in_bytes() as u64;
    }
    Ok(next)
}

async fn remove_orphans(fs: &Fs, path: &Path, files: &[SegmentFile]) -> io::Result<()> {
    let is_index = |kind| matches!(kind, FileKind::OffsetIndex | FileKind::TimeIndex | FileKind::TransactionIndex);
    let has_log = |offset| files.iter().any(|file| file.kind == FileKind::Log && file.offset == offset);
    for file in files.iter().filter(|file| is_index(file.kind) && !has_log(file.offset)) {
        info!(directory = %path.display(), file = %file, "removed an index without its log");
        fs.remove_file(&path.join(file.to_string())).await?;
    }
    Ok(())
}
