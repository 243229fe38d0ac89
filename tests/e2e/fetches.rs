//! Which fetches are answered at once, and which wait.
//!
//! Every case is one partition that has nothing to read yet, at its end, and another one beside it with which something
//! is the matter. `RINGLOG_E2E_NODE=kafka` asks Kafka: the table is what 4.3.1 does, without a session, in a new one and
//! in one that goes on. Followers of the partitions, asked by hand, are treated as consumers are.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{Cluster, ClusterPlan, FIRST_BROKER, Voters, turn};
use ringlog_e2e_tests::fetching::{FIRST_WITH_TOPIC_IDS, Fetched, Part, Topic, Wanted, connect, create, delete};
use ringlog_e2e_tests::node::{Kind, Node, Roles};
use ringlog_types::{ErrorCode, Uuid};

use ErrorCode::{
    FencedLeaderEpoch, NotLeaderOrFollower, OffsetOutOfRange, UnknownLeaderEpoch, UnknownTopicId,
    UnknownTopicOrPartition,
};

/// A fetch that waits does so for this long.
const WAIT: Duration = Duration::from_secs(6);
/// One that was answered within this time didn't wait.
const AT_ONCE: Duration = Duration::from_secs(5);
const VERSIONS: [i16; 5] = [4, 10, 12, 13, 17];
/// From this version on there are sessions.
const FIRST_WITH_SESSIONS: i16 = 7;
/// From this version on the client says which leader epoch it knows.
const FIRST_WITH_EPOCHS: i16 = 9;
/// How long a client asks on for a topic that is gone.
const SPIN: Duration = Duration::from_secs(5);

/// What is the matter with the second partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matter {
    Nothing,
    UnknownTopic,
    UnknownPartition,
    ZeroTopicId,
    DeletedTopic,
    /// By the topic's old id; its name exists again.
    MadeAnew,
    /// Another broker has it.
    Elsewhere,
    FencedEpoch,
    NewerEpoch,
    OutOfRange,
    /// There is no other partition than an unknown one.
    OnlyUnknown,
}

/// What comes of it.
struct Row {
    matter: Matter,
    /// The first version in which that can be asked.
    since: i16,
    by_name: Option<ErrorCode>,
    by_id: Option<ErrorCode>,
    waits: bool,
    /// The same for a broker that is none of the partitions' replicas, for which `NOT_LEADER_OR_FOLLOWER` is the first
    /// partition's error.
    to_stranger: Option<ErrorCode>,
}

const fn row(matter: Matter, by_name: Option<ErrorCode>, by_id: Option<ErrorCode>, waits: bool) -> Row {
    Row { matter, since: 4, by_name, by_id, waits, to_stranger: None }
}

const TABLE: [Row; 11] = [
    Row { to_stranger: Some(NotLeaderOrFollower), ..row(Matter::Nothing, None, None, true) },
    row(Matter::UnknownTopic, Some(UnknownTopicOrPartition), Some(UnknownTopicId), true),
    row(Matter::UnknownPartition, Some(UnknownTopicOrPartition), Some(UnknownTopicOrPartition), true),
    Row { since: FIRST_WITH_TOPIC_IDS, ..row(Matter::ZeroTopicId, None, Some(UnknownTopicId), true) },
    row(Matter::DeletedTopic, Some(UnknownTopicOrPartition), Some(UnknownTopicId), true),
    Row { since: FIRST_WITH_TOPIC_IDS, ..row(Matter::MadeAnew, None, Some(UnknownTopicId), true) },
    row(Matter::Elsewhere, Some(NotLeaderOrFollower), Some(NotLeaderOrFollower), false),
    Row {
        since: FIRST_WITH_EPOCHS,
        ..row(Matter::FencedEpoch, Some(FencedLeaderEpoch), Some(FencedLeaderEpoch), false)
    },
    Row {
        since: FIRST_WITH_EPOCHS,
        ..row(Matter::NewerEpoch, Some(UnknownLeaderEpoch), Some(UnknownLeaderEpoch), false)
    },
    Row {
        to_stranger: Some(NotLeaderOrFollower),
        ..row(Matter::OutOfRange, Some(OffsetOutOfRange), Some(OffsetOutOfRange), false)
    },
    row(Matter::OnlyUnknown, Some(UnknownTopicOrPartition), Some(UnknownTopicId), false),
];

