//! A lone controller of real Kafka and one of Ringlog that are asked the same, and must answer and write the same.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ringlog_client::{ClientOptions, Connection};
use ringlog_e2e_tests::node::{Kind, Node, NodePlan, Roles};
use ringlog_e2e_tests::place::Place;
use ringlog_e2e_tests::wait_until;
use ringlog_metadata::image::{MetadataDelta, MetadataImage, Provenance};
use ringlog_protocol::messages::AllocateProducerIdsRequest;
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_protocol::{Decoder, RequestBody, ResponseBody, frame};
use ringlog_types::ErrorCode;

use super::names::Names;

const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is looked at at once; a batch is smaller.
const LOG_WINDOW_BYTES: usize = 1 << 20;
/// As many bytes of zeros are no batch.
const FIRST_BYTES: usize = 61;
/// Of the controllers: nothing happens but what is asked for.
const SETTINGS: &str = "broker.session.timeout.ms=3600000\nauto.leader.rebalance.enable=false\n\
     unclean.leader.election.interval.ms=3600000\nmetadata.max.idle.interval.ms=0\n\
     controller.quorum.append.linger.ms=0\n";

/// The node id of either controller.
pub const CONTROLLER: i32 = 1;

/// The two controllers, and the state that both have.
pub struct Pair {
    kafka: Side,
    ringlog: Side,
    /// What the log holds, under common names.
    pub image: MetadataImage,
}

struct Side {
    node: Node,
    connection: Connection,
    names: Names,
    log: PathBuf,
    read_to: u64,
    last_offset: i64,
    scratch: Scratch,
    correlation_id: i32,
}

impl Pair {
    /// Starts both, formatted for this release.
    pub fn start(release: &str) -> Result<Pair> {
        let kafka = Side::start(Kind::Kafka, release)?;
        let ringlog = Side::start(Kind::Ringlog, release)?;
        let mut pair = Pair { kafka, ringlog, image: MetadataImage::empty() };
        pair.wait_until_active()?;
        pair.take_records()?;
        Ok(pair)
    }

    /// Stops and starts both: sessions of fenced brokers are forgotten.
    pub fn restart(&mut self) -> Result<()> {
        self.kafka.node.stop()?;
        self.ringlog.node.stop()?;
        self.kafka.node.start()?;
        self.ringlog.node.start()?;
        self.kafka.connect()?;
        self.ringlog.connect()?;
        self.wait_until_active()?;
        self.take_records()?;
        self.kafka.names.forget_log_ends();
        self.ringlog.names.forget_log_ends();
        Ok(())
    }

    /// Waits until both decide.
    fn wait_until_active(&mut self) -> Result<()> {
        for side in [&mut self.kafka, &mut self.ringlog] {
            wait_until("the controller to be active", PATIENCE, || Ok(side.is_active()?.then_some(())))?;
        }
        Ok(())
    }

    /// Asks both in the highest version.
    pub fn ask(&mut self, request: impl Into<RequestBody>) -> Result<ResponseBody> {
        let request = request.into();
        let version = self.highest_version(&request)?;
        self.ask_in(request, version)?.context("Kafka fails")
    }

    /// The highest version of the request that both know.
    pub fn highest_version(&self, request: &RequestBody) -> Result<i16> {
        let key = request.api_key();
        let range = |side: &Side| side.connection.versions().range(key).with_context(|| format!("{key:?} is known"));
        let ranges = [range(&self.kafka)?, range(&self.ringlog)?];
        ensure!(ranges[0] == ranges[1], "versions of {key:?}: {ranges:?}");
        Ok(ranges[0].1.min(key.max_version()))
    }

    /// Asks both. The answers, and what was written meanwhile, must be the same but for names and what [`Names`] sorts.
    /// Nothing if Kafka fails by a fault of its own, after which the two can't be compared any more.
    pub fn ask_in(&mut self, request: RequestBody, version: i16) -> Result<Option<ResponseBody>> {
        self.kafka.send(&request, version)?;
        self.ringlog.send(&request, version)?;
        let mut kafka = self.kafka.receive(&request, version);
        let mut ringlog = self.ringlog.receive(&request, version);
        // Only what nobody thought of has this code.
        if kafka.as_ref().is_ok_and(|answer| format!("{answer:?}").contains("error_code: -1,")) {
            ringlog?;
            return Ok(None);
        }
        let records = self.take_records();
        for (side, answer) in [(&self.kafka, &mut kafka), (&self.ringlog, &mut ringlog)] {
            if let Ok(answer) = answer {
                side.names.to_common(answer);
            }
        }
        let explain = || format!("{request:?} in version {version}\nKafka:   {kafka:?}\nRinglog: {ringlog:?}");
        let records = records.with_context(explain)?;
        match (&kafka, &ringlog) {
            (Ok(answer), Ok(other)) if answer == other => {}
            _ => bail!("another answer to {}\nrecords: {records:?}", explain()),
        }
        kafka.map(Some)
    }

