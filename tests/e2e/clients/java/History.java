import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own client under faults: an idempotent producer, a reader that seeks and two members of a group, which tell what
 * they see: PROCESS OPERATION PHASE ..., as tests/e2e/rounds/history.rs has it.
 *
 * <pre>
 * History BOOTSTRAP PARTITIONS RATE TOPIC...     until standard input ends; RATE records a second to each partition
 * </pre>
 *
 * On standard input: "seek" sends the reader back to the beginning, "stop" ends the producer, which says "stopped" then.
 */
public final class History {
    private static final Duration POLL = Duration.ofMillis(200);
    private static final AtomicInteger SEEKS = new AtomicInteger();
    private static volatile boolean stopped;
    private static volatile boolean ended;

    public static void main(String[] args) throws Exception {
        String bootstrap = args[0];
        int count = Integer.parseInt(args[1]);
        int rate = Integer.parseInt(args[2]);
        List<String> topics = Arrays.asList(args).subList(3, args.length);
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : topics) {
            for (int partition = 0; partition < count; partition++) {
                partitions.add(new TopicPartition(topic, partition));
            }
        }
        List<Thread> threads = new ArrayList<>();
        threads.add(start(() -> produce(bootstrap, partitions, rate)));
        threads.add(start(() -> read(bootstrap, partitions)));
        for (String name : List.of("java-member-1", "java-member-2")) {
            threads.add(start(() -> member(bootstrap, name, topics)));
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            switch (line) {
                case "seek" -> SEEKS.incrementAndGet();
                case "stop" -> stopped = true;
                default -> throw new IllegalArgumentException(line);
            }
        }
        stopped = true;
        ended = true;
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private static Thread start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable failure) {
                failure.printStackTrace();
                System.exit(1);
            }
        });
        thread.start();
        return thread;
    }

    private static void tell(String line) {
        System.out.println(line);
    }

    private static String reason(Throwable failure) {
        return failure.getClass().getSimpleName() + " " + String.valueOf(failure.getMessage()).replace('\n', ' ');
    }

    private static void produce(String bootstrap, List<TopicPartition> partitions, int rate) throws Exception {
        String me = "java";
        tell(me + " is ok idempotent");
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("request.timeout.ms", 3000);
        settings.put("delivery.timeout.ms", 60_000);
        settings.put("max.block.ms", 60_000);
        settings.put("linger.ms", 5);
        settings.put("reconnect.backoff.max.ms", 200);
        Semaphore inFlight = new Semaphore(500);
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (long number = 0; !stopped; number++) {
                for (TopicPartition partition : partitions) {
                    inFlight.acquire();
                    String name = me + ":" + number;
                    tell(me + " send invoke " + partition + " " + name);
                    ProducerRecord<byte[], byte[]> record =
                            new ProducerRecord<>(partition.topic(), partition.partition(), null, value(name, 150));
                    producer.send(record, (done, failure) -> {
                        inFlight.release();
                        tell(failure == null
                                ? me + " send ok " + partition + " " + name + " " + done.offset()
                                : me + " send info " + partition + " " + name + " " + reason(failure));
                    });
                }
                Thread.sleep(1000 / rate);
            }
            producer.flush();
        }
        tell("stopped");
    }

    private static byte[] value(String name, int bytes) {
        StringBuilder text = new StringBuilder(name).append(' ');
        for (int at = 0; text.length() < bytes; at++) {
            text.append(name.charAt(at % name.length()));
        }
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.auto.commit", "false");
        settings.put("request.timeout.ms", 3000);
        settings.put("default.api.timeout.ms", 5000);
        settings.put("reconnect.backoff.max.ms", 200);
        settings.put("fetch.max.wait.ms", 200);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void read(String bootstrap, List<TopicPartition> partitions) {
        String me = "java-reader";
        tell(me + " is ok reader");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("auto.offset.reset", "none"))) {
            consumer.assign(partitions);
            int seeks = -1;
            while (!ended) {
                int wanted = SEEKS.get();
                if (wanted != seeks) {
                    seeks = wanted;
                    for (TopicPartition partition : partitions) {
                        consumer.seek(partition, 0);
                        tell(me + " seek ok " + partition + " 0");
                    }
                }
                try {
                    poll(me, consumer);
                } catch (OffsetOutOfRangeException failure) {
                    for (TopicPartition partition : failure.partitions()) {
                        tell(me + " poll fail " + partition + " " + reason(failure));
                        consumer.seek(partition, 0);
                        tell(me + " seek ok " + partition + " 0");
                    }
                }
            }
        }
    }

    private static void poll(String me, KafkaConsumer<byte[], byte[]> consumer) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(POLL);
        for (TopicPartition partition : records.partitions()) {
            StringBuilder line = new StringBuilder(me).append(" poll ok ").append(partition);
            for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
                String value = new String(record.value(), StandardCharsets.UTF_8);
                String name = value.split(" ", 2)[0];
                boolean whole = Arrays.equals(record.value(), value(name, record.value().length));
                line.append(' ').append(record.offset()).append('=').append(whole ? name : "damaged-" + name);
            }
            tell(line.toString());
        }
    }

    private static void member(String bootstrap, String me, List<String> topics) {
        tell(me + " is ok member java-group");
        Map<String, Object> settings = Map.of("group.id", "java-group", "auto.offset.reset", "earliest",
                "session.timeout.ms", 6000, "heartbeat.interval.ms", 500);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, settings)) {
            consumer.subscribe(topics, new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    for (TopicPartition partition : partitions) {
                        long position;
                        try {
                            position = consumer.position(partition);
                        } catch (RuntimeException failure) {
                            position = -1;
                        }
                        tell(me + " assign ok " + partition + " " + position);
                    }
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    // What comes next begins with an assignment.
                }
            });
            while (!ended) {
                poll(me, consumer);
                commit(me, consumer);
            }
        }
    }

    private static void commit(String me, KafkaConsumer<byte[], byte[]> consumer) {
        Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
        try {
            for (TopicPartition partition : consumer.assignment()) {
                positions.put(partition, new OffsetAndMetadata(consumer.position(partition)));
            }
        } catch (RuntimeException failure) {
            return;
        }
        // Before it may be in force, so that no other member can begin there unannounced.
        positions.forEach((partition, position) -> tell(me + " commit info " + partition + " " + position.offset()));
        try {
            consumer.commitSync(positions);
        } catch (RuntimeException failure) {
            return;
        }
        positions.forEach((partition, position) -> tell(me + " commit ok " + partition + " " + position.offset()));
    }
}