impl Row {
    fn errors(&self, case: &Case) -> Vec<ErrorCode> {
        let own = if case.version < FIRST_WITH_TOPIC_IDS { self.by_name } else { self.by_id };
        match case.reader {
            Reader::Consumer => own.into_iter().collect(),
            Reader::Stranger if self.matter == Matter::OnlyUnknown => own.into_iter().collect(),
            Reader::Stranger => [Some(NotLeaderOrFollower), self.to_stranger.or(own)].into_iter().flatten().collect(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    None,
    New,
    /// Both partitions are in it, and the request names none.
    Going,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Consumer,
    /// A broker that is no replica of these partitions.
    Stranger,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    matter: Matter,
    reader: Reader,
    session: Session,
    version: i16,
}

/// The topics of the broker under test.
struct Topics {
    live: Topic,
    elsewhere: Topic,
    deleted: Topic,
    made_anew: Topic,
}

impl Topics {
    /// Makes them. The broker has been restarted since, so that epoch 0 is an old one.
    fn make(cluster: &mut Cluster) -> Result<Topics> {
        let bootstrap = cluster.bootstrap();
        let here = vec![FIRST_BROKER];
        let live = create(&bootstrap, "live", &[here.clone(), here.clone()], &[])?;
        let elsewhere = create(&bootstrap, "elsewhere", &[vec![1]], &[])?;
        let deleted = create(&bootstrap, "deleted", std::slice::from_ref(&here), &[])?;
        let made_anew = create(&bootstrap, "made-anew", std::slice::from_ref(&here), &[])?;
        delete(&bootstrap, &deleted)?;
        delete(&bootstrap, &made_anew)?;
        create(&bootstrap, "made-anew", &[here], &[])?;
        cluster.node(FIRST_BROKER)?.stop()?;
        cluster.start_node(FIRST_BROKER)?;
        Ok(Topics { live, elsewhere, deleted, made_anew })
    }
}

impl Case {
    fn parts(&self, topics: &Topics) -> Vec<Part> {
        let nowhere = Topic { name: "nowhere".to_owned(), id: Uuid([9; 16]) };
        let mut other = Part::of(&topics.live, 1, 0);
        match self.matter {
            Matter::Nothing => {}
            Matter::UnknownTopic => other = Part::of(&nowhere, 0, 0),
            Matter::UnknownPartition => other.partition = 77,
            Matter::ZeroTopicId => other = Part::of(&Topic { name: String::new(), id: Uuid([0; 16]) }, 0, 0),
            Matter::DeletedTopic => other = Part::of(&topics.deleted, 0, 0),
            Matter::MadeAnew => other = Part::of(&topics.made_anew, 0, 0),
            Matter::Elsewhere => other = Part::of(&topics.elsewhere, 0, 0),
            Matter::FencedEpoch => other.leader_epoch = 0,
            Matter::NewerEpoch => other.leader_epoch = 1_000,
            Matter::OutOfRange => other.offset = 1_000,
            Matter::OnlyUnknown => return vec![Part::of(&nowhere, 0, 0)],
        }
        vec![Part::of(&topics.live, 0, 0), other]
    }

    fn run(&self, address: &str, topics: &Topics) -> Result<Fetched> {
        let mut connection = connect(address)?;
        let parts = self.parts(topics);
        let follower = (self.reader == Reader::Stranger).then_some(99);
        let wanted = Wanted { follower, max_wait: WAIT, ..Wanted::at_once(self.version) };
        match self.session {
            Session::None => wanted.fetch(&mut connection, &parts),
            Session::New => Wanted { session: (0, 0), ..wanted }.fetch(&mut connection, &parts),
            Session::Going => {
                let first = Wanted { session: (0, 0), max_wait: Duration::ZERO, ..wanted };
                let id = first.fetch(&mut connection, &parts)?.response.session_id;
                ensure!(id != 0, "no session was made");
                Wanted { session: (id, 1), ..wanted }.fetch(&mut connection, &[])
            }
        }
    }

    fn check(&self, row: &Row, address: &str, topics: &Topics) -> Result<()> {
        let fetched = self.run(address, topics)?;
        let (errors, waited) = (fetched.errors(), fetched.took > AT_ONCE);
        ensure!(fetched.response.error_code == 0, "the answer as a whole has error {}", fetched.response.error_code);
        ensure!(errors == row.errors(self), "the errors are {errors:?}");
        // Whoever may not read the first partition is told so at once.
        let waits = row.waits && self.reader == Reader::Consumer;
        ensure!(waited == waits, "it took {:?}", fetched.took);
        Ok(())
    }
}

fn cases(row: &Row) -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS.into_iter().filter(|version| *version >= row.since) {
        for session in [Session::None, Session::New, Session::Going] {
            for reader in [Reader::Consumer, Reader::Stranger] {
                if session == Session::None || version >= FIRST_WITH_SESSIONS {
                    cases.push(Case { matter: row.matter, reader, session, version });
                }
            }
        }
    }
    cases
}

#[test]
fn only_what_reading_brings_to_light_is_told_at_once() -> Result<()> {
    let _turn = turn();
    let kind = Kind::under_test();
    let mut cluster = ClusterPlan::new("fetches", Voters::Static)
        .controllers(1, &[kind], Roles::Both)
        .brokers(1, &[kind])
        .settings("auto.create.topics.enable=false")
        .prepare()?;
    cluster.start()?;
    let topics = Topics::make(&mut cluster)?;
    let address = cluster.node(FIRST_BROKER)?.bootstrap();
    let failures: Vec<String> = thread::scope(|scope| {
        let mut running = Vec::new();
        for row in &TABLE {
            for case in cases(row) {
                let (address, topics) = (&address, &topics);
                let check = move || case.check(row, address, topics).err().map(|fault| format!("{case:?}: {fault:#}"));
                running.push(scope.spawn(check));
            }
        }
        running.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
    });
    ensure!(failures.is_empty(), "{} cases differ:\n{}", failures.len(), failures.join("\n"));
    cluster.stop().map(drop)
}

/// CPU time that the node has used so far.
fn cpu_time(node: &Node) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.process_id()?))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // In hundredths of a second on Linux, whatever the machine.
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

