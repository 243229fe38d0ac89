//! Zstandard frames as zstd-jni's `ZstdInputStream` reads them.
//!
//! Frames may follow each other, skippable ones among them. That reader takes its input in steps of 131,075 bytes, and when
//! the input ends within a frame it says so only if no frame ended in the last step.

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective};

use super::{Compression, DecompressError};

const CORRUPT: DecompressError = DecompressError::Corrupt(Compression::Zstd);
/// How much Java's reader takes at once: the library's own advice.
const STEP_LEN: usize = 131_075;
/// A context that a frame with a great window made grow over this is given up. The library refuses windows above 128 MiB.
const CONTEXT_KEPT_MAX: usize = 10 << 20;

#[derive(Default)]
pub(super) struct Zstd {
    context: Option<DCtx<'static>>,
    position: usize,
    /// Where the last frame ended, if any has.
    frame_end: Option<usize>,
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Zstd").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Zstd {
    pub(super) fn begin(&mut self) {
        (self.position, self.frame_end) = (0, None);
        let is_usable = |context: &mut DCtx<'static>| {
            context.sizeof() <= CONTEXT_KEPT_MAX && context.reset(ResetDirective::SessionOnly).is_ok()
        };
        self.context = self.context.take().and_then(|mut context| is_usable(&mut context).then_some(context));
    }

    pub(super) fn next(&mut self, input: &[u8], out: &mut [u8]) -> Result<Option<usize>, DecompressError> {
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(DCtx::try_create().ok_or(CORRUPT)?),
        };
        loop {
            let rest = &input[self.position..];
            let (mut source, mut target) = (InBuffer::around(rest), OutBuffer::around(&mut *out));
            let at_end = rest.is_empty();
            let hint = context.decompress_stream(&mut target, &mut source).map_err(|_| CORRUPT)?;
            self.position += source.pos();
            let written = target.pos();
            if hint == 0 {
                self.frame_end = Some(self.position);
            }
            if written > 0 {
                return Ok(Some(written));
            }
            if at_end || (source.pos() == 0 && hint != 0) {
                return self.end(input).map(|()| None);
            }
        }
    }

    fn end(&self, input: &[u8]) -> Result<(), DecompressError> {
        let step = |end: usize| end.saturating_sub(1) / STEP_LEN;
        match self.frame_end {
            _ if input.is_empty() => Ok(()),
            Some(end) if step(end) == step(input.len()) => Ok(()),
            _ => Err(CORRUPT),
        }
    }
}
