// franz-go. The same commands and lines of JSON as ../java/Client.java:
//
//	produce BOOTSTRAP TOPIC CODEC        records from standard input
//	consume BOOTSTRAP COUNT TOPIC...     so many records from the beginning of the topics
//	member BOOTSTRAP TOPIC GROUP         a member of a group until standard input ends
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const patience = 60 * time.Second

// Byte slices are base64 in JSON, nil is null.
type record struct {
	Topic     string      `json:"topic,omitempty"`
	Partition int32       `json:"partition"`
	Offset    int64       `json:"offset"`
	Timestamp int64       `json:"timestamp"`
	Key       []byte      `json:"key"`
	Value     []byte      `json:"value"`
	Headers   [][2]header `json:"headers"`
}

// A header's name, which is text, or its value, which is base64 or null.
type header *string

func main() {
	log.SetFlags(0)
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "produce":
		produce(arguments[0], arguments[1], arguments[2])
	case "consume":
		count, err := strconv.Atoi(arguments[1])
		check(err)
		consume(arguments[0], count, arguments[2:])
	case "member":
		member(arguments[0], arguments[1], arguments[2])
	default:
		log.Fatal("unknown command ", os.Args[1])
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(options...)
	check(err)
	return client
}

func show(what any) {
	line, err := json.Marshal(what)
	check(err)
	fmt.Println(string(line))
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func produce(bootstrap, topic, codec string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := client(kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codecs[codec]))
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	var records []*kgo.Record
	for lines.Scan() {
		var one record
		check(json.Unmarshal(lines.Bytes(), &one))
		next := &kgo.Record{Key: one.Key, Value: one.Value}
		for _, pair := range one.Headers {
			next.Headers = append(next.Headers, kgo.RecordHeader{Key: *pair[0], Value: fromText(pair[1])})
		}
		records = append(records, next)
	}
	check(lines.Err())
	check(client.ProduceSync(ctx, records...).FirstErr())
}

func consume(bootstrap string, count int, topics []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := client(kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	for seen := 0; seen < count; {
		fetches := client.PollFetches(ctx)
		check(fetches.Err())
		fetches.EachRecord(func(one *kgo.Record) {
			show(fromRecord(one))
			seen++
		})
	}
}

func member(bootstrap, topic, group string) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var lock sync.Mutex
	assigned := map[int32]bool{}
	set := func(changed map[string][]int32, now bool) {
		lock.Lock()
		defer lock.Unlock()
		for _, partition := range changed[topic] {
			if now {
				assigned[partition] = true
			} else {
				delete(assigned, partition)
			}
		}
		sorted := []int32{}
		for partition := range assigned {
			sorted = append(sorted, partition)
		}
		sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
		show(map[string]any{"assigned": sorted})
	}
	client := client(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, more map[string][]int32) { set(more, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, fewer map[string][]int32) { set(fewer, false) }),
	)
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		fetches.EachRecord(func(one *kgo.Record) { show(map[string]any{"record": fromRecord(one)}) })
		if fetches.NumRecords() > 0 {
			check(client.CommitUncommittedOffsets(context.Background()))
		}
	}
	client.Close()
}

func fromRecord(one *kgo.Record) record {
	shown := record{
		Topic: one.Topic, Partition: one.Partition, Offset: one.Offset, Timestamp: one.Timestamp.UnixMilli(),
		Key: one.Key, Value: one.Value, Headers: [][2]header{},
	}
	for _, each := range one.Headers {
		name := each.Key
		shown.Headers = append(shown.Headers, [2]header{&name, toText(each.Value)})
	}
	return shown
}

func toText(data []byte) header {
	if data == nil {
		return nil
	}
	quoted, err := json.Marshal(data)
	check(err)
	var text string
	check(json.Unmarshal(quoted, &text))
	return &text
}

func fromText(text header) []byte {
	if text == nil {
		return nil
	}
	quoted, err := json.Marshal(*text)
	check(err)
	data := []byte{}
	check(json.Unmarshal(quoted, &data))
	return data
}
