//! Fetch sessions of those who fetch from here, as Kafka's `FetchManager` keeps them (KIP-227).

use std::collections::BTreeMap;

use ringlog_protocol::messages::FetchRequest;
use ringlog_types::ErrorCode;

use super::disk::Key;
use super::reading::Wanted;

/// What a session knows of a partition.
#[derive(Debug, Clone, Copy)]
struct Cached {
    wanted: Wanted,
    /// What the reader was told last of what is committed, and where the log starts.
    told: Option<(i64, i64)>,
    /// Who had records last comes last.
    turn: u64,
}

#[derive(Debug, Default)]
struct Session {
    epoch: i32,
    partitions: BTreeMap<Key, Cached>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Sessions {
    most: usize,
    next_id: i32,
    turns: u64,
    open: BTreeMap<i32, Session>,
}

/// A request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything is answered, in no session.
    None,
    /// Everything is answered, and a session begins if there is room for one.
    New,
    /// What has news is answered.
    Known(i32),
}

/// The partitions that a request is about, in order.
pub type Asked = Vec<(Key, Wanted)>;

/// What an answer says of a partition.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Which.
    pub key: Key,
    /// It has records.
    pub has_records: bool,
    /// It has something else that has to be said.
    pub is_special: bool,
    /// What is committed, and where the log starts.
    pub offsets: (i64, i64),
}

impl Sessions {
    /// So many at a time.
    pub fn new(most: usize) -> Sessions {
        Sessions { most, next_id: 1, turns: 0, open: BTreeMap::new() }
    }

    /// A request comes.
    pub fn begin(&mut self, request: &FetchRequest) -> Result<(Kind, Asked), ErrorCode> {
        let named = named(request);
        if request.session_epoch <= 0 {
            self.open.remove(&request.session_id);
            let kind = if request.session_epoch == 0 { Kind::New } else { Kind::None };
            return Ok((kind, named));
        }
        let session = self.open.get_mut(&request.session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if request.session_epoch != session.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        for (key, wanted) in named {
            let turn = session.partitions.get(&key).map_or(self.turns, |cached| cached.turn);
            let told = session.partitions.get(&key).and_then(|cached| cached.told);
            session.partitions.insert(key, Cached { wanted, told, turn });
        }
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                session.partitions.remove(&(topic.topic_id, *partition));
            }
        }
        let mut all: Vec<_> =
            session.partitions.iter().map(|(key, cached)| (cached.turn, *key, cached.wanted)).collect();
        all.sort_unstable_by_key(|(turn, key, _)| (*turn, *key));
        Ok((Kind::Known(request.session_id), all.into_iter().map(|(_, key, wanted)| (key, wanted)).collect()))
    }

    /// What is found is to be answered: the session's id, and whether each is named.
    pub fn finish(&mut self, kind: Kind, asked: &Asked, found: &[Told]) -> (i32, Vec<bool>) {
        let all = vec![true; found.len()];
        let id = match kind {
            Kind::None => return (0, all),
            Kind::New if self.open.len() >= self.most => return (0, all),
            Kind::New => self.next_id,
            Kind::Known(id) => id,
        };
        if kind == Kind::New {
            self.next_id += 1;
            let cached = |(key, wanted): &(Key, Wanted)| (*key, Cached { wanted: *wanted, told: None, turn: 0 });
            self.open.insert(id, Session { epoch: 1, partitions: asked.iter().map(cached).collect() });
        }
        let Some(session) = self.open.get_mut(&id) else { return (0, all) };
        let mut named = Vec::new();
        for told in found {
            let Some(cached) = session.partitions.get_mut(&told.key) else {
                named.push(kind == Kind::New);
                continue;
            };
            let is_news = cached.told != Some(told.offsets);
            named.push(kind == Kind::New || told.has_records || told.is_special || is_news);
            cached.told = if told.is_special { None } else { Some(told.offsets) };
            if told.has_records {
                self.turns += 1;
                cached.turn = self.turns;
            }
        }
        (id, named)
    }
}

fn named(request: &FetchRequest) -> Asked {
    let mut named = Vec::new();
    for topic in &request.topics {
        for it in &topic.partitions {
            let wanted = Wanted {
                leader_epoch: it.current_leader_epoch,
                offset: it.fetch_offset,
                last_epoch: it.last_fetched_epoch,
                start: it.log_start_offset,
                bytes_max: usize::try_from(it.partition_max_bytes).unwrap_or(0),
            };
            named.push(((topic.topic_id, it.partition), wanted));
        }
    }
    named
}
