"""kafka-python. The same commands and lines of JSON as ../java/Client.java:

produce BOOTSTRAP TOPIC CODEC        records from standard input
consume BOOTSTRAP COUNT TOPIC...     so many records from the beginning of the topics
member BOOTSTRAP TOPIC GROUP         a member of a group until standard input ends
"""

import base64
import json
import sys
import threading
import time

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition

PATIENCE_S = 60


def decoded(text):
    return None if text is None else base64.b64decode(text)


def encoded(data):
    return None if data is None else base64.b64encode(data).decode()


def show(**fields):
    print(json.dumps(fields), flush=True)


def as_json(record):
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": encoded(record.key),
        "value": encoded(record.value),
        "headers": [[name, encoded(value)] for name, value in record.headers],
    }


def produce(bootstrap, topic, codec):
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec)
    sent = []
    for line in sys.stdin:
        record = json.loads(line)
        headers = [(name, decoded(value)) for name, value in record["headers"]]
        sent.append(producer.send(topic, key=decoded(record["key"]), value=decoded(record["value"]), headers=headers))
    producer.flush()
    for one in sent:
        one.get(timeout=PATIENCE_S)
    producer.close()


def consume(bootstrap, count, *topics):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)])
    deadline = time.monotonic() + PATIENCE_S
    seen = 0
    while seen < int(count):
        if time.monotonic() > deadline:
            sys.exit(f"only {seen} of {count} records came")
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                show(**as_json(record))
                seen += 1
    consumer.close()


class Watch(ConsumerRebalanceListener):
    def __init__(self):
        self.assigned = set()

    def on_partitions_assigned(self, assigned):
        self.assigned |= {partition.partition for partition in assigned}
        show(assigned=sorted(self.assigned))

    def on_partitions_revoked(self, revoked):
        self.assigned -= {partition.partition for partition in revoked}


def member(bootstrap, topic, group):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    # A topic that this client asked for while another request for metadata was under way is missed until the next one.
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        metadata_max_age_ms=5_000,
    )
    consumer.subscribe([topic], listener=Watch())
    while not ended.is_set():
        # An assignment that arrives right when a poll's time is up is lost on this client, which then waits for ever: few polls
        # have few ends.
        for records in consumer.poll(timeout_ms=5_000).values():
            for record in records:
                show(record=as_json(record))
            consumer.commit()
    consumer.close()


if __name__ == "__main__":
    {"produce": produce, "consume": consume, "member": member}[sys.argv[1]](*sys.argv[2:])