    /// Compares what has been written since the last time, and replays it.
    fn take_records(&mut self) -> Result<Vec<RecordAndVersion>> {
        let mut kafka = self.kafka.new_records()?;
        let mut ringlog = self.ringlog.new_records()?;
        self.kafka.names.rename_records(&mut kafka);
        self.ringlog.names.rename_records(&mut ringlog);
        if kafka != ringlog {
            let lines = |records: &[RecordAndVersion]| {
                records.iter().map(|it| format!("  v{} {:?}\n", it.version, it.record)).collect::<String>()
            };
            bail!("other records\nKafka:\n{}Ringlog:\n{}", lines(&kafka), lines(&ringlog));
        }
        let mut delta = MetadataDelta::new(&self.image);
        for record in &kafka {
            delta.replay(&record.record)?;
        }
        self.image = delta.apply(Provenance::EMPTY).0;
        Ok(kafka)
    }
}

impl Side {
    fn start(kind: Kind, release: &str) -> Result<Side> {
        let mut node = Node::new(NodePlan {
            name: format!("decisions-{kind:?}").to_lowercase(),
            kind,
            id: CONTROLLER,
            roles: Roles::Controller,
            log_dirs: "data".to_owned(),
            settings: SETTINGS.to_owned(),
            place: Place::loopback(),
            java_options: Vec::new(),
        })?;
        node.set("controller.quorum.voters", &format!("{CONTROLLER}@{}", node.controller()))?;
        node.format(&["-r", release])?;
        node.start()?;
        let log = node.metadata_folder().join("00000000000000000000.log");
        let connection = connect(&node)?;
        let (names, scratch) = (Names::default(), Scratch::new(LOG_WINDOW_BYTES));
        Ok(Side { node, connection, names, log, read_to: 0, last_offset: -1, scratch, correlation_id: 0 })
    }

    fn connect(&mut self) -> Result<()> {
        self.connection = connect(&self.node)?;
        Ok(())
    }

    fn send(&mut self, request: &RequestBody, version: i16) -> Result<()> {
        let mut request = request.clone();
        self.names.to_own(&mut request);
        self.correlation_id += 1;
        let frame = frame::encode_request_body(&request, version, self.correlation_id, Some("decisions"))?;
        Ok(self.connection.send_frame(&frame)?)
    }

    /// Whether it decides already.
    fn is_active(&mut self) -> Result<bool> {
        let request = AllocateProducerIdsRequest { broker_id: -1, broker_epoch: -1 }.into();
        self.send(&request, 0)?;
        match self.receive(&request, 0)? {
            ResponseBody::AllocateProducerIds(it) => Ok(it.error_code != ErrorCode::NotController.code()),
            other => bail!("{other:?} answers {request:?}"),
        }
    }

    fn receive(&mut self, request: &RequestBody, version: i16) -> Result<ResponseBody> {
        let key = request.api_key();
        let mut input = Decoder::new(self.connection.recv_frame().with_context(|| self.node.explanation())?);
        let correlation_id = frame::decode_response_header(&mut input, key, version)?;
        ensure!(correlation_id == self.correlation_id, "an answer to another request");
        let response = ResponseBody::decode(key, version, &mut input)?;
        input.expect_end()?;
        Ok(response)
    }

    /// Everything in the log from this position on, and the position behind.
    fn read_from(&mut self, start: u64) -> Result<(Vec<RecordAndVersion>, u64)> {
        let (mut records, mut position) = (Vec::new(), start);
        let file = match File::open(&self.log) {
            Ok(file) => file,
            // A node that has just been formatted and started.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((records, position)),
            Err(error) => return Err(error.into()),
        };
        let mut window = vec![0; 16 << 10];
        loop {
            let length = file.read_at(&mut window, position)?;
            let mut batches = BatchIter::new(&window[..length]);
            let mut whole = 0;
            while let Some(Ok(batch)) = batches.next() {
                if batch.verify_crc().is_err() {
                    break;
                }
                whole = batches.position();
                self.last_offset = batch.header.next_offset().0 - 1;
                if batch.header.is_control() {
                    continue;
                }
                for record in batch.records(&mut self.scratch)? {
                    let value = record?.value.context("a record has a value")?;
                    let (record, version) = MetadataRecord::decode_framed(Bytes::copy_from_slice(value))?;
                    records.push(RecordAndVersion { record, version });
                }
            }
            position += whole as u64;
            // Behind the last batch there may be room for more.
            let is_room = window[whole..length].iter().take(FIRST_BYTES).all(|byte| *byte == 0);
            if is_room || length < window.len() || (whole == 0 && length == LOG_WINDOW_BYTES) {
                return Ok((records, position));
            }
            if whole == 0 {
                // Nothing, or the beginning of a large batch.
                window.resize(LOG_WINDOW_BYTES, 0);
            }
        }
    }

    /// What was written since the last time, without what a controller writes of itself.
    fn new_records(&mut self) -> Result<Vec<RecordAndVersion>> {
        let (mut records, position) = self.read_from(self.read_to)?;
        self.read_to = position;
        self.names.on_log_end(self.last_offset);
        records.retain(|it| match &it.record {
            MetadataRecord::NoOp(_) => false,
            MetadataRecord::RegisterController(it) => it.controller_id != CONTROLLER,
            _ => true,
        });
        Ok(records)
    }
}

fn connect(node: &Node) -> Result<Connection> {
    let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
    Ok(Connection::connect(&node.controller(), &options)?)
}
