import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.CloseableIterator;

/**
 * Kafka's own client. Records go in and out as lines of JSON with bytes in base64:
 * {"key": "...", "value": null, "headers": [["name", "..."]]}, when read also "topic", "partition", "offset", "timestamp".
 *
 * <pre>
 * produce BOOTSTRAP TOPIC CODEC         records from standard input
 * consume BOOTSTRAP COUNT TOPIC...      so many records from the beginning of the topics
 * member BOOTSTRAP TOPIC GROUP          a member of a group until standard input ends: {"assigned": [..]}, {"record": ..}
 * load BOOTSTRAP TOPIC [ROUNDS]         numbered records for ever, so many rounds a second (10,000), until standard input
 *                                       ends: PARTITION NUMBER OFFSET
 * dump BOOTSTRAP ISOLATION TOPIC...     everything in these topics as one JSON object
 * records                               batches in base64 from standard input: how many records a reader finds, or why none
 * </pre>
 */
public final class Client {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "produce" -> produce(args[1], args[2], args[3]);
            case "consume" -> consume(args[1], Integer.parseInt(args[2]), List.of(args).subList(3, args.length));
            case "member" -> member(args[1], args[2], args[3]);
            case "load" -> load(args[1], args[2], args.length > 3 ? Integer.parseInt(args[3]) : 10_000);
            case "dump" -> dump(args[1], args[2], List.of(args).subList(3, args.length));
            case "records" -> records();
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Defaults: idempotent, acks=all. */
    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.auto.commit", "false");
        settings.putIfAbsent("auto.offset.reset", "earliest");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void produce(String bootstrap, String topic, String codec) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, Map.of("compression.type", codec))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                JsonNode node = JSON.readTree(line);
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, bytes(node.get("key")), bytes(node.get("value")));
                for (JsonNode header : node.get("headers")) {
                    record.headers().add(header.get(0).asText(), bytes(header.get(1)));
                }
                sent.add(producer.send(record));
            }
            producer.flush();
            for (Future<RecordMetadata> one : sent) {
                one.get();
            }
        }
    }

    private static void consume(String bootstrap, int count, List<String> topics) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of())) {
            consumer.assign(partitions(consumer, topics));
            for (int seen = 0; seen < count; ) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("only " + seen + " of " + count + " records came");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(JSON.writeValueAsString(json(record)));
                    seen++;
                }
            }
        }
    }

    private static List<TopicPartition> partitions(KafkaConsumer<byte[], byte[]> consumer, Collection<String> topics) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : topics) {
            for (PartitionInfo info : consumer.partitionsFor(topic)) {
                partitions.add(new TopicPartition(topic, info.partition()));
            }
        }
        return partitions;
    }

    private static void member(String bootstrap, String topic, String group) throws Exception {
        AtomicBoolean ended = endOfInput();
        Set<Integer> assigned = new TreeSet<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("group.id", group))) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    partitions.forEach(partition -> assigned.add(partition.partition()));
                    System.out.println("{\"assigned\":" + assigned + "}");
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    partitions.forEach(partition -> assigned.remove(partition.partition()));
                }
            });
            while (!ended.get()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    System.out.println("{\"record\":" + JSON.writeValueAsString(json(record)) + "}");
                }
                consumer.commitSync();
            }
        }
    }

    private static void load(String bootstrap, String topic, int rounds) throws Exception {
        AtomicBoolean ended = endOfInput();
        Semaphore inFlight = new Semaphore(2000);
        Map<String, Object> patient = Map.of("delivery.timeout.ms", 600_000, "reconnect.backoff.max.ms", 100);
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, patient)) {
            int partitions = producer.partitionsFor(topic).size();
            for (long number = 0; !ended.get(); number++) {
                // Ten thousand a second: enough to be in the middle of something always, and a hundred rounds fit on a disk.
                if (rounds < 1_000) {
                    Thread.sleep(1_000 / rounds);
                } else if (number % (rounds / 1_000) == 0) {
                    Thread.sleep(1);
                }
                for (int partition = 0; partition < partitions; partition++) {
                    inFlight.acquire();
                    String value = Long.toString(number);
                    byte[] bytes = (value + " ".repeat(100)).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(topic, partition, null, bytes), (done, failure) -> {
                        inFlight.release();
                        String outcome = failure == null ? done.partition() + " " + value + " " + done.offset() : "failed " + failure;
                        System.out.println(outcome);
                    });
                }
            }
        }
    }

    private static void dump(String bootstrap, String isolation, List<String> topics) throws Exception {
        ObjectNode all = JSON.createObjectNode();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("isolation.level", isolation))) {
            for (TopicPartition partition : partitions(consumer, topics)) {
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                long end = consumer.endOffsets(List.of(partition)).get(partition);
                ObjectNode one = all.putObject(partition.toString());
                one.put("start", consumer.beginningOffsets(List.of(partition)).get(partition));
                one.put("end", end);
                ArrayNode records = one.putArray("records");
                while (consumer.position(partition) < end) {
                    if (System.nanoTime() > deadline) {
                        throw new IllegalStateException(partition + " stays at " + consumer.position(partition) + " of " + end);
                    }
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                        records.add(json(record));
                    }
                }
            }
        }
        System.out.println(JSON.writeValueAsString(all));
    }

    /** Reads each batch to its end as a consumer does. */
    private static void records() throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String found;
            try {
                int count = 0;
                MemoryRecords all = MemoryRecords.readableRecords(ByteBuffer.wrap(Base64.getDecoder().decode(line)));
                for (RecordBatch batch : all.batches()) {
                    batch.ensureValid();
                    try (CloseableIterator<Record> records = batch.streamingIterator(BufferSupplier.NO_CACHING)) {
                        while (records.hasNext()) {
                            Record record = records.next();
                            record.ensureValid();
                            record.headers();
                            count++;
                        }
                    }
                }
                found = Integer.toString(count);
            } catch (Throwable error) {
                found = error.getClass().getSimpleName() + ": " + error.getMessage();
            }
            System.out.println(found.replace('\n', ' '));
        }
    }

    private static AtomicBoolean endOfInput() {
        AtomicBoolean ended = new AtomicBoolean();
        Thread thread = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Only the end matters.
                }
            } catch (IOException failure) {
                // Also an end.
            }
            ended.set(true);
        });
        thread.setDaemon(true);
        thread.start();
        return ended;
    }

    private static ObjectNode json(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = JSON.createObjectNode();
        node.put("topic", record.topic());
        node.put("partition", record.partition());
        node.put("offset", record.offset());
        node.put("timestamp", record.timestamp());
        node.put("timestampType", record.timestampType().toString());
        record.leaderEpoch().ifPresent(epoch -> node.put("leaderEpoch", epoch));
        node.put("key", text(record.key()));
        node.put("value", text(record.value()));
        ArrayNode headers = node.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(text(header.value()));
        }
        return node;
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }

    private static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }
}
