use super::input::{Reassignment, parse_brokers, parse_topics};
use super::json::Json;
use super::plan::{Assignment, LogDirs, Replica, TopicPartition, to_json};

/// The first line of what the tool says, and where in the text Jackson saw the fault.
fn fault(text: &str) -> (String, Option<(usize, usize)>) {
    let said = Reassignment::parse(text).map(drop).map_err(|fault| fault.to_string());
    let said = said.expect_err(text);
    let mut lines = said.lines();
    let first = lines.next().unwrap().strip_prefix("Error: ").unwrap().to_owned();
    let place = lines.next().and_then(|line| line.strip_prefix(" at [")?.split_once("line: "));
    let place = place.map(|(_, place)| {
        let (line, column) = place.trim_end_matches(']').split_once(", column: ").unwrap();
        (line.parse().unwrap(), column.parse().unwrap())
    });
    (first, place)
}

/// What Kafka's tool was seen to say.
#[test]
fn bad_json_is_refused_in_jacksons_words() {
    let values = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";
    let value = format!(": expected a valid value {values}");
    let unexpected =
        |letter: char, what: &str| format!("Unexpected character ('{letter}' (code {})){what}", letter as u32);
    let unrecognized = |word: &str| format!("Unrecognized token '{word}': was expecting {values}");
    let object = ": was expecting comma to separate Object entries";
    let array = ": was expecting comma to separate Array entries";
    let name = ": was expecting double-quote to start field name";
    let quote = "Unexpected end-of-input: was expecting closing quote for a string value";
    let between = |what: &str| format!("Unexpected end-of-input within/between {what} entries");
    let plus = format!("{}{value}", "Unexpected character ('.' (code 46))");
    for (text, expected, column) in [
        (r#"{"a":[1,2],}"#, unexpected('}', name), 12),
        (r#"{"a":[1,]}"#, unexpected(']', &value), 9),
        (r#"{"version":1 "partitions":[]}"#, unexpected('"', object), 14),
        ("{version:1}", unexpected('v', name), 2),
        (r#"{"a":"t"#, quote.to_owned(), 8),
        ("\"abc", quote.to_owned(), 5),
        (r#"{"ver"#, "Unexpected end-of-input in field name".to_owned(), 6),
        ("hello", unrecognized("hello"), 1),
        ("nullx", unrecognized("nullx"), 1),
        (r#"{"version":tru}"#, unrecognized("tru"), 12),
        (r#"{"version":01}"#, "Invalid numeric value: Leading zeroes not allowed".to_owned(), 13),
        (r#"{"a":[1;2]}"#, unexpected(';', array), 8),
        (r#"{"version":"#, between("Object"), 12),
        (r#"{"version""#, between("Object"), 11),
        (r#"{"a":1,"#, between("Object"), 8),
        ("[1,", between("Array"), 4),
        (r#"{"a" 1}"#, unexpected('1', ": was expecting a colon to separate field name and value"), 6),
        ("}", "Unexpected close marker '}': no open Object to close".to_owned(), 1),
        ("]", "Unexpected close marker ']': no open Array to close".to_owned(), 1),
        (r#"{"a":1.}"#, unexpected('}', " in numeric value: Decimal point not followed by a digit"), 7),
        (r#"{"version":1e}"#, unexpected('}', " in numeric value: Exponent indicator not followed by a digit"), 13),
        (
            r#"{"version":-}"#,
            unexpected('}', " in numeric value: expected digit (0-9) to follow minus sign, for valid numeric value"),
            13,
        ),
        (r#"{"a":.5}"#, plus, 6),
        (r#"{"a":"\q"}"#, "Unrecognized character escape 'q' (code 113)".to_owned(), 8),
        (r#"{"a":"\u12g4"}"#, unexpected('g', ": expected a hex-digit for character escape sequence"), 11),
        (r#"{"a":1e-x}"#, unexpected('x', " in numeric value: Exponent indicator not followed by a digit"), 7),
        (r#"{"a":1."#, unexpected('.', " in numeric value: Decimal point not followed by a digit"), 7),
        (r#"{"a":-.5}"#, unexpected('.', &value), 7),
        (r#"{"a":-"#, "Unexpected end-of-inputNo digit following sign".to_owned(), 7),
        (r#"{"a":1e-"#, "Unexpected end-of-inputexpected a digit for number exponent".to_owned(), 9),
        ("[1,}", unexpected('}', ": expected a value"), 4),
        ("1a", unexpected('a', ": Expected space separating root-level values"), 2),
        (
            r#"{"version":NaN}"#,
            "Non-standard token 'NaN': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow".to_owned(),
            15,
        ),
        (
            "{\"a\":\"x\ty\"}",
            "Illegal unquoted character ((CTRL-CHAR, code 9)): has to be escaped using backslash to be included in string \
             value"
                .to_owned(),
            8,
        ),
    ] {
        assert_eq!(fault(text), (expected, Some((1, column))), "{text}");
    }
}

#[test]
fn places_in_bad_json_are_those_that_jackson_names() {
    assert_eq!(fault("{\"version\":1,\n\"partitions\":[\n  {\"topic\":\"t\",'p':0}]}").1, Some((3, 16)));
    let source = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column:";
    let unclosed = format!("Unexpected end-of-input: expected close marker for Array (start marker at {source} 6])");
    assert_eq!(fault(r#"{"a":[{}"#), (unclosed, Some((1, 9))));
    let other = format!("Unexpected close marker '}}': expected ']' (for Array starting at {source} 6])");
    assert_eq!(fault(r#"{"a":[1}"#), (other, Some((1, 8))));
    let comment = "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not enabled for \
                   parser)";
    assert_eq!(fault("// c"), (format!("Unexpected character ('/' (code 47)): {comment}"), Some((1, 1))));
    assert!(Json::parse(&"[".repeat(1_000_000)).is_err(), "nobody's stack is that deep");
}

#[test]
fn what_a_file_says_has_to_make_sense() {
    let partition = |what: &str| format!(r#"{{"partitions":[{{"topic":"t","partition":0,"replicas":[1,2]{what}}}]}}"#);
    for (text, expected) in [
        ("", "Expected JSON object, received ".to_owned()),
        ("[1, 2]", "Expected JSON object, received [1,2]".to_owned()),
        ("null", "Expected JSON object, received null".to_owned()),
        (r#"{"version":"1"}"#, "Expected `Integer` value, received \"1\"".to_owned()),
        (r#"{"version":1,"version":2}"#, "Not supported version field value 2".to_owned()),
        (r#"{"partitions":{"a":1.50}}"#, r#"Expected JSON array, received {"a":1.5}"#.to_owned()),
        (r#"{"partitions":[{}]}"#, "No such field exists: `topic`".to_owned()),
        (r#"{"partitions":[{"topic":5}]}"#, "Expected `String` value, received 5".to_owned()),
        (
            r#"{"partitions":[{"topic":"t","partition":99999999999}]}"#,
            "Expected `Integer` value, received 99999999999".to_owned(),
        ),
        (
            r#"{"partitions":[{"topic":"t","partition":0,"replicas":{"c":1.5e10,"b":"é\n/","a":0.00012}}]}"#,
            r#"Expected `JSON array` value, received {"c":1.5E10,"b":"é\n/","a":1.2E-4}"#.to_owned(),
        ),
        (
            &partition(r#","log_dirs":["any"]"#),
            "Size of replicas list [1, 2] is different from size of log dirs list [any] for partition t-0".to_owned(),
        ),
    ] {
        assert_eq!(fault(text).0, expected, "{text}");
    }
    let twice = Reassignment::parse(r#"{"partitions":[{"topic":"t","partition":0,"replicas":[2,1,1,2]}]} and more"#);
    let said = twice.unwrap().check().unwrap_err().to_string();
    let expected =
        "Error: Partition replica lists may not contain duplicate entries: t-0 contains multiple entries for 1,2\n";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn proposals_need_brokers_and_topics_once_each() {
    assert_eq!(parse_brokers("1,2,"), Ok(vec![1, 2]));
    for (brokers, expected) in [
        ("1, 2", "For input string: \" 2\""),
        ("", "For input string: \"\""),
        ("1,1,3,2,2", "Broker list contains duplicate entries: [1, 2]"),
    ] {
        let said = parse_brokers(brokers).unwrap_err().to_string();
        assert!(said.starts_with(&format!("Error: {expected}\n")), "{said}");
    }
    assert_eq!(parse_topics(r#"{"topics":[{"topic":"t"}]}"#), Ok(vec!["t".to_owned()]));
    let again = r#"{"topics":[{"topic":"zz"},{"topic":"aa"},{"topic":"zz"},{"topic":"aa"}]}"#;
    let said = parse_topics(again).unwrap_err().to_string();
    assert!(said.starts_with("Error: List of topics to reassign contains duplicate entries: [zz, aa]\n"), "{said}");
}

#[test]
fn a_reassignment_is_written_as_it_is_read() {
    let key = |partition| TopicPartition { topic: "a.\"b".to_owned(), partition };
    let assignment = Assignment::from([(key(10), vec![3]), (key(2), vec![1, 2])]);
    let log_dirs = LogDirs::from([(Replica { partition: key(2), broker: 2 }, "/data".to_owned())]);
    let text = to_json(&assignment, &log_dirs);
    let expected = r#"{"version":1,"partitions":[{"topic":"a.\"b","partition":2,"replicas":[1,2],"log_dirs":["any","/data"]},{"topic":"a.\"b","partition":10,"replicas":[3],"log_dirs":["any"]}]}"#;
    assert_eq!(text, expected);
    let read = Reassignment::parse(&text).unwrap();
    assert_eq!((read.assignment(), read.log_dirs), (assignment, log_dirs));
}
