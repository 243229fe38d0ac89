//! Partitions of a request, sent to their home cores side by side.

use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_types::TopicIdPartition;
use smallvec::SmallVec;

use crate::data::replica::Replica;
use crate::mesh::LocalFuture;
use crate::shard::Shard;

/// Answers of one core: places in the request and what was found there.
type Answers<R> = Vec<(usize, R)>;

/// Work on one partition of a request.
pub struct Part<T> {
    /// Its place in the request, for the answer.
    pub place: usize,
    /// The partition.
    pub id: TopicIdPartition,
    /// What is asked of it.
    pub ask: T,
}

/// Runs `work` for each part on the partition's home core and gives `(place, answer)` of all, in no order that means
/// anything. `work` gets the replica, or why nothing of the partition is served here. The parts of one core run one after
/// the other.
pub async fn run<T, R, F, W>(shard: &Rc<Shard>, parts: Vec<Part<T>>, work: W) -> Answers<R>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = R> + 'static,
    W: Fn(Rc<Shard>, Result<Rc<Replica>, Unserved>, T) -> F + Copy + Send + 'static,
{
    let count = parts.len();
    let mut by_home: SmallVec<[(usize, Vec<Part<T>>); 4]> = SmallVec::new();
    for part in parts {
        let home = shard.home_of(part.id);
        match by_home.iter_mut().find(|(known, _)| *known == home) {
            Some((_, parts)) => parts.push(part),
            None => by_home.push((home, vec![part])),
        }
    }
    let mut pending: SmallVec<[LocalFuture<Answers<R>>; 4]> = SmallVec::new();
    for (home, parts) in by_home {
        let here = move |shard: &Rc<Shard>| -> LocalFuture<Answers<R>> {
            let shard = shard.clone();
            Box::pin(async move {
                let mut answers = Vec::with_capacity(parts.len());
                for part in parts {
                    let replica = shard.served(part.id);
                    answers.push((part.place, work(shard.clone(), replica, part.ask).await));
                }
                answers
            })
        };
        pending.push(shard.begin_on(home, here).await);
    }
    let mut answers = Vec::with_capacity(count);
    for home in pending {
        answers.extend(home.await);
    }
    answers
}