#[test]
fn a_client_that_still_asks_for_a_deleted_topic_does_not_spin() -> Result<()> {
    let _turn = turn();
    let mut node = Node::start_new("spinning", Kind::under_test(), "auto.create.topics.enable=false")?;
    let address = node.bootstrap();
    let live = create(&address, "live", &[vec![1]], &[])?;
    let gone = create(&address, "gone", &[vec![1]], &[])?;
    delete(&address, &gone)?;
    for version in [4, 17] {
        let mut connection = connect(&address)?;
        let wanted = Wanted { max_wait: Duration::from_secs(1), ..Wanted::at_once(version) };
        let parts = [Part::of(&live, 0, 0), Part::of(&gone, 0, 0)];
        let (begun, cpu_before) = (Instant::now(), cpu_time(&node)?);
        let mut fetches = 0;
        while begun.elapsed() < SPIN {
            let errors = wanted.fetch(&mut connection, &parts)?.errors();
            ensure!(errors.len() == 1, "the live partition is fine: {errors:?}");
            fetches += 1;
        }
        let cpu = cpu_time(&node)?.saturating_sub(cpu_before);
        println!("version {version}: {fetches} fetches in {SPIN:?}, {cpu:?} of the node's CPU time");
        ensure!(fetches <= 5, "{fetches} fetches in {SPIN:?} ({cpu:?} of the node's CPU time)");
    }
    node.stop()
}
