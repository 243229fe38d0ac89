//! The lines of a history.

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// What the rounds did, for who reads the history.
    Remark,
    /// `is ok`: a producer; whether it is idempotent.
    Producer { is_idempotent: bool },
    /// `is ok`: a reader that seeks by itself.
    Reader,
    /// `is ok`: a member of this group.
    Member(&'a str),
    /// `is ok`: who reads everything at the end.
    Final,
    /// `send invoke`: partition and record.
    Sent(&'a str, &'a str),
    /// `send again`.
    SentAgain(&'a str, &'a str),
    /// `send ok`: partition, record, and the offset if it was told.
    Acknowledged(&'a str, &'a str, Option<i64>),
    /// `send fail`.
    Refused(&'a str, &'a str),
    /// `send info`.
    Unknown(&'a str, &'a str),
    /// `sequence fail`: partition and reason.
    Sequence(&'a str, String),
    /// `seek ok`.
    Sought(&'a str, i64),
    /// `assign ok`.
    Assigned(&'a str, i64),
    /// `commit ok` or `commit info`; whether it was acknowledged.
    Committed(&'a str, i64, bool),
    /// `poll ok`: partition, offsets and records.
    Polled(&'a str, Vec<(i64, &'a str)>),
    /// `poll fail`: partition and reason.
    NotPolled(&'a str, String),
    /// `end ok`.
    End(&'a str, i64),
}

/// Who and what, if the line can be understood.
pub fn parse(line: &str) -> Option<(&str, Event<'_>)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [time, process, operation, phase, rest @ ..] = &words[..] else { return None };
    time.parse::<u64>().ok()?;
    let offset = |word: &str| word.parse::<i64>().ok();
    if matches!(*operation, "fault" | "healed" | "synced") {
        return Some((process, Event::Remark));
    }
    let event = match (*operation, *phase, rest) {
        ("is", "ok", ["idempotent"]) => Event::Producer { is_idempotent: true },
        ("is", "ok", ["plain"]) => Event::Producer { is_idempotent: false },
        ("is", "ok", ["reader"]) => Event::Reader,
        ("is", "ok", ["member", group]) => Event::Member(group),
        ("is", "ok", ["final"]) => Event::Final,
        ("send", "invoke", [partition, name]) => Event::Sent(partition, name),
        ("send", "again", [partition, name]) => Event::SentAgain(partition, name),
        ("send", "ok", [partition, name, "-"]) => Event::Acknowledged(partition, name, None),
        ("send", "ok", [partition, name, at]) => Event::Acknowledged(partition, name, Some(offset(at)?)),
        ("send", "fail", [partition, name, ..]) => Event::Refused(partition, name),
        ("send", "info", [partition, name, ..]) => Event::Unknown(partition, name),
        ("sequence", "fail", [partition, why @ ..]) => Event::Sequence(partition, why.join(" ")),
        ("seek", "ok", [partition, at]) => Event::Sought(partition, offset(at)?),
        ("assign", "ok", [partition, at]) => Event::Assigned(partition, offset(at)?),
        ("commit", "ok", [partition, at]) => Event::Committed(partition, offset(at)?, true),
        ("commit", "info", [partition, at]) => Event::Committed(partition, offset(at)?, false),
        ("poll", "ok", [partition, records @ ..]) => {
            let record = |word: &&'_ str| -> Option<(i64, usize)> {
                let at = word.find('=')?;
                Some((word[..at].parse().ok()?, at + 1))
            };
            let mut polled = Vec::with_capacity(records.len());
            for word in records {
                let (at, name) = record(word)?;
                polled.push((at, &word[name..]));
            }
            Event::Polled(partition, polled)
        }
        ("poll", "fail", [partition, why @ ..]) => Event::NotPolled(partition, why.join(" ")),
        ("end", "ok", [partition, at]) => Event::End(partition, offset(at)?),
        _ => return None,
    };
    Some((process, event))
}
